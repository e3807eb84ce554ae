"""SIGKILL at random moments of the whole pipeline: what comes out has the bits of an undisturbed run.

python tests/attacks/kills.py [KILLS] [SEED]      50 kills take about a quarter of an hour on two cores
"""

import random
import sys
import tempfile
from pathlib import Path

import harness

from mal.engine.store import Store
from mal.engine.store.cleaning import half_done, held


def attack(folder: Path, *, kills: int, seed: int, overrides: tuple[str, ...] = ()) -> list[str]:
    """What went wrong, in sentences.

    Args:
        folder: an empty one.
        kills: how many; runs are repeated until each has been killed often enough to reach them.
        seed: of the moments.
    """
    took = harness.finish(harness.config(folder / "reference", *overrides), folder / "reference.log")
    reference = harness.bits(folder / "reference")
    draw, done, problems = random.Random(seed), 0, []
    while done < kills:
        store, log = folder / f"store-{done}", folder / f"store-{done}.log"
        wanted = harness.config(store, *overrides)
        while True:
            with harness.attempts() as running:
                running.append(harness.Attempt(wanted, log))
                code = running[0].wait(draw.uniform(0.1, took / 2) if done < kills else 900)
            if code is not None:
                break
            done += 1
            print(f"kill {done} of {kills}: {len(list(store.glob('*/*/run.json')))} stages were done", flush=True)
        problems += [f"seed {seed}: exit status {code}, see {log}"] if code else []
        problems += [f"{log}: a traceback"] if "Traceback" in log.read_text() else []
        problems += [f"{store}: {name} differs" for name in harness.differences(store, reference)]
        problems += [f"{store}: {one.address} is half done" for one in half_done(list(held(Store(store))), days=0)]
        problems += [f"{store}: {path} is left" for path in store.rglob(".*.part") if _is_needless(path)]
    return problems


def _is_needless(path: Path) -> bool:
    """A temporary file of a stage that a later process took over, which should have removed it."""
    return (path.parent / "run.json").is_file() and path.parent.parent.name.startswith("train_")


if __name__ == "__main__":
    count, number = (int(text) for text in [*sys.argv[1:], *("50", "0")[len(sys.argv) - 1 :]])
    found = attack(Path(tempfile.mkdtemp(prefix="kills-")), kills=count, seed=number)
    print("\n".join(found) or f"{count} kills: the same bits each time, nothing left half done")
    sys.exit(bool(found))
