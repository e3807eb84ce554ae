"""Temporary files: names that say who writes them, so that those of killed processes can be told and removed."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from mal.engine.processes import is_alive, machine

LONGEST = 86400.0  # seconds; nobody writes one file for longer without it growing
SHOWN = 50  # characters of the file's name that its temporary one repeats: names end at 255 bytes
_OURS = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\w+\.part")
_FORMER = re.compile(r"\..+\.[a-z0-9_]{8}|\.clock-\d+-\d+")  # of earlier versions, without an owner
_MARKS = (".pt", ".json", ".jsonl", ".npz", ".csv", ".png", ".zip")  # what those were temporary files of


def prefix_and_suffix(name: str) -> tuple[str, str]:
    """What the name of a temporary file for `name` begins and ends with; between them stands something random."""
    return f".{name[:SHOWN]}.{_machine()}-{os.getpid()}-", ".part"


def is_temporary(name: str) -> bool:
    """Whether a file of this name is, or was, being written."""
    return _OURS.fullmatch(name) is not None or _is_former(name)


def abandoned(folder: Path, *, former: frozenset[int] = frozenset(), quiet: float = LONGEST) -> Iterator[Path]:
    """The temporary files in a folder, at any depth, that nobody will finish.

    Those whose process on this machine is gone or among `former`, and those that have not grown for `quiet` seconds.

    Args:
        folder: of a result.
        former: ids of processes of this machine that lost the folder, dead or merely stopped.
        quiet: seconds.
    """
    for path in sorted(folder.rglob(".*")):
        if not is_temporary(path.name):
            continue
        ours = _OURS.fullmatch(path.name)
        try:
            old = time.time() - path.stat().st_mtime > quiet
        except OSError:  # it has just got its name
            continue
        pid = int(ours["pid"]) if ours is not None and ours["machine"] == _machine() else None
        if old or (pid is not None and pid != os.getpid() and (pid in former or not is_alive(pid, started=None))):
            yield path


def remove_abandoned(folder: Path, *, former: frozenset[int] = frozenset(), quiet: float = LONGEST) -> None:
    """Remove what `abandoned` finds; what cannot be removed stays."""
    for path in abandoned(folder, former=former, quiet=quiet):
        with suppress(OSError):
            path.unlink()


def _is_former(name: str) -> bool:
    return _FORMER.fullmatch(name) is not None and (name.startswith(".clock-") or name[:-9].endswith(_MARKS))


@cache
def _machine() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]
