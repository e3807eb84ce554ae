"""What the attacks share: the whole pipeline at smoke scale in a process that may be killed, and its results' bits.

The command is imported once and forked for each attempt, so that an attempt costs a second and not ten.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mal.config import Config
from mal.engine.store import Store
from mal.errors import MalError
from mal.run import run

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("profile=smoke", "tracking=none", "device=cpu", "train.checkpoint_seconds=0", "compare=[ellipse]")
SMALL += ("segmenter.running.checkpoint_steps=1", "label.shard_images=2")
EXCLUDED = ("mlflow.json", "stage.json", "queued.json", "sheet.png", "attention.png")  # notes, and drawn anew each time


def config(store: Path, *overrides: str) -> Config:
    """The whole pipeline, with a checkpoint after every step."""
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        whole = compose("config", overrides=[*SMALL, f"store={store}", *overrides])
    return OmegaConf.to_object(whole)  # type: ignore[return-value]


class Attempt:
    """One run of the command in a process group of its own; `log` gets what it prints.

    Args:
        store: heartbeat, expiry and poll of its store. file_limit: bytes beyond which no file can grow.
    """

    def __init__(
        self,
        wanted: Config,
        log: Path,
        *,
        store: Mapping[str, float] | None = None,
        file_limit: int | None = None,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if store is not None:
                Store.__init__.__kwdefaults__.update(store)
            _become(wanted, log, file_limit=file_limit)

    def wait(self, seconds: float) -> int | None:
        """The exit status once it ends, None if it has not within so many seconds; negative for a signal."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                return None
            else:
                time.sleep(0.01)
        return self.code

    def send(self, number: int) -> None:
        """A signal to the process and its loaders."""
        if self.code is None:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(60)


def _become(wanted: Config, log: Path, *, file_limit: int | None) -> None:
    """The command, in the forked process; it never returns."""
    code = 1
    try:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115 - not pytest's
        torch.set_num_threads(1)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        run(wanted)
        code = 0
    except MalError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        os._exit(code)


@contextmanager
def attempts() -> Iterator[list[Attempt]]:
    """A list for attempts; whatever still runs at the end is killed."""
    started: list[Attempt] = []
    try:
        yield started
    finally:
        for one in started:
            one.kill()


def finish(wanted: Config, log: Path, *, seconds: float = 900) -> float:
    """Run to the end undisturbed; the seconds it took.

    Raises:
        AssertionError: it failed; with what it printed.
    """
    started = time.monotonic()
    with attempts() as running:
        running.append(Attempt(wanted, log))
        code = running[0].wait(seconds)
    assert code == 0, f"exit status {code}:\n{log.read_text()}"
    return time.monotonic() - started


def bits(store: Path) -> dict[str, str]:
    """stage/key/file → digest of what it holds, of every file of every finished stage; times do not count."""
    found = {}
    for record in sorted(store.glob("*/*/run.json")):
        for path in sorted(it for it in record.parent.rglob("*") if it.is_file()):
            name = path.relative_to(store).as_posix()
            if not path.name.startswith((".", "claim-", *EXCLUDED)) and not path.name.endswith(".damaged"):
                found[name] = hashlib.sha256(_content(path)).hexdigest()
    return found


def differences(store: Path, reference: dict[str, str]) -> list[str]:
    """The files that differ from a reference's `bits`, or that one of both lacks."""
    mine = bits(store)
    return [name for name in sorted(mine.keys() | reference.keys()) if mine.get(name) != reference.get(name)]


def _content(path: Path) -> bytes:
    if path.name == "run.json":
        record = json.loads(path.read_text())
        return json.dumps({name: record.get(name) for name in ("status", "config", "inputs", "metrics")}).encode()
    if path.name == "curves.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return json.dumps([{k: v for k, v in line.items() if k != "time"} for line in lines]).encode()
    if path.suffix == ".pt":
        state = torch.load(path, map_location="cpu", weights_only=True)
        return _tensors({name: part for name, part in state.items() if name != "config"})  # it names the store
    return path.read_bytes()


def _tensors(state: Any) -> bytes:
    """A checkpoint's values, without the name that the file had while it was written."""
    if isinstance(state, torch.Tensor):
        return str((state.dtype, state.shape)).encode() + state.contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(str(key).encode() + _tensors(value) for key, value in state.items())
    if isinstance(state, list | tuple):
        return b"".join(map(_tensors, state))
    return str(state).encode()
