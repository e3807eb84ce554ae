"""How torch's threads wait for one another is set before torch is loaded; a user's own choice stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
AT_TORCH = """
import importlib, os, runpy, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(*(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
runpy.run_path(sys.argv[1]) if sys.argv[1].endswith(".py") else importlib.import_module(sys.argv[1])
"""  # prints what the environment holds when torch is about to be loaded
STARTS = ["mal.run", "mal.own.label_files", "mal.methods.mal.train", "slurm.job", "slurm.submit"]
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "experiments").rglob("*.py"))
SCRIPTS.remove("experiments/run.py")  # which imports mal.run once it knows what is wanted


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, with these variables alone saying how threads wait."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment | variables,
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("start", [*STARTS, *SCRIPTS])
def test_how_threads_wait_is_set_before_torch_is_loaded(start: str) -> None:
    assert python("-c", AT_TORCH, start).stdout == "10000 None\n"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "300000"), ("OMP_WAIT_POLICY", "active")])
def test_a_users_own_way_of_waiting_stays(name: str, value: str) -> None:
    found = dict(
        zip(WAITING, python("-c", AT_TORCH, "mal.methods.mal.train", **{name: value}).stdout.split(), strict=True)
    )
    assert found == {**dict.fromkeys(WAITING, "None"), name: value}


def test_torchs_openmp_has_read_how_threads_wait() -> None:
    said = python("-c", "import mal.engine.runtime", OMP_DISPLAY_ENV="verbose").stderr
    if "GOMP_" not in said:
        pytest.skip("this build of torch brings another OpenMP than GNU's")
    assert "GOMP_SPINCOUNT = '10000'" in said
