"""Who computes a stage: one owner at a time, over processes and machines, and heirs for owners that died.

Claim files are numbered generations, `claim-1.json`, `claim-2.json`, …, and the highest one counts. To take a free
folder is to create generation 1; to take over from a dead owner is to create the next one. Either is one O_EXCL
creation of one name, so exactly one of many takers wins, and there is no moment without a claim. (Renaming the dead
owner's file away has such a moment: a slow taker may rename away the claim of the one that was faster.)
"""

import contextlib
import json
import os
import platform
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mal.errors import MalError
from mal.files import explain

_NAME = re.compile(r"claim-(\d+)\.json")


@dataclass(frozen=True)
class Holder:
    """The latest claim on a folder, as another process sees it."""

    generation: int
    owner: dict[str, Any]  # {} where the owner died, or is about to speak, between creating and writing the file
    beat: int  # ns on the file system's clock; 0 once the owner gave the claim up
    age: float  # seconds since the last heartbeat, on the file system's clock

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
    """A folder that is ours until `release`; a daemon thread keeps its heartbeat going."""

    def __init__(self, path: Path, *, heartbeat: float) -> None:
        self.path = path
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True, name="claim-heartbeat")
        self._thread.start()

    def is_ours(self) -> bool:
        """False where another process took over, as happens to one that was suspended for minutes."""
        return self.path.exists() and _generations(self.path.parent)[-1:] == [_generation(self.path)]

    def release(self, *, done: bool) -> None:
        """Give the folder up: for the next taker, or (`done`) for good, which removes the claim files."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the claim then simply runs out
            if done:
                clear(self.path.parent)
            elif self.is_ours():
                os.utime(self.path, ns=(0, 0))

    def _beat(self, seconds: float) -> None:
        while not self._released.wait(seconds):
            with contextlib.suppress(OSError):  # a file server that is away for a moment costs one beat
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
    """The latest claim on a folder; None where there is none.

    Raises:
        MalError: the folder cannot be written (the file system's clock is read by writing a file).
    """
    generations = _generations(folder)
    if not generations:
        return None
    path = folder / f"claim-{generations[-1]}.json"
    try:
        with path.open(encoding="utf-8") as file:  # opening makes NFS look at the server's times, not its cache's
            beat, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
    except FileNotFoundError:
        return None
    try:
        owner = json.loads(text)
    except ValueError:
        owner = {}
    age = (_now(folder) - beat) / 1e9 if beat else float("inf")
    return Holder(generation=generations[-1], owner=owner, beat=beat, age=age)


def clear(folder: Path) -> None:
    """Remove the claim files of a finished folder, the latest one last."""
    for generation in _generations(folder):
        (folder / f"claim-{generation}.json").unlink(missing_ok=True)


def machine() -> str:
    """Names what process ids are relative to: this boot of this machine and the container we are in.

    Two containers may share a host name; neither may declare the other's processes dead.
    """
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return "/".join((platform.node(), boot, space))


def start_time(pid: int) -> str | None:
    """When a process began, in clock ticks after boot; tells a process from a later one of the same id.

    None where the system does not say (no /proc), and for a process that is gone, zombies included.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_alive(pid: int, *, started: str | None) -> bool:
    """Whether the process of this id that began at `started` (see `start_time`) still runs on this machine."""
    if started is not None:
        return start_time(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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


def _now(folder: Path) -> int:
    """The file system's clock, ns: that of the server which stamps heartbeats, not this machine's."""
    probe = folder / f".clock-{os.getpid()}-{threading.get_ident()}"
    try:
        with probe.open("w") as file:
            now = os.fstat(file.fileno()).st_mtime_ns
        probe.unlink()
    except OSError as error:
        raise explain(error, probe) from error
    return now
