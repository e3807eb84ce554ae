"""A stage has one run in an experiment, whatever was moved, lost or deleted; artifacts lie where the database lies."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mal.engine import payload
from tests.mirrored_store import curve, environment, points, rows, run_json, sent, statuses, sync, write_stage


def _uris(database: Path) -> list[str]:
    return [uri for (uri,) in rows(database, "SELECT artifact_uri FROM runs ORDER BY start_time")]


def _places(database: Path) -> set[str]:
    return {place for (place,) in rows(database, "SELECT artifact_location FROM experiments WHERE name = 'mal'")}


def _delete(database: Path, run: str) -> None:
    """As MLflow's bin button does."""
    script = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).delete_run(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{database}", run], check=True, env=environment())


def _runs(database: Path) -> list[tuple[str, str, str]]:
    """(id, lifecycle stage, status) of every run, the oldest first."""
    return rows(database, "SELECT run_uuid, lifecycle_stage, status FROM runs ORDER BY rowid")  # type: ignore[return-value]


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Path:
    """A folder with results/runs and results/mlflow.db, all of it sent."""
    folder = tmp_path / "project"
    write_stage(folder / "results/runs")
    shutil.copy(migrated, folder / "results/mlflow.db")
    sent(folder / "results/runs", f"sqlite:///{folder}/results/mlflow.db")
    return folder


# Moved


@pytest.mark.slow
def test_a_project_that_was_moved_goes_on_with_its_runs_and_artifacts(
    project: Path,
    tmp_path: Path,
    without_mlflow: dict[str, str],
) -> None:
    moved = project.rename(tmp_path / "moved to here")
    database, store = moved / "results/mlflow.db", moved / "results/runs"
    # Nothing is new: not even mlflow is imported, but the runs point at their artifacts again.
    assert "sent 0 of 1 stages" in sent(store, f"sqlite:///{database}", **without_mlflow)
    here = (moved / "results/mlflow-artifacts").as_uri()
    assert _places(database) == {here}
    assert [uri.startswith(f"{here}/") for uri in _uris(database)] == [True]

    write_stage(store, "later")
    assert "sent 1 of 2 stages" in sent(store, f"sqlite:///{database}")
    assert len(_runs(database)) == 2
    assert len(list((moved / "results/mlflow-artifacts").rglob("run.json"))) == 2
    assert not project.exists()


@pytest.mark.slow
def test_two_mounts_of_one_project_share_its_runs(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "mounted"
    project.rename(link)
    write_stage(link / "results/runs", "inside", done=False)
    sent(link / "results/runs", f"sqlite:///{link}/results/mlflow.db")
    link.rename(project)
    write_stage(project / "results/runs", "inside", steps=5)
    sent(project / "results/runs", f"sqlite:///{project}/results/mlflow.db")
    database = project / "results/mlflow.db"
    assert [status for _, _, status in _runs(database)] == ["FINISHED"] * 2
    assert len(points(database, "curve/loss")) == 3 + 5
    assert not link.exists()


@pytest.mark.slow
def test_a_database_that_was_copied_alone_leaves_the_old_runs_their_artifacts(project: Path, tmp_path: Path) -> None:
    before = _uris(project / "results/mlflow.db")
    copy = Path(shutil.copy(project / "results/mlflow.db", tmp_path / "copy.db"))
    write_stage(project / "results/runs", "later")
    assert "sent" in sent(project / "results/runs", f"sqlite:///{copy}")
    assert _uris(copy)[0] == before[0]
    assert _uris(copy)[1].startswith((tmp_path / "mlflow-artifacts").as_uri())
    assert len(_runs(copy)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["state", "way"])
def test_a_stage_is_found_again_by_its_tags_and_nothing_of_it_is_doubled(project: Path, lost: str) -> None:
    store, database = project / "results/runs", project / "results/mlflow.db"
    everything = "SELECT key, value, step, timestamp FROM metrics ORDER BY key, step, timestamp"
    before = rows(database, everything)
    if lost == "state":
        (store / "quality/k/mlflow.json").unlink()
    else:  # the store lies elsewhere now, so that its mlflow.json speaks of another place
        store = store.rename(project.parent / "elsewhere")
    assert "sent 1 of 1 stages" in sent(store, f"sqlite:///{database}")
    assert rows(database, everything) == before
    assert statuses(database) == ["FINISHED"]


@pytest.mark.slow
def test_a_stage_that_was_computed_anew_updates_its_run(project: Path) -> None:
    store, database = project / "results/runs", project / "results/mlflow.db"
    shutil.rmtree(store)
    folder = write_stage(store, steps=5, done=False)
    sent(store, f"sqlite:///{database}")
    assert statuses(database) == ["FINISHED"]  # as it was, until there is a result
    (folder / "curves.jsonl").write_text(curve(range(6)).replace('"time": 1', '"time": 2'))
    changes = {"metrics": {"iou": {"value": 0.8, "n": 1816}}, "finished": "2026-11-21T10:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(run_json("k", **changes)))
    sent(store, f"sqlite:///{database}")
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2, 3, 4, 5]
    assert points(database, "iou") == [(0, 0.7), (0, 0.8)]
    assert points(database, "iou.n") == [(0, 1816)]
    assert rows(database, "SELECT value FROM latest_metrics WHERE key = 'iou'") == [(0.8,)]
    assert statuses(database) == ["FINISHED"]


def test_what_a_server_has_of_a_curve_is_not_sent_again() -> None:
    lines = ['{"step": 1, "loss": 1, "mil": 2}', "torn", '{"step": 2, "loss": 1}', '{"step": 3, "mil": 1}']
    assert payload.lines_there(lines, {}) == 0
    assert payload.lines_there(lines, {"curve/loss": 1, "curve/mil": 1}) == 2
    assert payload.lines_there(lines, {"curve/loss": 5, "curve/mil": 2}) == 3
    assert payload.lines_there(lines, {"curve/loss": 5, "curve/mil": 5}) == 4


# Deleted in MLflow


@pytest.mark.slow
@pytest.mark.parametrize("purged", [False, True])
def test_a_half_done_run_that_was_deleted_stays_so_and_the_rest_goes_to_another(
    tmp_path: Path,
    database: Path,
    without_mlflow: dict[str, str],
    purged: bool,
) -> None:
    store, uri = tmp_path / "runs", f"sqlite:///{database}"
    write_stage(store, done=False)
    sent(store, uri)
    ((first, _, status),) = _runs(database)
    assert status == "KILLED"
    _delete(database, first)
    if purged:
        subprocess.run(
            [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--run-ids", first],
            check=True,
            capture_output=True,
            env=environment(MLFLOW_TRACKING_URI=uri),
        )
    write_stage(store, steps=5)
    printed = sent(store, uri)
    assert "note: the run of quality/k was deleted in MLflow; what is new in it went to another" in printed
    assert "sent 1 of 1 stages" in printed
    *old, (second, lifecycle, status) = _runs(database)
    assert old == ([] if purged else [(first, "deleted", "KILLED")])
    assert (lifecycle, status) == ("active", "FINISHED")
    steps = rows(database, f"SELECT step FROM metrics WHERE key = 'curve/loss' AND run_uuid = '{second}'")
    assert sorted(steps) == [(step,) for step in range(5)]
    assert "note" not in sent(store, uri, **without_mlflow)  # once, and then never again


@pytest.mark.slow
def test_a_finished_run_that_was_deleted_is_left_alone(project: Path) -> None:
    store, database = project / "results/runs", project / "results/mlflow.db"
    _delete(database, _runs(database)[0][0])
    record = store / "quality/k/run.json"
    record.write_text(record.read_text())  # as `touch` or a restored backup does
    write_stage(store, "other")
    sent(store, f"sqlite:///{database}")
    assert [lifecycle for _, lifecycle, _ in _runs(database)] == ["deleted", "active"]


# Answers that are lost, files that cannot be stored


class _DeafOnce:
    """Passes every connection on to a server; the first answer to a request that makes a run is thrown away."""

    def __init__(self, port: int) -> None:
        self.port, self.thrown = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.port)) as upstream:
            while request := _message(client):
                upstream.sendall(request)
                answer = _message(upstream)
                if b"/runs/create" in request.split(b"\r\n")[0] and not self.thrown:
                    self.thrown += 1
                    return
                client.sendall(answer)


def _message(source: socket.socket) -> bytes:
    """One HTTP message with its body; nothing at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := source.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(it[15:]) for it in head.lower().split(b"\r\n") if it.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += source.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def deaf_once(server: str) -> Iterator[_DeafOnce]:
    between = _DeafOnce(int(server.rpartition(":")[2]))
    yield between
    between.listener.close()


@pytest.mark.slow
def test_a_run_whose_creation_was_done_but_not_answered_is_not_made_twice(tmp_path: Path, deaf_once: _DeafOnce) -> None:
    write_stage(tmp_path / "runs")
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", deaf_once.address)
    assert deaf_once.thrown == 1
    assert [run[1:] for run in _runs(tmp_path / "server/mlflow.db")] == [("active", "FINISHED")]


@pytest.mark.slow
def test_files_that_cannot_be_stored_keep_no_numbers_back(tmp_path: Path, database: Path) -> None:
    for key in "abcde":
        write_stage(tmp_path / "runs", key)
    (tmp_path / "mlflow-artifacts").write_text("in the way")
    result = sync(tmp_path / "runs", f"sqlite:///{database}")
    assert result.returncode == 1
    assert "0 stages were sent" in result.stderr
    assert "mlflow-artifacts" in result.stderr
    assert statuses(database) == ["FINISHED"] * 5
    assert points(database, "iou") == [(0, 0.7)] * 5
    (tmp_path / "mlflow-artifacts").unlink()
    assert "sent 5 of 5 stages" in sent(tmp_path / "runs", f"sqlite:///{database}")
    assert len(list((tmp_path / "mlflow-artifacts").rglob("run.json"))) == 5
    assert len(_runs(database)) == 5
