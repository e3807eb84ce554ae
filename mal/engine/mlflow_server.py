"""One experiment on an MLflow server or in its SQLite file: the only file of mal that imports mlflow.

MLflow stores artifacts under absolute paths. Beside a SQLite file they lie in `mlflow-artifacts`, and a folder that was
moved, copied or mounted elsewhere keeps its runs: they are pointed at the artifacts beside the file where it is now.
"""

import fcntl
import logging
import os
import re
import shutil
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mal.engine import payload
from mal.engine.tracking_address import resolve, shown, without_password
from mal.errors import MalError

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # MLflow's limits
ARTIFACTS = "mlflow-artifacts"  # beside the SQLite file
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
SECONDS_BEFORE_LOOKING = 1.0  # for a run whose creation was not answered


class Server:
    """An experiment, and the runs in it. Every method but `connect` may raise whatever mlflow does."""

    def __init__(self, uri: str, *, experiment: str, lock: Path) -> None:
        """
        Args:
            uri: sqlite:///FILE, http://HOST:PORT, or anything else that MLflow 3 uses.
            lock: the file that one process holds while it makes database and experiment, where the address has none.

        Raises:
            MalError: an address that MLflow 3 cannot use.
        """
        bare, secret = without_password(uri)
        os.environ.update(secret)  # where mlflow looks for it; it prints the address
        self.uri, self.database = resolve(bare)
        self.experiment = experiment
        self.identity: list[Any] = []  # of the experiment: [id, when it was created]; a new database has another
        self._client: Any = None
        self._lock = self.database.with_name(f"{self.database.name}.lock") if self.database else lock

    def connect(self) -> None:
        """Create database and experiment where they are missing, one process at a time.

        Twelve processes that migrate one fresh SQLite file at once leave eleven of them dead.

        Raises:
            MalError: the server does not answer, or the experiment cannot be used.
        """
        if self._client is not None:
            return
        try:
            mlflow = import_mlflow()
            with locked(self._lock):
                if self.database:
                    _create_database(self.database, mlflow)
                client = mlflow.MlflowClient(tracking_uri=self.uri)
                experiment = client.get_experiment_by_name(self.experiment) or self._create_experiment(client)
        except Exception as error:  # mlflow, requests, sqlalchemy and the disk raise dozens of kinds
            raise MalError(f"cannot use the tracking server {shown(self.uri)}: {reason(error)}") from error
        if experiment.lifecycle_stage != "active":
            raise MalError(
                f"the experiment {self.experiment} of {shown(self.uri)} is deleted; restore it in MLflow, or name "
                "another one with tracking.experiment=NAME"
            )
        self._client = client
        self.identity = [experiment.experiment_id, experiment.creation_time]

    def follow_move(self) -> None:
        """Point a SQLite file that was moved at the artifacts that moved along; those that did not stay where they are.

        Without mlflow, which has no call for that.

        Raises:
            MalError: the file cannot be read, or not be written although it should be.
        """
        if self.database is None or not self.database.exists() or not self.database.stat().st_size:
            return
        here = (self.database.parent / ARTIFACTS).as_uri()
        try:
            with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
                places = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
                moved = [(here, it) for it, place in places if place != here and f"{place}".endswith(f"/{ARTIFACTS}")]
                runs = connection.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall()
                folders = [(own_artifacts(self.database, run, uri or ""), run, uri) for run, uri in runs]
                changed = [(path.as_uri(), run) for path, run, uri in folders if path and path.as_uri() != uri]
                if moved or changed:
                    connection.executemany(
                        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", moved
                    )
                    connection.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", changed)
        except sqlite3.Error as error:
            raise MalError(f"cannot use the tracking server {self.uri}: {error}") from error

    def answers(self) -> bool:
        """Whether the server is there, whatever went wrong before."""
        try:
            self._client.get_experiment(self.identity[0])
        except Exception:
            return False
        return True

    def run(self, run_id: str) -> Any:
        """A run of this experiment; None if it was deleted, whether for good or not."""
        import mlflow.exceptions

        try:
            run = self._client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def find(self, **tags: str) -> list[Any]:
        """The runs that carry all of these tags, the oldest first; deleted ones are none."""
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        return list(self._client.search_runs([self.identity[0]], condition, order_by=["attributes.start_time ASC"]))

    def create(self, name: str, *, mirror: str, tags: Mapping[str, str], start: int | None = None) -> Any:
        """Make a run. If the server does not answer but did make it, that one: its tag `mirror` is of one run alone.

        Args:
            start: milliseconds since 1970; None: now.
        """
        before = os.environ[RETRIES]
        os.environ[RETRIES] = "0"  # mlflow repeats a request that was not answered; this one would make a second run
        try:
            return self._client.create_run(
                self.identity[0], start_time=start, tags={"mirror": mirror, **tags}, run_name=name
            )
        except Exception:
            time.sleep(SECONDS_BEFORE_LOOKING)
            found = self.find(mirror=mirror)
            if not found:
                raise
            return found[0]
        finally:
            os.environ[RETRIES] = before

    def delete(self, run_id: str) -> None:
        """Move a run to MLflow's bin."""
        self._client.delete_run(run_id)

    def last_steps(self, run: Any) -> dict[str, int]:
        """Name of a curve → the last step of it that the server has."""
        curves = [name for name in run.data.metrics if name.startswith(payload.CURVE)]
        return {
            name: max(point.step for point in self._client.get_metric_history(run.info.run_id, name)) for name in curves
        }

    def log_params(self, run: Any, params: Mapping[str, str]) -> None:
        """Set those that the run has not got; they are immutable."""
        entities = import_mlflow().entities
        new = [entities.Param(*it) for it in params.items() if it[0] not in run.data.params]
        for start in range(0, len(new), PARAMS_PER_CALL):
            self._client.log_batch(run.info.run_id, params=new[start : start + PARAMS_PER_CALL])

    def log_metrics(self, run: Any, points: Sequence[payload.Point]) -> None:
        """Add points; one that is there already stays one."""
        metric = import_mlflow().entities.Metric
        for start in range(0, len(points), METRICS_PER_CALL):
            chunk = points[start : start + METRICS_PER_CALL]
            metrics = [metric(it.name, it.value, it.milliseconds, it.step) for it in chunk]
            self._client.log_batch(run.info.run_id, metrics=metrics)

    def set_tags(self, run: Any, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        entities = import_mlflow().entities
        self._client.log_batch(run.info.run_id, tags=[entities.RunTag(*it) for it in tags.items()])

    def put_file(self, run: Any, path: Path) -> None:
        """Store a file with a run, beside the database where it lies now, or where the server says."""
        folder = own_artifacts(self.database, run.info.run_id, run.info.artifact_uri)
        if folder is None:
            self._client.log_artifact(run.info.run_id, str(path))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.name)

    def set_status(self, run: Any, status: str, *, ended: int | None = None) -> None:
        """RUNNING, or FINISHED, FAILED or KILLED at a time in milliseconds since 1970 (None: now)."""
        if status == "RUNNING":
            self._client.update_run(run.info.run_id, status=status)
        else:
            self._client.set_terminated(run.info.run_id, status, ended)

    def _create_experiment(self, client: Any) -> Any:
        artifacts = None if self.database is None else (self.database.parent / ARTIFACTS).as_uri()
        try:
            return client.get_experiment(client.create_experiment(self.experiment, artifact_location=artifacts))
        except Exception:
            experiment = client.get_experiment_by_name(self.experiment)  # another machine was faster
            if experiment is None:
                raise
            return experiment


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    text = shown(" ".join(str(error).split()))
    if "API request to" in text and (why := re.search(r"\[Errno -?\d+\] ([^\"')]+)|Read timed out", text)):
        return f"it does not answer ({why[1] or 'time-out'})"
    return text[:400] or type(error).__name__


