"""What the store holds, what of it can go, and why two results have different keys.

python -m mal.store list [STAGE]        one line per result: stage, key, state, size, what it is of
python -m mal.store gc [--days 7]       remove what dead runs left, after asking; never a finished result
python -m mal.store remove KEY...       remove finished results, after asking
python -m mal.store why KEY [OTHER]     which settings, inputs and sources differ
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mal.engine.commands import command
from mal.engine.mirror import DEFAULT_STORE
from mal.engine.payload import flatten
from mal.engine.store import Store
from mal.engine.store.cleaning import Held, begun, dependents, half_done, held, leftovers, only_for, remove_leftover
from mal.errors import MalError


def differences(store: Store, one: Held, other: Held) -> list[str]:
    """Why two results of a stage have different keys, one line per reason; through the inputs, down to what was set."""
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
    """Remove what no result was or will be computed from, and is none itself, after asking."""
    found, files = half_done(list(held(store)), days=days), leftovers(store, days=days)
    inside = {store.folder(one.stage, one.key) for one in found}
    files = [(path, size) for path, size in files if not inside & set(path.parents)]
    for one in found:
        print(_line(one))
    for path, size in files:
        print(f"{path.relative_to(store.root)}  left over  {_bytes(size):>8}")
    if not found and not files:
        print(
            f"nothing in {store.root} is left of dead runs for {days:g} days; finished results go by "
            "python -m mal.store remove KEY"
        )
        return 0
    size = sum(one.size for one in found) + sum(size for _, size in files)
    if not yes and not _agreed(f"remove these {len(found)} folders and {len(files)} files, {_bytes(size)}? [y/N] "):
        print("nothing was removed")
        return 1
    removed = _remove(store, found, results=False)
    for path, _ in files:
        remove_leftover(path)
    print(f"removed {removed} folders and {len(files)} files")
    return 0


def remove_command(store: Store, keys: Sequence[str], *, with_dependents: bool, with_inputs: bool, yes: bool) -> int:
    """Remove named results, after asking.

    Raises:
        MalError: there is none of that key, or others were computed from it that are not to go.
    """
    everything = list(held(store))
    chosen = {one.address: one for one in (_named(everything, key) for key in keys)}
    more = dependents(everything, chosen)
    if more and not with_dependents:
        first = ", ".join(one.address for one in more[:3]) + (", ..." if len(more) > 3 else "")
        raise MalError(
            f"{len(more)} results were computed from what you name ({first}); name them too, or add --with-dependents"
        )
    chosen |= {one.address: one for one in more}
    if with_inputs:
        chosen |= {one.address: one for one in only_for(everything, chosen)}
    for one in chosen.values():
        print(_line(one))
    size = _bytes(sum(one.size for one in chosen.values()))
    if not yes and not _agreed(f"remove these {len(chosen)} folders, {size}, for good? [y/N] "):
        print("nothing was removed")
        return 1
    print(f"removed {_remove(store, list(chosen.values()), results=True)} folders")
    return 0


def why_command(store: Store, key: str, other: str | None) -> int:
    """Print why two keys differ; without a second one, the most recent other result of the same stage."""
    everything = list(held(store))
    one = _named(everything, key)
    if other is not None:
        second = _named(everything, other)
    else:
        rest = [it for it in everything if it.stage == one.stage and it.key != one.key and it.state == "done"]
        if not rest:
            raise MalError(f"{one.stage} has no other result to compare with")
        second = min(rest, key=lambda held: held.age)
    if one.stage != second.stage:
        raise MalError(f"{one.address} and {second.address} are results of different stages; compare two of one")
    print(f"{one.address} and {second.address} differ in:")
    print("\n".join(differences(store, one, second)) or "nothing that is recorded")
    return 0


def _named(everything: list[Held], key: str) -> Held:
    """A folder by its key, the beginning of its key, or stage/key.

    Raises:
        MalError: there is none, or several.
    """
    stage, _, begin = key.rpartition("/")
    found = [one for one in everything if one.key.startswith(begin) and stage in ("", one.stage)]
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
    done = store.is_recorded(stage, key)
    return Held(stage, key, "done" if done else "half done", 0, 0.0, store.read(stage, key) if done else begun(folder))


def _remove(store: Store, found: Sequence[Held], *, results: bool) -> int:
    """How many folders went; what somebody has begun to compute meanwhile stays, or, unless `results`, finished."""
    removed = 0
    for one in found:
        if store.remove(one.stage, one.key, results=results):
            removed += 1
        else:
            why = "was finished meanwhile" if store.is_recorded(one.stage, one.key) else "is being computed"
            print(f"{one.address} stays: it {why}", file=sys.stderr)
    return removed


def _line(one: Held) -> str:
    return f"{one.address}  {one.state:9}  {_bytes(one.size):>8}  {one.age:.0f} days  {one.title}".rstrip()


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


@command
def main(arguments: Sequence[str] | None) -> int:
    """The command line of `python -m mal.store`."""
    parser = argparse.ArgumentParser(prog="python -m mal.store", description="What the run store holds.")
    parser.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="one line per result")
    listing.add_argument("stage", nargs="?", help="only of this stage")
    gc = commands.add_parser("gc", help="remove what dead runs left, after asking; never a finished result")
    gc.add_argument(
        "--days", type=float, default=7.0, help="keep half-done work younger than this; default: %(default)s"
    )
    remove = commands.add_parser("remove", help="remove finished results, after asking")
    remove.add_argument("keys", nargs="+", metavar="KEY", help="of a result, or its beginning, or stage/key")
    remove.add_argument("--with-dependents", action="store_true", help="and what was computed from them")
    remove.add_argument("--with-inputs", action="store_true", help="and what only they were computed from")
    for destructive in (gc, remove):
        destructive.add_argument("--yes", action="store_true", help="do not ask")
    why = commands.add_parser("why", help="which settings, inputs and sources make two keys differ")
    why.add_argument("key", help="of one result, or the beginning of it")
    why.add_argument("other", nargs="?", help="of the other; default: the latest of the same stage")
    options = parser.parse_args(arguments)
    store = Store(options.store)
    if options.command == "list":
        return list_command(store, options.stage)
    if options.command == "gc":
        return gc_command(store, days=options.days, yes=options.yes)
    if options.command == "remove":
        return remove_command(
            store,
            options.keys,
            with_dependents=options.with_dependents,
            with_inputs=options.with_inputs,
            yes=options.yes,
        )
    return why_command(store, options.key, options.other)
