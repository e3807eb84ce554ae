"""What of a store can go: what dead runs left, by itself; finished results, when their owner names them.

Every finished stage is a result, be it that others were computed from it or that a user wanted nothing more than it (a
labeler, labels), and so is what it was computed from.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal.engine.files import read_json
from mal.engine.leftovers import abandoned
from mal.engine.store import BEGUN, QUEUED, REMOVED, SCRATCH, Store
from mal.engine.store.records import DAMAGED
from mal.errors import MalError

DAY = 86400


@dataclass(frozen=True)
class Held:
    """One folder of the store."""

    stage: str
    key: str
    state: str  # done | damaged | being computed | queued (on a cluster) | half done
    size: int  # bytes
    age: float  # days since something in it changed
    record: dict[str, Any]  # run.json, or the little that a stage knows of itself before

    @property
    def address(self) -> str:
        return f"{self.stage}/{self.key}"

    @property
    def title(self) -> str:
        columns = self.record.get("columns") or {}
        return " ".join(f"{name}={value}" for name, value in columns.items())

    @property
    def inputs(self) -> list[str]:
        """Addresses of what it was, or will be, computed from."""
        inputs = self.record.get("inputs")
        return [it for it in inputs.values() if isinstance(it, str)] if isinstance(inputs, dict) else []


def held(store: Store) -> Iterator[Held]:
    """Every folder, by stage and key.

    Raises:
        MalError: a run.json cannot be read.
    """
    for stage, key in store.folders():
        folder = store.folder(stage, key)
        files = [status for path in folder.rglob("*") if (status := _status(path)) is not None]
        recorded = store.is_recorded(stage, key)
        waits = "queued" if (folder / QUEUED).is_file() else "half done"
        state = "being computed" if store.is_claimed(stage, key) else waits
        if recorded:
            state = "damaged" if store.faults(stage, key) else "done"
        changed = max((file[1] for file in files), default=folder.stat().st_mtime)
        record = store.read(stage, key) if recorded else begun(folder)
        yield Held(stage, key, state, sum(file[0] for file in files), (time.time() - changed) / DAY, record)


def half_done(everything: list[Held], *, days: float) -> list[Held]:
    """Folders of runs that died and have rested for so many days, unless what is queued or computed now needs them."""
    by_address = {one.address: one for one in everything}
    awaited = {it for one in everything if one.state in ("being computed", "queued") for it in one.inputs}
    return [
        one
        for one in by_address.values()
        if one.state == "half done" and one.age >= days and one.address not in awaited
    ]


def leftovers(store: Store, *, days: float) -> list[tuple[Path, int]]:
    """Files and folders that belong to no result, with their sizes in bytes.

    Temporary files of processes that are gone, what a finished stage would have gone on from, folders half removed;
    and files that were put aside as damaged, once they are so many days old.
    """
    found = list(abandoned(store.root)) if store.root.is_dir() else []
    found += store.root.glob(f"*/{REMOVED}*")
    for stage, key in store.folders():
        folder = store.folder(stage, key)
        if store.is_recorded(stage, key) and not store.is_claimed(stage, key):
            found += [folder / name for name in SCRATCH if (folder / name).exists()]
        found += [it for it in folder.glob(f"*{DAMAGED}") if time.time() - it.stat().st_mtime >= days * DAY]
    return [(path, _size(path)) for path in sorted(set(found))]


def remove_leftover(path: Path) -> None:
    """
    Raises:
        MalError: it cannot be removed.
    """
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise MalError(f"cannot remove {path}: {error.strerror}; change its rights, or remove it by hand") from error


def dependents(everything: list[Held], roots: Iterable[str]) -> list[Held]:
    """What was computed from some results, directly or not, themselves not included."""
    found = set(roots)
    first = set(found)
    while more := {one.address for one in everything if found & set(one.inputs)} - found:
        found |= more
    return [one for one in everything if one.address in found - first]


def only_for(everything: list[Held], chosen: Iterable[str]) -> list[Held]:
    """The inputs, direct or not, that no result but the chosen ones was computed from, themselves not included."""
    by_address, gone = {one.address: one for one in everything}, set(chosen)
    first = set(gone)
    while True:
        used = {it for one in everything if one.address not in gone for it in one.inputs}
        candidates = {it for address in gone if address in by_address for it in by_address[address].inputs}
        more = {it for it in candidates - gone - used if it in by_address}
        if not more:
            return [one for one in everything if one.address in gone - first]
        gone |= more


def begun(folder: Path) -> dict[str, Any]:
    """What a stage that is not done says of itself; nothing where that is absent or damaged."""
    for name in (BEGUN, QUEUED):
        try:
            found = read_json(folder / name)
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _status(path: Path) -> tuple[int, float] | None:
    """Size and time of a file; None for a folder, and for what has gone meanwhile."""
    try:
        return (path.stat().st_size, path.stat().st_mtime) if path.is_file() else None
    except OSError:
        return None


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(status[0] for it in files if (status := _status(it)) is not None)