def own_artifacts(database: Path | None, run_id: str, uri: str) -> Path | None:
    """The folder of a run's artifacts beside its SQLite file; None where they lie elsewhere.

    Args:
        uri: what MLflow has stored: an absolute path, perhaps of the place where the file was once.
    """
    if database is None or not uri.endswith(f"/{ARTIFACTS}/{run_id}/artifacts"):
        return None
    here, there = database.parent / ARTIFACTS / run_id / "artifacts", Path(url2pathname(urlsplit(uri).path))
    if here == there:
        return here
    with suppress(PermissionError):  # what was another user's, say, is not ours
        if there.exists() and not here.exists():
            return None  # the file was copied without its artifacts
    return here


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it; the system frees it when its process ends in any way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create_database(path: Path, mlflow: Any) -> None:
    """Make MLflow's SQLite file under another name first: a kill in mid-migration leaves one that never works again."""
    if path.exists() and path.stat().st_size:
        return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
    new.replace(path)


def import_mlflow() -> Any:
    """mlflow, without its usage telemetry, its chatter, and its default of minutes of retries."""
    if "mlflow" not in sys.modules:
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.pop("MLFLOW_RUN_ID", None)  # of somebody else's run; it would be taken for each of ours
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    os.environ.setdefault(RETRIES, "1")
    import mlflow

    return mlflow
