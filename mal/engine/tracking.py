"""The MLflow mirror of the run store.

run.json is the truth. A mirror process sends what is new in the store while a command runs; what could not be sent
(server away, disk full, command killed) is sent by the next command's mirror, or by

    python -m mal.tracking sync [--store DIR] [--uri URI] [--experiment NAME]

What was sent lies in each stage's mlflow.json, so nothing is sent twice. Without it, or where it speaks of another
place, a stage's run is found in the experiment by its tags `stage` and `key`. A run that was deleted in MLflow stays
deleted; what its stage does afterwards goes to a new one.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mal.engine import payload
from mal.engine.commands import command
from mal.engine.files import digest, read_json, write_json
from mal.engine.mirror import NOTE, Mirror, start_mirror, watch
from mal.engine.mlflow_server import METRICS_PER_CALL, Server, locked, reason
from mal.engine.store import QUEUED, RECORD, Store
from mal.engine.tracking_address import (
    DEFAULT_EXPERIMENT,
    DEFAULT_STORE,
    DEFAULT_URI,
    EXPERIMENT_VARIABLE,
    PASSWORD_VARIABLE,
    URI_VARIABLE,
    USER_VARIABLE,
    experiment_name,
    hide_password,
    shown,
    sync_command,
    tracking_uri,
    ui_command,
)
from mal.errors import MalError

__all__ = ["Mirror", "Sender", "start_mirror", "sync_command", "ui_command"]

CURVES = "curves.jsonl"
STATE = "mlflow.json"
ARTIFACT_BYTES, ARTIFACT_COUNT = 5_000_000, 20  # a file, and files a stage; anything large stays in the store
ARRAYS = ("instances.csv", "matches_*.npz", "attention.npz", CURVES)  # what analysis/ reads beside run.json
FAILURES_IN_A_ROW = 3  # then the server is asked whether it is there, rather than each stage paying its time-out


class Sender:
    """Sends the stages of a store to one experiment on one tracking server."""

    def __init__(
        self, store: Store, *, uri: str | None, experiment: str | None, say: Callable[[str], object] = print
    ) -> None:
        """
        Args:
            uri, experiment: None: as the environment says, see tracking_address.py.
            say: told what a user should know although nothing is wrong.

        Raises:
            MalError: an address that MLflow 3 cannot use.
        """
        self.store, self.say = store, say
        self.experiment = experiment_name(experiment)
        self.server = Server(tracking_uri(uri), experiment=self.experiment, lock=store.root / "mlflow.lock")
        place = self.server.uri
        if self.server.database:  # the way from the store to it, which stays when both are moved
            place = os.path.relpath(self.server.database, store.root.resolve())
        self.target = digest([place, self.experiment])[:12]
        self._sent: dict[Path, Any] = {}  # folder → signature of its files when all of it had been sent

    def send_all(self, *, last: bool) -> tuple[int, int]:
        """Send what is new; returns how many stages were sent and how many there are.

        Args:
            last: nobody will look again: also settle the status of stages that stopped half-way.

        Raises:
            MalError: some of it could not be sent; says what and why.
        """
        stages = self.store.folders()
        if stages:
            self.server.follow_move()
        if not any(self._is_pending(stage, key, last=last) for stage, key in stages):
            return 0, len(stages)  # without having imported mlflow, which takes seconds
        self.server.connect()
        failures, in_a_row, sent = [], 0, 0
        for stage, key in [it for it in stages if self._is_pending(*it, last=last)]:
            try:
                self._send(stage, key)
                sent, in_a_row = sent + 1, 0
            except Exception as error:  # mlflow, requests, sqlalchemy and the disk raise dozens of kinds
                failures.append(f"{stage}/{key}: {reason(error)}")
                in_a_row += 1
            if in_a_row == FAILURES_IN_A_ROW:
                if not self.server.answers():
                    break
                in_a_row = 0
        if failures:
            address = shown(self.server.uri)
            raise MalError(f"{sent} stages were sent to {address}, others were not; the first: {failures[0]}")
        return sent, len(stages)

    def open_sweep(self, name: str, about: dict[str, Any]) -> str:
        """Make a run that stands for a sweep, and return its id; the stages that name it become its children.

        Raises:
            MalError: the server does not answer.
        """
        self.server.connect()
        tags = payload.tags("sweep", name, {"columns": about})
        try:
            return self.server.create(f"sweep {name}", mirror=uuid.uuid4().hex, tags=tags).info.run_id
        except Exception as error:
            address = shown(self.server.uri)
            raise MalError(f"cannot use the tracking server {address}: {reason(error)}") from error

    def _is_pending(self, stage: str, key: str, *, last: bool) -> bool:
        """Whether a stage has something that the server has not, by what mlflow.json and the files' times say."""
        folder = self.store.folder(stage, key)
        signature = _signature(folder)
        if signature == [None, None]:
            return False
        half_done = signature[0] is None
        if self._sent.get(folder) == signature and not (last and half_done):
            return False
        state = _targets(folder).get(self.target, {})
        if state.get("files") != signature or (last and half_done and state.get("status") == "RUNNING"):
            return True
        if self.server.identity and state.get("experiment") != self.server.identity:
            return True
        if self.server.database and not self.server.database.exists():
            return True
        self._sent[folder] = signature
        return False

    def _send(self, stage: str, key: str) -> None:
        folder = self.store.folder(stage, key)
        with locked(folder / "mlflow.lock"):  # another command's mirror may be at it
            signature = _signature(folder)
            state = self._load(folder)
            record = self.store.read(stage, key) if (folder / RECORD).exists() else {}
            run = self._run(folder, state, stage=stage, key=key, record=record)
            if run is not None:
                self._send_curves(folder, state, run)
                is_new = bool(record) and state.get("record") != digest(record)
                if is_new:
                    self._send_record(folder, state, run, stage=stage, key=key, record=record)
                running = not record and self.store.is_claimed(stage, key)
                self._send_status(state, run, record, running=running, again=is_new)
                if is_new:
                    self._send_files(folder, state, run, record)
            self._save(folder, state, files=signature)
            self._sent[folder] = signature

    def _run(self, folder: Path, state: dict[str, Any], *, stage: str, key: str, record: dict[str, Any]) -> Any:
        """Find or make a stage's run; None if it was deleted in MLflow after everything had been sent.

        Its tag `mirror` is on disk before it exists, so neither a kill nor a lost answer adds a second one.
        """
        if state.get("experiment") != self.server.identity:
            state.clear()
            self._save(folder, state, **self._unsent())
        elif "run" in state:
            run = self.server.run(state["run"])
            if run is not None:
                return run
            if record and state.get("record") == digest(record):
                return None
            state.clear()
            self._save(folder, state, **self._unsent())
            self.say(f"the run of {stage}/{key} was deleted in MLflow; what is new in it went to another")
        found = self.server.find(mirror=state["mirror"]) or self.server.find(stage=stage, key=key)
        if found:
            run = self.server.run(found[0].info.run_id)
            there = payload.lines_there(payload.complete_lines(folder / CURVES), self.server.last_steps(run))
            self._save(folder, state, run=run.info.run_id, status=run.info.status, lines=there)
            return run
        start = payload.milliseconds(record.get("started")) or state["born"]
        tags = {**payload.tags(stage, key, {}), **_parent(folder)}
        self._save(folder, state, attempts=state.get("attempts", 0) + 1)
        run = self.server.create(f"{stage} {key[:8]}", mirror=state["mirror"], tags=tags, start=start)
        self._save(folder, state, run=run.info.run_id, status="RUNNING")
        return run

    def _unsent(self) -> dict[str, Any]:
        identity = self.server.identity
        return {"experiment": identity, "mirror": uuid.uuid4().hex, "born": payload.now(), "lines": 0}

    def _send_curves(self, folder: Path, state: dict[str, Any], run: Any) -> None:
        lines = payload.complete_lines(folder / CURVES)
        batch: list[payload.Point] = []
        for number in range(state["lines"], len(lines)):
            points = payload.curve_points(lines[number], milliseconds=state["born"]) or []
            if len(batch) + len(points) > METRICS_PER_CALL:
                self.server.log_metrics(run, batch)
                self._save(folder, state, lines=number)
                batch = []
            batch += points
        self.server.log_metrics(run, batch)
        state["lines"] = max(state["lines"], len(lines))  # a resumed stage may have cut the file and be catching up

    def _send_record(
        self, folder: Path, state: dict[str, Any], run: Any, *, stage: str, key: str, record: dict[str, Any]
    ) -> None:
        self.server.log_params(run, payload.params(record))
        self._save(folder, state)
        finished = payload.milliseconds(record.get("finished")) or state["born"]
        points = payload.final_metrics(record, milliseconds=finished)
        self.server.log_metrics(run, [it for it in points if run.data.metrics.get(it.name) != it.value])
        self.server.set_tags(run, payload.tags(stage, key, record))
        if state.get("attempts", 1) > 1:  # a request that was given up may have been served late
            for twin in self.server.find(mirror=state["mirror"]):
                if twin.info.run_id != run.info.run_id:
                    self.server.delete(twin.info.run_id)

    def _send_files(self, folder: Path, state: dict[str, Any], run: Any, record: dict[str, Any]) -> None:
        files = [path for pattern in (*ARRAYS, "*.png") for path in sorted(folder.glob(pattern))]
        small = [path for path in files if path.stat().st_size <= ARTIFACT_BYTES]
        for path in [*small[:ARTIFACT_COUNT], folder / RECORD]:  # the record last: who finds it finds the rest
            self.server.put_file(run, path)
        self._save(folder, state, record=digest(record))

    def _send_status(
        self, state: dict[str, Any], run: Any, record: dict[str, Any], *, running: bool, again: bool
    ) -> None:
        status = "RUNNING" if running else "KILLED"
        if record:
            status = "FINISHED" if record.get("status") == "done" else "FAILED"
        elif state.get("status") == "FINISHED":
            return  # it was done before, and is being computed again
        if state.get("status") != status or again:
            self.server.set_status(run, status, ended=payload.milliseconds(record.get("finished")))
            state["status"] = status

    def _load(self, folder: Path) -> dict[str, Any]:
        """What is known of this target in a stage's mlflow.json, also if it was sent there by another address."""
        targets = _targets(folder)
        same = (it for it in targets.values() if self.server.identity and it.get("experiment") == self.server.identity)
        return targets.get(self.target) or next(same, {})

    def _save(self, folder: Path, state: dict[str, Any], **changes: Any) -> None:
        state.update(changes, uri=shown(self.server.uri), name=self.experiment)
        write_json(folder / STATE, {**_targets(folder), self.target: state}, indent=1)


