"""Take a sweep's jobs out of the queue: `python -m slurm.cancel [SWEEP]`; the latest one without a name.

What is finished stays, and a training that is stopped keeps its checkpoint: the same sweep goes on from there.
"""

import sys
from collections.abc import Sequence

from mal.engine.commands import command
from mal.engine.store import QUEUED, Store
from slurm import queue
from slurm.command import of_sweep
from slurm.sweep import SWEEPS, Sweep, read_sweep


def take_back(sweep: Sweep) -> None:
    """Cancel the jobs that the sweep waits for, whoever submitted them, except those that another sweep waits for."""
    waiting = queue.queue()
    sweep.taken_back = True
    sweep.save()
    jobs = [entry.job for entry in sweep.entries.values() if entry.job in waiting]
    needed = {job: name for job, name in shared(sweep).items() if job in jobs}
    queue.cancel([job for job in jobs if job not in needed])
    store = Store(sweep.store)
    for entry in sweep.entries.values():  # nothing is kept for their sake any more
        if entry.job not in needed:
            (store.folder(entry.stage, entry.key) / QUEUED).unlink(missing_ok=True)
    print(f"{sweep.folder.name}: {len(jobs) - len(needed)} jobs taken back")
    for job, name in needed.items():
        print(f"job {job} stays: the sweep {name} waits for it too")


def shared(sweep: Sweep) -> dict[str, str]:
    """Jobs of the store's other sweeps that were not taken back → the sweep's name."""
    found: dict[str, str] = {}
    for file in sorted({*SWEEPS.glob("*/sweep.json"), *sweep.folder.parent.glob("*/sweep.json")}):
        if file.parent.resolve() != sweep.folder.resolve():
            other = read_sweep(file.parent)
            if other.store == sweep.store and not other.taken_back:
                found |= {entry.job: other.folder.name for entry in other.entries.values() if entry.job}
    return found


@command
def main(arguments: Sequence[str] | None) -> None:
    of_sweep("slurm.cancel", __doc__, take_back, arguments)


if __name__ == "__main__":
    sys.exit(main())
