"""Take a sweep's jobs out of the queue: `python -m slurm.cancel [SWEEP]`; the latest one without a name.

What is finished stays, and a training that is stopped keeps its checkpoint: the same sweep goes on from there.
"""

import sys
from collections.abc import Sequence

from slurm import queue
from slurm.command import of_sweep
from slurm.sweep import SWEEPS, Sweep, read_sweep


def take_back(sweep: Sweep) -> None:
    """Cancel the jobs that the sweep submitted, except those that another sweep waits for."""
    waiting = queue.queue()
    own = [entry.job for entry in sweep.entries.values() if not entry.borrowed and entry.job in waiting]
    needed = {job: name for job, name in lent(sweep).items() if job in own}
    queue.cancel([job for job in own if job not in needed])
    print(f"{sweep.folder.name}: {len(own) - len(needed)} jobs taken back")
    for job, name in needed.items():
        print(f"job {job} stays: the sweep {name} waits for it too")


def lent(sweep: Sweep) -> dict[str, str]:
    """Jobs of this sweep that another one relies on → its name."""
    found: dict[str, str] = {}
    for file in sorted({*SWEEPS.glob("*/sweep.json"), *sweep.folder.parent.glob("*/sweep.json")}):
        if file.parent.resolve() != sweep.folder.resolve():
            other = read_sweep(file.parent)
            found |= {entry.job: other.folder.name for entry in other.entries.values() if entry.borrowed}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    return of_sweep("slurm.cancel", __doc__, take_back, arguments)


if __name__ == "__main__":
    sys.exit(main())