def _parent(folder: Path) -> dict[str, str]:
    """The tag that makes a stage's run a child of its sweep's, if it was submitted to a cluster."""
    try:
        parent = read_json(folder / QUEUED).get("parent")
    except (OSError, ValueError):
        return {}
    return {"mlflow.parentRunId": parent} if parent else {}


def _targets(folder: Path) -> dict[str, dict[str, Any]]:
    """A stage's mlflow.json; what is absent or broken is as if nothing had been sent."""
    try:
        found = read_json(folder / STATE)
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {target: state for target, state in found.items() if isinstance(state, dict)}


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


@command
def main(arguments: Sequence[str] | None) -> int:
    """The command line: `sync` sends what is missing, `ui` says how to look at it."""
    parser = argparse.ArgumentParser(
        prog="python -m mal.tracking",
        description="The MLflow mirror of the run store.",
        epilog=f"A server's user and password belong into {USER_VARIABLE} and {PASSWORD_VARIABLE}, not into its URI.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="send what MLflow has not got yet")
    sync.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), help="default: %(default)s")
    sync.add_argument("--experiment", help=f"default: ${EXPERIMENT_VARIABLE}, else {DEFAULT_EXPERIMENT}")
    sync.add_argument("--watch", type=int, metavar="PID", help="go on until this process is gone")
    ui = commands.add_parser("ui", help="say how to look at what was sent")
    for part in (sync, ui):
        part.add_argument("--uri", help=f"default: ${URI_VARIABLE}, else {DEFAULT_URI}")
    options = parser.parse_args(arguments)
    if options.command == "ui":
        print(ui_command(options.uri))
        return 0
    try:
        sender = Sender(
            Store(options.store),
            uri=options.uri,
            experiment=options.experiment,
            say=lambda text: print(f"{NOTE}{text}", flush=True),
        )
        if options.watch is not None:
            watch(lambda last: sender.send_all(last=last), pid=options.watch)
            return 0
        sent, there = sender.send_all(last=True)
    except MalError as error:
        again = "" if options.watch else "; nothing is lost: the same command sends the rest once that is mended"
        print(f"error: {error}{again}", file=sys.stderr)
        return 1
    address = shown(sender.server.uri if options.uri is None else options.uri)
    print(f"sent {sent} of {there} stages in {options.store} to {address}; the others had been sent before")
    return 0


def without_password(arguments: Sequence[str]) -> None:
    """Start this process again without the password among its arguments, which everybody on the machine may list."""
    kept, variables = hide_password(arguments)
    if variables:
        print(f"note: give the password in {PASSWORD_VARIABLE} and the user in {USER_VARIABLE}", file=sys.stderr)
        os.execve(sys.executable, [sys.executable, "-m", "mal.tracking", *kept], {**os.environ, **variables})
