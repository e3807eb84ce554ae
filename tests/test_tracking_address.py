"""One rule says where tracking goes, and a password is seen nowhere."""

import base64
import http.server
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mal.engine.mirror import start_mirror, sync_command, ui_command
from mal.engine.tracking_address import DEFAULT_URI, experiment_name, tracking_uri, without_password
from tests.mirrored_store import NO_SERVER, environment, sync, write_stage

ROOT = Path(__file__).resolve().parents[1]
TEAM = "sqlite:///team.db"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of MLflow."""
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_an_explicit_address_goes_before_the_environments_and_that_before_the_default(bare) -> None:
    assert (tracking_uri(), experiment_name()) == (DEFAULT_URI, "mal")
    bare.setenv("MLFLOW_TRACKING_URI", TEAM)
    bare.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    assert (tracking_uri(), experiment_name()) == (TEAM, "ours")
    assert (tracking_uri(NO_SERVER), experiment_name("mine")) == (NO_SERVER, "mine")
    bare.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri() == DEFAULT_URI


def test_a_run_leaves_the_address_to_the_environment_unless_it_is_told(compose) -> None:
    assert (compose().tracking.uri, compose().tracking.experiment) == (None, None)
    assert compose(f"tracking.uri={TEAM}").tracking.uri == TEAM


def test_the_hint_and_the_way_to_look_at_it_name_the_same_place(bare) -> None:
    bare.setenv("MLFLOW_TRACKING_URI", TEAM)
    assert sync_command("results/runs", uri=None, experiment=None) == "python -m mal.tracking sync"
    assert sync_command("results/runs", uri=TEAM, experiment="mal") == "python -m mal.tracking sync"
    assert sync_command("results/runs", uri=DEFAULT_URI, experiment=None).endswith(f" --uri {DEFAULT_URI}")
    assert ui_command().endswith(f"--backend-store-uri {TEAM}")
    assert ui_command(DEFAULT_URI).endswith(f"--backend-store-uri {DEFAULT_URI}")


@pytest.mark.usefixtures("bare")
def test_the_hint_can_be_pasted_into_a_shell() -> None:
    hint = sync_command("my runs", uri="sqlite:///it's (1).db", experiment="a b")
    assert (
        hint == """python -m mal.tracking sync --store 'my runs' --uri 'sqlite:///it'"'"'s (1).db' --experiment 'a b'"""
    )
    hint = sync_command("results/runs", uri="http://me:secret@host", experiment=None)
    assert hint == (
        "MLFLOW_TRACKING_USERNAME=… MLFLOW_TRACKING_PASSWORD=… python -m mal.tracking sync --uri http://host"
    )


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("uri", ["http://[half", "http://a:b@[half", "://", "nonsense", "http://u:p@h:port"])
def test_no_address_however_broken_touches_a_run(tmp_path: Path, capfd, uri: str) -> None:
    write_stage(tmp_path / "runs")
    mirror = start_mirror(tmp_path / "runs", uri=uri)
    assert ui_command(uri)
    assert not mirror.stop(wait_s=120)
    printed = capfd.readouterr().err
    assert printed.startswith("tracking: not everything is in MLflow yet (")
    assert printed.count("\n") == 1


@pytest.mark.slow
def test_a_run_and_sync_go_where_the_environment_says(tmp_path: Path) -> None:
    said = environment(MLFLOW_TRACKING_URI=TEAM, MLFLOW_EXPERIMENT_NAME="ours", PYTHONPATH=str(ROOT))
    command = [sys.executable, str(ROOT / "experiments/run.py"), "profile=smoke", "segmenter=none", "compare=[]"]
    run = subprocess.run(command, cwd=tmp_path, env=said, capture_output=True, text=True, timeout=600, check=True)
    assert run.stdout.rstrip().endswith(f"ui --backend-store-uri {TEAM}")
    assert not list(tmp_path.glob("results/*.db"))
    with sqlite3.connect(tmp_path / "team.db") as database:
        runs = database.execute("SELECT run_uuid FROM runs").fetchall()
        assert database.execute("SELECT count(*) FROM experiments WHERE name = 'ours'").fetchone() == (1,)
    assert len(runs) == len(list(tmp_path.glob("results/runs/*/*/run.json")))
    again = subprocess.run(
        [sys.executable, "-m", "mal.tracking", "sync"],
        cwd=tmp_path,
        env=said,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert f"sent 0 of {len(runs)} stages in results/runs to sqlite:///" in again.stdout


@pytest.mark.slow
def test_three_runs_at_once_share_one_store_and_one_database(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments/run.py"), "profile=smoke", "segmenter=none", "compare=[]"]
    started = [
        subprocess.Popen(
            [*command, f"seed={seed}"], cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for seed in (0, 0, 1)
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    subprocess.run([sys.executable, "-m", "mal.tracking", "sync"], cwd=tmp_path, env=environment(), check=True)
    with sqlite3.connect(tmp_path / "results/mlflow.db") as database:
        keys = database.execute("SELECT value FROM tags WHERE key = 'key'").fetchall()
        statuses = database.execute("SELECT DISTINCT status FROM runs").fetchall()
    assert len(keys) == len(set(keys)) == len(list(tmp_path.glob("results/runs/*/*/run.json")))
    assert statuses == [("FINISHED",)]


# Passwords


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Notes who asks, and refuses."""

    asked: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.headers["Authorization"])
        self.send_error(403, explain=f"no access to http://{self.headers['Host']}{self.path}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[tuple[str, list[str | None]]]:
    asked: list[str | None] = []
    handler = type("Handler", (_Guarded,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.slow
def test_a_password_reaches_the_server_and_nothing_else(tmp_path: Path, guarded) -> None:
    host, asked = guarded
    write_stage(tmp_path / "runs")
    result = sync(tmp_path / "runs", f"http://me:se%40cret@{host}")
    assert result.returncode == 1
    assert set(asked) == {"Basic " + base64.b64encode(b"me:se@cret").decode()}
    assert "cret" not in result.stdout + result.stderr
    assert f"cannot use the tracking server http://{host}: " in result.stderr
    assert "MLFLOW_TRACKING_PASSWORD" in result.stderr  # where it belongs
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in written if b"cret" in text]


def test_a_password_is_not_in_the_list_of_processes(tmp_path: Path, silent_server: str) -> None:
    write_stage(tmp_path / "runs")
    command = [sys.executable, "-m", "mal.tracking", "sync", "--store", str(tmp_path / "runs")]
    process = subprocess.Popen(
        [*command, "--uri", silent_server.replace("//", "//me:secret@")],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"MLFLOW_TRACKING_PASSWORD" in process.stderr.readline()  # said just before it starts again
        deadline = time.monotonic() + 60
        while b"secret" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_the_mirrors_process_gets_the_password_by_its_environment(monkeypatch, tmp_path: Path) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def popen(command: list[str], **options: object) -> None:
        started.append((command, dict(options["env"])))  # type: ignore[call-overload]
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "Popen", popen)
    start_mirror(tmp_path, uri="http://me:secret@host", experiment="mal")
    ((command, variables),) = started
    assert "secret" not in " ".join(command)
    assert variables["MLFLOW_TRACKING_URI"] == "http://host"
    assert variables["MLFLOW_TRACKING_USERNAME"] == "me"
    assert variables["MLFLOW_TRACKING_PASSWORD"] == "secret"


def test_an_address_without_a_password_is_left_as_it_is() -> None:
    for uri in (DEFAULT_URI, "http://host:5000/a@b", "postgresql://me:pw@host/db", "http://[half", "http://user@host"):
        assert without_password(uri) == (uri, {})
