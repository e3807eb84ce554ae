"""A store with a stage in it, commands that send it, and what MLflow's database then holds."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NO_SERVER = "http://127.0.0.1:9"  # the discard port: nobody listens


def run_json(key: str, **changes: Any) -> dict[str, Any]:
    return {
        "stage": "quality",
        "key": key,
        "version": 3,
        "status": "done",
        "columns": {"profile": "demo", "encoder": "deit_s", "theta": None, "seed": 0},
        "config": {"recipe": {"crf": {"zeta": 0.5}, "note": "x" * 7000}, "sizes": [64, 96], "weights": None},
        "inputs": {"labels": "label_val/0123"},
        "sources": {"boxes": "ab12"},
        "metrics": {"iou": {"value": 0.7, "n": 1816}, "ap_small": {"value": None, "n": 0}},
        "provenance": {"commit": "c0ffee", "diff": None},
        "seconds": 12.5,
        "memory": {"peak_memory_gib": 1.25},
        "started": "2026-11-20T10:00:00+00:00",
        "finished": "2026-11-20T10:00:12.500000+00:00",
        **changes,
    }


def curve(steps: range) -> str:
    return "".join(f'{{"step": {step}, "time": {1000 + step}.5, "loss": {1 / (step + 1)}}}\n' for step in steps)


def write_stage(store: Path, key: str = "k", *, done: bool = True, steps: int = 3) -> Path:
    """The folder of a stage with a curve and, once it is done, a record and a contact sheet."""
    folder = store / "quality" / key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.jsonl").write_text(curve(range(steps)))
    if done:
        (folder / "sheet.png").write_bytes(b"a picture")
        (folder / "instances.csv").write_text("annotation_id,iou\n1,0.5\n")
        (folder / "labeler.pt").write_bytes(b"weights")
        (folder / "run.json").write_text(json.dumps(run_json(key)))
    return folder


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    return {**kept, **variables}


def sync(store: Path, uri: str, *, experiment: str = "mal", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mal.tracking", "sync", "--store", str(store), "--experiment", experiment]
    return subprocess.run(
        [*command, "--uri", uri], capture_output=True, text=True, env=environment(**variables), timeout=300
    )


def sent(store: Path, uri: str, **options: str) -> str:
    """What a sync that succeeds prints."""
    result = sync(store, uri, **options)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def points(database: Path, name: str) -> list[tuple[int, float]]:
    return rows(database, f"SELECT step, value FROM metrics WHERE key = '{name}' ORDER BY step, value")


def statuses(database: Path) -> list[str]:
    return [status for (status,) in rows(database, "SELECT status FROM runs ORDER BY start_time")]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs; making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("mlflow")
    script = (
        "import sys; from mal.engine.store import Store; from mal.engine.tracking import Sender\n"
        "Sender(Store('absent'), uri=sys.argv[1], experiment='unused').server.connect()"
    )
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{folder}/mlflow.db"], check=True, env=environment())
    return folder / "mlflow.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Path:
    """An MLflow database of the test's own, without runs."""
    return Path(shutil.copy(migrated, tmp_path / "mlflow.db"))


@pytest.fixture
def without_mlflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing mlflow fails."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mlflow.py").write_text("raise RuntimeError('mlflow was imported')")
    return {"PYTHONPATH": str(tmp_path / "broken")}


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def server(tmp_path: Path, migrated: Path) -> Iterator[str]:
    """The address of a real server, whose database is server/mlflow.db and whose artifacts are in kept."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "server").mkdir()
    database = Path(shutil.copy(migrated, tmp_path / "server" / "mlflow.db"))
    mlflow = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    mlflow += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(tmp_path / "kept")]
    process = subprocess.Popen(
        [*mlflow, "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(DO_NOT_TRACK="true", MLFLOW_DISABLE_TELEMETRY="true"),
        start_new_session=True,  # it has workers, which are to end with it
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
