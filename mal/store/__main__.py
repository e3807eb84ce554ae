"""What the store holds, what of it can go, and why two results have different keys.

python -m mal.store list [STAGE]        a line a result: stage, key, state, size, what it is of
python -m mal.store gc [--days 7]       remove what no result needs, after asking
python -m mal.store why KEY [OTHER]     which settings, inputs and sources differ
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal.errors import MalError
from mal.files import read_json
from mal.mirror import DEFAULT_STORE
from mal.payload import flatten
from mal.store import QUEUED, Store

# A run asks for these; everything else is there for their sake.
RESULTS = ("quality_", "ap_val", "retention", "clustering_val", "attention_val", "predictions_test")


@dataclass(frozen=True)
class Held:
    """One folder of the store."""

    stage: str
    key: str
    state: str  # done | being computed | queued (on a cluster) | half done
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


def held(store: Store) -> Iterator[Held]:
    """Every folder, by stage and key.

    Raises:
        MalError: a run.json cannot be read.
    """
    for stage, key in store.folders():
        folder = store.folder(stage, key)
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        done = store.is_done(stage, key)
        waits = "queued" if (folder / QUEUED).is_file() else "half done"
        state = "done" if done else "being computed" if store.is_claimed(stage, key) else waits
        changed = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
        record = store.read(stage, key) if done else _begun(folder)
        yield Held(stage, key, state, sum(file.st_size for file in files), (time.time() - changed) / 86400, record)


def unneeded(everything: list[Held], *, days: float) -> list[Held]:
    """What no result was or will be computed from, and has rested for so many days.

    A labeler whose masks were scored is needed by that score, and what a queued stage waits for by that stage; a stage
    of a sweep that was given up (on a cluster: `python -m slurm.cancel`) is not.
    """
    by_address = {one.address: one for one in everything}
    waiting = [one.address for one in everything if one.state == "done" and one.stage.startswith(RESULTS)]
    waiting += [one.address for one in everything if one.state in ("being computed", "queued")]
    needed: set[str] = set()
    while waiting:
        address = waiting.pop()
        if address not in needed and address in by_address:
            needed.add(address)
            waiting += (by_address[address].record.get("inputs") or {}).values()
    return [one for one in everything if one.address not in needed and one.age >= days]


def differences(store: Store, one: Held, other: Held) -> list[str]:
    """Why two results of a stage have different keys, a line a reason; through the inputs, down to what was set."""
    lines = []
    parts: tuple[tuple[str, str], ...] = (("config", ""), ("sources", "source "), ("version", "version of the stage"))
    for part, label in parts:
        mine, theirs = (_settings(which.record.get(part)) for which in (one, other))
        unequal = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
        lines += [f"{label}{name}: {_shown(mine, name)} ≠ {_shown(theirs, name)}" for name in unequal]
    ours, others = one.record.get("inputs") or {}, other.record.get("inputs") or {}
    for role in sorted(ours.keys() | others.keys()):
        if ours.get(role) == others.get(role):
            continue
        if role not in ours or role not in others:
            lines.append(f"input {role}: {ours.get(role, 'none')} ≠ {others.get(role, 'none')}")
            continue
        first, second = (_find(store, address) for address in (ours[role], others[role]))
        deeper = differences(store, first, second) if first and second else ["it is not in the store any more"]
        lines += [f"input {role} ({ours[role].split('/')[0]}): {line}" for line in deeper]
    return lines


def list_command(store: Store, stage: str | None) -> int:
    """Print what there is."""
    everything = [one for one in held(store) if stage is None or one.stage == stage]
    width = max((len(one.stage) for one in everything), default=0)
    for one in everything:
        print(f"{one.stage:{width}}  {one.key}  {one.state:14}  {_bytes(one.size):>8}  {one.title}".rstrip())
    print(f"{len(everything)} folders, {_bytes(sum(one.size for one in everything))} in {store.root}")
    return 0


def gc_command(store: Store, *, days: float, yes: bool) -> int:
    """Remove what nothing needs, after asking."""
    found = unneeded(list(held(store)), days=days)
    for one in found:
        print(f"{one.address}  {one.state:9}  {_bytes(one.size):>8}  {one.age:.0f} days  {one.title}".rstrip())
    if not found:
        print(f"every folder in {store.root} is needed by a result, or younger than {days:g} days")
        return 0
    question = f"remove these {len(found)} folders, {_bytes(sum(one.size for one in found))}? [y/N] "
    if not yes and not _agreed(question):
        print("nothing was removed")
        return 1
    for one in found:
        if not store.is_claimed(one.stage, one.key):
            shutil.rmtree(store.folder(one.stage, one.key))
    print(f"removed {len(found)} folders")
    return 0


def why_command(store: Store, key: str, other: str | None) -> int:
    """Print why two keys differ; without a second one, the most recent other result of the same stage."""
    one = _named(store, key)
    if other is not None:
        second = _named(store, other)
    else:
        rest = [held for held in held_of(store, one.stage) if held.key != one.key and held.state == "done"]
        if not rest:
            raise MalError(f"{one.stage} has no other result to compare with")
        second = min(rest, key=lambda held: held.age)
    if one.stage != second.stage:
        raise MalError(f"{one.address} and {second.address} are results of different stages; compare two of one")
    print(f"{one.address} and {second.address} differ in:")
    print("\n".join(differences(store, one, second)) or "nothing that is recorded")
    return 0


def held_of(store: Store, stage: str) -> list[Held]:
    return [one for one in held(store) if one.stage == stage]


def _named(store: Store, key: str) -> Held:
    """A folder by its key, the beginning of its key, or stage/key.

    Raises:
        MalError: there is none, or several.
    """
    stage, _, begin = key.rpartition("/")
    found = [one for one in held(store) if one.key.startswith(begin) and stage in ("", one.stage)]
    if len(found) != 1:
        there = ", ".join(one.address for one in found[:5])
        raise MalError(
            f"{key} names {len(found)} results{f' ({there})' if found else ''}; python -m mal.store list shows them all"
        )
    return found[0]


def _find(store: Store, address: str) -> Held | None:
    stage, key = address.split("/")
    folder = store.folder(stage, key)
    if not folder.is_dir():
        return None
    done = store.is_done(stage, key)
    return Held(stage, key, "done" if done else "half done", 0, 0.0, store.read(stage, key) if done else _begun(folder))


def _begun(folder: Path) -> dict[str, Any]:
    for name in ("stage.json", QUEUED):
        try:
            return read_json(folder / name)
        except (OSError, ValueError):
            continue
    return {}


def _settings(part: Any) -> dict[str, Any]:
    """Nested settings by dotted name; a plain value by no name."""
    return dict(flatten(part)) if isinstance(part, dict) else {"": part}


def _shown(values: dict[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "absent"


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `python -m mal.store`."""
    parser = argparse.ArgumentParser(prog="python -m mal.store", description="What the run store holds.")
    parser.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="a line a result")
    listing.add_argument("stage", nargs="?", help="only of this stage")
    gc = commands.add_parser("gc", help="remove what no result needs, after asking")
    gc.add_argument("--days", type=float, default=7.0, help="keep what is younger; default: %(default)s")
    gc.add_argument("--yes", action="store_true", help="do not ask")
    why = commands.add_parser("why", help="which settings, inputs and sources make two keys differ")
    why.add_argument("key", help="of one result, or the beginning of it")
    why.add_argument("other", nargs="?", help="of the other; default: the latest of the same stage")
    options = parser.parse_args(arguments)
    store = Store(options.store)
    try:
        if options.command == "list":
            return list_command(store, options.stage)
        if options.command == "gc":
            return gc_command(store, days=options.days, yes=options.yes)
        return why_command(store, options.key, options.other)
    except MalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
