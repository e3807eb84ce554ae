"""What only answers does not load what computes: help and refusals no torch, a dry run no libraries of models."""

import os
import subprocess
import sys

import pytest

from tests.conftest import CONF

ROOT = CONF.parents[1]
SCRIPT = """
import runpy, sys
sys.argv[:] = sys.argv[1:]
try:
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("\\nloaded", *sys.modules)
"""
LIBRARIES_OF_MODELS = {"torchvision", "timm", "transformers"}
SLOW = LIBRARIES_OF_MODELS | {"mlflow", "matplotlib", "pandas", "scipy", "faster_coco_eval", "submitit", "triton"}


def loaded(*arguments: str) -> tuple[set[str], str]:
    """The modules a command has loaded when it ends, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    printed, _, modules = done.stdout.rpartition("\nloaded ")
    return set(modules.split()), printed + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("mal.label", "--help"),
        ("mal.label", "--images", "x"),
        ("mal.label", "--nonsense"),
        ("mal.store", "--help"),
        ("mal.tracking", "--help"),
        ("mal.tracking", "ui"),
        ("analysis.summary", "--help"),
        ("analysis.audit", "--help"),
        ("analysis.tables", "--help"),
        ("analysis.report", "--help"),
        ("slurm.status", "--help"),
        ("slurm.cancel", "--help"),
        (str(ROOT / "experiments/run.py"), "--help"),
        (str(ROOT / "experiments/run.py"), "encoder=nonsense"),
        (str(ROOT / "experiments/run.py"), "train.steps=many"),
    ],
    ids=lambda it: " ".join(it).replace(f"{ROOT}/", ""),
)
def test_help_and_refusals_load_nothing_that_takes_seconds(arguments):
    modules, printed = loaded(*arguments)
    assert modules & (SLOW | {"torch"}) == set()
    assert printed
    assert "Traceback" not in printed


def test_a_dry_run_loads_torch_and_no_library_of_models_or_tables(tmp_path):
    modules, printed = loaded(
        str(ROOT / "experiments/run.py"), "dry_run=true", f"store={tmp_path}", "tracking.enabled=true"
    )
    assert "train_labeler" in printed
    assert modules & SLOW == set()
    assert "torch" in modules


def test_help_shows_the_menu():
    _, printed = loaded(str(ROOT / "experiments/run.py"), "--help")
    assert "  data=ade20k_150|car_parts|coco|coco_mini|" in printed
    assert "  profile=demo|mini|paper|smoke" in printed
