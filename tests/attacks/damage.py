"""Files of the store that are not what was written: recomputed, or a sentence whose advice works; never a traceback.

python tests/attacks/damage.py      every file of a small run, in seven ways; about an hour on two cores
"""

import itertools
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import harness

ADVICE = re.compile(r"delete (?:its folder )?(?P<path>/\S+?)[,;.]?(?:\s|$)|(?P<it>/\S+) .*delete it")
SHORT = ("segmenter=none",)  # the attack is on the store; a second training adds nothing
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "deep": lambda data: (b"[" * 200_000)[: max(len(data), 200_000)],
    "braces": lambda _: b"{}",
    "list": lambda _: b"[1, 2]",
    "noise": lambda data: random.Random(0).randbytes(len(data)),
}


def attack(folder: Path, reference: Path, name: str, damage: str) -> list[str]:
    """What went wrong with one file damaged in one way, and all that was computed from it yet to be done.

    Args:
        folder: an empty one.
        reference: a finished store.
        name: of a file, below the store.
        damage: one of DAMAGES.
    """
    store, log = folder / "store", folder / "log"
    shutil.copytree(reference, store)
    address = "/".join(name.split("/")[:2])
    _forget_dependents(store, {address})
    path = store / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    wanted = harness.config(store, *SHORT)
    with harness.attempts() as running:
        running.append(harness.Attempt(wanted, log))
        code = running[0].wait(300)
    text = log.read_text()
    if "Traceback" in text or code not in (0, 1):
        return [f"{name}, {damage}: exit status {code}\n{text[-2000:]}"]
    if code == 1:  # the sentence names what to delete
        advised = re.search(
            r"delete (?:its folder |the folder )?(?P<path>/\S+?)[,;.]?(?:\s|$)|(?P<it>/\S+) .*delete it", text
        )
        if advised is None:
            return [f"{name}, {damage}: no way out in {text.strip().splitlines()[-1]}"]
        place = Path(advised["path"] or advised["it"])
        if not place.is_relative_to(store):
            return [f"{name}, {damage}: it advises to delete {place}"]
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        harness.finish(wanted, folder / "again.log")
    differing = harness.differences(store, harness.bits(reference))
    return [f"{name}, {damage}: {other} differs afterwards" for other in differing]


def targets(reference: Path) -> list[str]:
    """One file of each kind: stage and name without numbers."""
    kinds: dict[str, str] = {}
    for path in sorted(it for it in reference.glob("*/*/**/*") if it.is_file()):
        name = path.relative_to(reference).as_posix()
        kinds.setdefault(re.sub(r"/[0-9a-f]{16}|\d+", "", name), name)
    return list(kinds.values())


def _forget_dependents(store: Path, addresses: set[str]) -> None:
    """Remove every result that was computed from some others, so that the command reads those again."""
    for record in store.glob("*/*/run.json"):
        mine = record.parent.relative_to(store).as_posix()
        if mine not in addresses and any(f'"{address}"' in record.read_text() for address in addresses):
            shutil.rmtree(record.parent)
            _forget_dependents(store, {mine})


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp(prefix="damage-"))
    harness.finish(harness.config(home / "reference", *SHORT), home / "reference.log")
    found = []
    for count, (file, way) in enumerate(itertools.product(targets(home / "reference"), DAMAGES)):
        place = home / str(count)
        place.mkdir()
        problems = attack(place, home / "reference", file, way)
        print(f"{file}, {way}: {'; '.join(problems) or 'well'}", flush=True)
        found += problems
        shutil.rmtree(place)
    print(f"{len(found)} problems")
    sys.exit(bool(found))
