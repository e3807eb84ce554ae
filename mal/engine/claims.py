"""Who computes a stage: one owner at a time, over processes and machines, and heirs for owners that died.

Claim files are numbered generations, `claim-1.json`, `claim-2.json`, …, and the highest one counts. To take a free
folder is to create generation 1; to take over from a dead owner is to create the next one. Either is one O_EXCL
creation of one name, so exactly one of many takers wins, and there is no moment without a claim. (Renaming the dead
owner's file away has such a moment: a slow taker may rename away the claim of the one that was faster.)

An owner that was merely stopped may wake up after it was taken over. Its heartbeat then finds the newer generation and
interrupts the work; until then `files.fenced` keeps it from writing. However its work ends, `Claim.losing` says why.
"""

import contextlib
import json
import os
import platform
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from mal.engine.files import explain
from mal.engine.leftovers import prefix_and_suffix
from mal.engine.processes import is_alive, machine, start_time
from mal.errors import MalError, TakenOverError

_NAME = re.compile(r"claim-(\d+)\.json")


@dataclass(frozen=True)
class Holder:
    """The latest claim on a folder, as another process sees it."""

    generation: int
    owner: dict[str, Any]  # {} where the owner died, or is about to speak, between creating and writing the file
    beat: int  # ns on the file system's clock; 0 once the owner gave the claim up
    age: float  # seconds between the last heartbeat and now, on the file system's clock

    def __str__(self) -> str:
        if not self.owner:
            return "a process that has not said its name yet"
        return f"process {self.owner['pid']} on {self.owner['host']} (since {self.owner['since']})"

    def is_dead(self) -> bool:
        """True where this machine knows that the owner is gone; a quiet owner elsewhere is not known to be."""
        if self.beat == 0:
            return True
        here = self.owner.get("machine") == machine()
        return here and not is_alive(self.owner["pid"], started=self.owner["started"])


class Claim:
    """A folder that is ours until `release`; a daemon thread keeps its heartbeat going.

    `lost` once that thread found that another process took over. It then sends this process SIGINT, as Ctrl-C does, if
    the claim was taken in the main thread: that ends whatever is computed, or waited for. A process that ignores
    SIGINT, as `nohup … &` in a script makes it, goes on ignoring all others.
    """

    def __init__(self, path: Path, *, heartbeat: float) -> None:
        self.path = path
        self.lost = False
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._ignored = self._interrupts and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGINT, self._end_if_lost)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True, name="claim-heartbeat")
        self._thread.start()

    def is_ours(self) -> bool:
        """False where another process took over, as happens to one that was suspended for minutes."""
        return is_current(self.path.parent, _generation(self.path))

    @property
    def generation(self) -> int:
        return _generation(self.path)

    def check(self) -> None:
        """
        Raises:
            TakenOverError: the folder is another process's by now.
        """
        check_current(self.path.parent, self.generation)

    @contextlib.contextmanager
    def losing(self, check: Callable[[], None]) -> Iterator[None]:
        """Where the folder was lost, whatever ends the block ends it with what `check` raises.

        The interrupt that ends a lost owner's work may come out of a library as an error of its own, and the heir may
        have removed files that the owner was about to read: neither is a fault of theirs.
        """
        try:
            yield
        except BaseException:
            ours = True
            with contextlib.suppress(OSError):
                ours = self.is_ours()
            if not ours:
                check()
            raise

    def release(self, *, done: bool) -> None:
        """Give the folder up: for the next taker, or (`done`) for good, which removes the claim files."""
        self._released.set()
        self._thread.join()
        if self._ignored and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the claim then simply runs out
            if self.is_ours():
                if done:
                    clear(self.path.parent)
                else:
                    os.utime(self.path, ns=(0, 0))

    def _end_if_lost(self, _number: int, _frame: FrameType | None) -> None:
        if self.lost:
            raise KeyboardInterrupt

    def _beat(self, seconds: float) -> None:
        while not self._released.wait(seconds):
            with contextlib.suppress(OSError):  # a file server that is away for a moment costs one beat
                if not self.is_ours():
                    self.lost = True
                    if self._interrupts and not self._released.is_set():
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                os.utime(self.path)


def take(folder: Path, *, generation: int, heartbeat: float) -> Claim | None:
    """Try to become the owner as this `generation`; None where another process was faster.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    path = folder / f"claim-{generation}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        if not folder.is_dir():
            raise MalError(f"cannot write in {folder}: it is a file, not a folder; move it away") from None
        return None
    except OSError as error:
        raise explain(error, path) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(_ourselves(), file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise explain(error, path) from error
    return Claim(path, heartbeat=heartbeat)


def holder(folder: Path) -> Holder | None:
    """The latest claim on a folder; None where there is none."""
    generations = _generations(folder)
    if not generations:
        return None
    path = folder / f"claim-{generations[-1]}.json"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:  # opening makes NFS ask the server for its times
            beat, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
    except FileNotFoundError:
        return None
    # a heartbeat in the future is from before the file system's clock was mended: as far from now, as silent
    age = abs(_now(folder) - beat) / 1e9 if beat else float("inf")
    return Holder(generation=generations[-1], owner=_parsed(text), beat=beat, age=age)


def is_current(folder: Path, generation: int) -> bool:
    """Whether a claim of this generation is the one that counts.

    Raises:
        OSError: the folder cannot be looked at.
    """
    return _generations(folder)[-1:] == [generation]


def check_current(folder: Path, generation: int) -> None:
    """
    Raises:
        TakenOverError: another generation counts by now.
        MalError: the folder cannot be looked at.
    """
    try:
        if is_current(folder, generation):
            return
        by = holder(folder)
    except OSError as error:
        raise explain(error, folder) from error
    raise TakenOverError(
        f"{folder} was taken over by {by or 'a process that finished it'} while this one gave no sign of life; its "
        "result stands, so run the same command again to use it"
    )


def owners(folder: Path) -> frozenset[int]:
    """Ids of the processes of this machine, other than this one, that own or owned a folder."""
    found = set()
    for generation in _generations(folder):
        with contextlib.suppress(OSError):
            owner = _parsed((folder / f"claim-{generation}.json").read_text(encoding="utf-8", errors="replace"))
            if owner and owner["machine"] == machine():
                found.add(owner["pid"])
    return frozenset(found - {os.getpid()})


def clear(folder: Path) -> None:
    """Remove the claim files of a finished folder, the latest one last."""
    for generation in _generations(folder):
        (folder / f"claim-{generation}.json").unlink(missing_ok=True)


def _ourselves() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
        "host": platform.node(),
        "machine": machine(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _generation(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _generations(folder: Path) -> list[int]:
    """The numbers of the claim files in a folder, lowest first."""
    try:
        return sorted(number for entry in folder.iterdir() if (number := _generation(entry)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _parsed(text: str) -> dict[str, Any]:
    """What a claim file says of its owner; {} where it does not say it, or not all of it."""
    try:
        owner = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(owner, dict) or type(owner.get("pid")) is not int or not 0 < owner["pid"] < 2**31:
        return {}
    texts = isinstance(owner.get("started"), str | None) and all(
        isinstance(owner.get(name), str) for name in ("host", "machine", "since")
    )
    return owner if texts else {}


def _now(folder: Path) -> int:
    """The file system's clock, ns: that of the server which stamps heartbeats, not this machine's.

    Where nothing can be written, and so nothing claimed, this machine's clock must do to tell what others do there.
    """
    prefix, suffix = prefix_and_suffix("clock")
    try:
        descriptor, probe = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
        try:
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)
            Path(probe).unlink()
    except OSError:
        return time.time_ns()
