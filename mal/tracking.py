"""The MLflow mirror of the run store, and the only file that imports mlflow.

run.json is the truth. A mirror process sends what is new in the store while a command runs; what could not be sent
(server away, disk full, command killed) is sent by the next command's mirror, or by

    python -m mal.tracking sync [--store DIR] [--uri URI] [--experiment NAME]

What was sent lies in each stage's mlflow.json, so nothing is sent twice.
"""

import argparse
import fcntl
import logging
import os
import re
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mal import payload
from mal.errors import MalError
from mal.files import digest, read_json, write_json
from mal.mirror import (
    DEFAULT_EXPERIMENT,
    DEFAULT_STORE,
    DEFAULT_URI,
    Mirror,
    shown,
    start_mirror,
    sync_command,
    ui_command,
    watch,
)
from mal.store import QUEUED, RECORD, Store

__all__ = ["Mirror", "Sender", "start_mirror", "sync_command", "ui_command"]

CURVES = "curves.jsonl"
STATE = "mlflow.json"
METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # MLflow's limits
ARTIFACT_BYTES, ARTIFACTS = 5_000_000, 20  # a file, and files a stage; anything large stays in the store
ARRAYS = ("instances.csv", "matches_*.npz", "attention.npz", CURVES)  # what analysis/ reads beside run.json
FAILURES_IN_A_ROW = 3  # then the server is taken to be away, rather than each stage paying its time-out


class Sender:
    """Sends the stages of a store to one experiment on one tracking server."""

    def __init__(self, store: Store, *, uri: str, experiment: str) -> None:
        self.store, self.experiment = store, experiment
        self.uri, self.database = _resolve(uri)
        self.target = digest([self.uri, experiment])[:12]
        self._client: Any = None
        self._identity: list[Any] = []  # of the experiment: [id, when it was created]; a new database has another
        self._sent: dict[Path, Any] = {}  # folder → signature of its files when all of it had been sent

    def send_all(self, *, last: bool) -> tuple[int, int]:
        """Send what is new; returns how many stages were sent and how many there are.

        Args:
            last: nobody will look again: also settle the status of stages that stopped half-way.

        Raises:
            MalError: some of it could not be sent; says what and why.
        """
        stages = self.store.folders()
        if not any(self._is_pending(stage, key, last=last) for stage, key in stages):
            return 0, len(stages)  # without having imported mlflow, which takes seconds
        self.connect()
        failures, in_a_row, sent = [], 0, 0
        for stage, key in [it for it in stages if self._is_pending(*it, last=last)]:
            try:
                self._send(stage, key)
                sent, in_a_row = sent + 1, 0
            except Exception as error:  # mlflow, requests, sqlalchemy and the disk raise dozens of kinds
                failures.append(f"{stage}/{key}: {self._reason(error)}")
                in_a_row += 1
            if in_a_row == FAILURES_IN_A_ROW:
                break
        if failures:
            raise MalError(f"{sent} stages were sent to {shown(self.uri)}, others were not; the first: {failures[0]}")
        return sent, len(stages)

    def connect(self) -> None:
        """Create database and experiment where they are missing, one process at a time.

        Twelve processes that migrate one fresh SQLite file at once leave eleven of them dead.

        Raises:
            MalError: the server does not answer, or the experiment cannot be used.
        """
        if self._client is not None:
            return
        try:
            mlflow = _import_mlflow()
            lock = self.database.with_name(f"{self.database.name}.lock") if self.database else None
            with _locked(lock or self.store.root / "mlflow.lock"):
                if self.database:
                    _create_database(self.database, mlflow)
                client = mlflow.MlflowClient(tracking_uri=self.uri)
                experiment = client.get_experiment_by_name(self.experiment) or self._create_experiment(client)
        except Exception as error:
            raise MalError(f"cannot use the tracking server {shown(self.uri)}: {self._reason(error)}") from error
        if experiment.lifecycle_stage != "active":
            raise MalError(
                f"the experiment {self.experiment} of {shown(self.uri)} is deleted; restore it in MLflow, or name "
                "another one with tracking.experiment=NAME"
            )
        self._client = client
        self._identity = [experiment.experiment_id, experiment.creation_time]

    def open_sweep(self, name: str, about: dict[str, Any]) -> str:
        """Make a run that stands for a sweep, and return its id; the stages that name it become its children.

        Raises:
            MalError: the server does not answer.
        """
        self.connect()
        told = payload.tags("sweep", name, {"columns": about})
        try:
            return self._client.create_run(self._identity[0], tags=told, run_name=f"sweep {name}").info.run_id
        except Exception as error:
            raise MalError(f"cannot use the tracking server {shown(self.uri)}: {self._reason(error)}") from error

    def _create_experiment(self, client: Any) -> Any:
        artifacts = None if self.database is None else (self.database.parent / "mlflow-artifacts").as_uri()
        try:
            return client.get_experiment(client.create_experiment(self.experiment, artifact_location=artifacts))
        except Exception:
            experiment = client.get_experiment_by_name(self.experiment)  # another machine was faster
            if experiment is None:
                raise
            return experiment

    def _is_pending(self, stage: str, key: str, *, last: bool) -> bool:
        """Whether a stage has something that the server has not, by what mlflow.json and the files' times say."""
        folder = self.store.folder(stage, key)
        signature = _signature(folder)
        if signature == [None, None]:
            return False
        half_done = signature[0] is None
        if self._sent.get(folder) == signature and not (last and half_done):
            return False
        state = self._load(folder)
        if state.get("files") != signature or (last and half_done and state.get("status") == "RUNNING"):
            return True
        if self._identity and state.get("experiment") != self._identity:
            return True
        if self.database and not self.database.exists():
            return True
        self._sent[folder] = signature
        return False

    def _send(self, stage: str, key: str) -> None:
        folder = self.store.folder(stage, key)
        with _locked(folder / "mlflow.lock"):  # another command's mirror may be at it
            signature = _signature(folder)
            state = self._load(folder)
            record = self.store.read(stage, key) if (folder / RECORD).exists() else {}
            self._ensure_run(folder, state, stage=stage, key=key, record=record)
            self._send_curves(folder, state)
            if record and state.get("record") != digest(record):
                self._send_record(folder, state, stage=stage, key=key, record=record)
            self._send_status(state, record, running=not record and self.store.is_claimed(stage, key))
            self._save(folder, state, files=signature)
            self._sent[folder] = signature

    def _ensure_run(self, folder: Path, state: dict[str, Any], *, stage: str, key: str, record: dict[str, Any]) -> None:
        """Find or create the run; its tag `mirror` is on disk before it exists, so a kill adds no second one."""
        if state.get("experiment") != self._identity:
            state.clear()
            self._save(folder, state, experiment=self._identity, mirror=uuid.uuid4().hex, born=payload.now(), lines=0)
        elif "run" not in state:
            found = self._client.search_runs([self._identity[0]], f"tags.mirror = '{state['mirror']}'", max_results=1)
            if found:
                self._save(folder, state, run=found[0].info.run_id, status="RUNNING")
        if "run" not in state:
            run = self._client.create_run(
                self._identity[0],
                start_time=payload.milliseconds(record.get("started")) or state["born"],
                tags={"mirror": state["mirror"], **payload.tags(stage, key, {}), **_parent(folder)},
                run_name=f"{stage} {key[:8]}",
            )
            self._save(folder, state, run=run.info.run_id, status="RUNNING")

    def _send_curves(self, folder: Path, state: dict[str, Any]) -> None:
        lines = payload.complete_lines(folder / CURVES)
        batch: list[payload.Point] = []
        for number in range(state["lines"], len(lines)):
            points = payload.curve_points(lines[number], milliseconds=state["born"]) or []
            if len(batch) + len(points) > METRICS_PER_CALL:
                self._log_metrics(state["run"], batch)
                self._save(folder, state, lines=number)
                batch = []
            batch += points
        self._log_metrics(state["run"], batch)
        state["lines"] = max(state["lines"], len(lines))  # a resumed stage may have cut the file and be catching up

    def _send_record(
        self, folder: Path, state: dict[str, Any], *, stage: str, key: str, record: dict[str, Any]
    ) -> None:
        entities = _import_mlflow().entities
        if not state.get("params"):  # they are immutable: never a second time
            everything = list(payload.params(record).items())
            for start in range(0, len(everything), PARAMS_PER_CALL):
                chunk = [entities.Param(*it) for it in everything[start : start + PARAMS_PER_CALL]]
                self._client.log_batch(state["run"], params=chunk)
            self._save(folder, state, params=True)
        finished = payload.milliseconds(record.get("finished")) or state["born"]
        self._log_metrics(state["run"], payload.final_metrics(record, milliseconds=finished))
        tags = [entities.RunTag(*it) for it in payload.tags(stage, key, record).items()]
        self._client.log_batch(state["run"], tags=tags)
        files = [path for pattern in (*ARRAYS, "*.png") for path in sorted(folder.glob(pattern))]
        small = [path for path in files if path.stat().st_size <= ARTIFACT_BYTES]
        for path in [*small[:ARTIFACTS], folder / RECORD]:  # the record last: who finds it finds the rest
            self._client.log_artifact(state["run"], str(path))
        self._save(folder, state, record=digest(record))

    def _send_status(self, state: dict[str, Any], record: dict[str, Any], *, running: bool) -> None:
        status = "RUNNING" if running else "KILLED"
        if record:
            status = "FINISHED" if record.get("status") == "done" else "FAILED"
        if state.get("status") == status:
            return
        if running:
            self._client.update_run(state["run"], status=status)
        else:
            self._client.set_terminated(state["run"], status, payload.milliseconds(record.get("finished")))
        state["status"] = status

    def _log_metrics(self, run: str, points: Sequence[payload.Point]) -> None:
        metric = _import_mlflow().entities.Metric
        for start in range(0, len(points), METRICS_PER_CALL):
            chunk = points[start : start + METRICS_PER_CALL]
            self._client.log_batch(run, metrics=[metric(it.name, it.value, it.milliseconds, it.step) for it in chunk])

    def _load(self, folder: Path) -> dict[str, Any]:
        """What is known of this target in a stage's mlflow.json."""
        return _targets(folder).get(self.target, {})

    def _save(self, folder: Path, state: dict[str, Any], **changes: Any) -> None:
        state.update(changes, uri=shown(self.uri), name=self.experiment)
        write_json(folder / STATE, {**_targets(folder), self.target: state}, indent=1)

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split()).replace(self.uri, shown(self.uri))
        if "API request to" in text and (why := re.search(r"\[Errno -?\d+\] ([^\"')]+)|Read timed out", text)):
            return f"it does not answer ({why[1] or 'time-out'})"
        return text[:400] or type(error).__name__


def _import_mlflow() -> Any:
    """mlflow, without its usage telemetry, its chatter, and its default of minutes of retries."""
    if "mlflow" not in sys.modules:
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.pop("MLFLOW_RUN_ID", None)  # of somebody else's run; it would be taken for each of ours
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    import mlflow

    return mlflow


def _create_database(path: Path, mlflow: Any) -> None:
    """Make MLflow's SQLite file under another name first: a kill in mid-migration leaves one that never works again."""
    if path.exists() and path.stat().st_size:
        return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
    new.replace(path)


def _resolve(uri: str) -> tuple[str, Path | None]:
    """The address with an absolute path, and the path of its SQLite file if it is one.

    Raises:
        MalError: an address that MLflow 3 cannot use.
    """
    if match := re.fullmatch(r"sqlite:///(?P<path>[^?]+)(?P<query>\?.*)?", uri):
        path = Path(match["path"]).resolve()
        return f"sqlite:///{path}{match['query'] or ''}", path
    if urlsplit(uri).scheme in ("", "file", "sqlite"):
        raise MalError(f"tracking.uri={uri} is no address MLflow 3 can use; give sqlite:///FILE or http://HOST:PORT")
    return uri.rstrip("/"), None


def _parent(folder: Path) -> dict[str, str]:
    """The tag that makes a stage's run a child of its sweep's, if it was submitted to a cluster."""
    try:
        parent = read_json(folder / QUEUED).get("parent")
    except (OSError, ValueError):
        return {}
    return {"mlflow.parentRunId": parent} if parent else {}


def _targets(folder: Path) -> dict[str, Any]:
    """A stage's mlflow.json; what is absent or broken is as if nothing had been sent."""
    try:
        found = read_json(folder / STATE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _signature(folder: Path) -> list[list[int] | None]:
    """Size and time of run.json and curves.jsonl; None for what is absent."""
    found: list[list[int] | None] = []
    for file in (RECORD, CURVES):
        try:
            status = (folder / file).stat()
            found.append([status.st_size, status.st_mtime_ns])
        except FileNotFoundError:
            found.append(None)
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it; the system frees it when its process ends in any way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: `sync` sends what is missing, `ui` says how to look at it."""
    parser = argparse.ArgumentParser(prog="python -m mal.tracking", description="The MLflow mirror of the run store.")
    commands = parser.add_subparsers(dest="command", required=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    sync = commands.add_parser("sync", help="send what MLflow has not got yet")
    sync.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), help="default: %(default)s")
    sync.add_argument("--experiment", default=DEFAULT_EXPERIMENT, help="default: %(default)s")
    sync.add_argument("--watch", type=int, metavar="PID", help="go on until this process is gone")
    ui = commands.add_parser("ui", help="say how to look at what was sent")
    for command in (sync, ui):
        command.add_argument("--uri", default=uri, help=f"default: $MLFLOW_TRACKING_URI, else {DEFAULT_URI}")
    options = parser.parse_args(arguments)
    if options.command == "ui":
        print(ui_command(options.uri))
        return 0
    try:
        sender = Sender(Store(options.store), uri=options.uri, experiment=options.experiment)
        if options.watch is not None:
            watch(lambda last: sender.send_all(last=last), pid=options.watch)
            return 0
        sent, there = sender.send_all(last=True)
    except MalError as error:
        again = "" if options.watch else "; nothing is lost: the same command sends the rest once that is mended"
        print(f"error: {error}{again}", file=sys.stderr)
        return 1
    print(f"sent {sent} of {there} stages in {options.store} to {shown(options.uri)}; the others were there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
