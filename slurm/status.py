"""Where a sweep on the cluster stands: `python -m slurm.status [SWEEP]`; the latest one without a name."""

import sys
from collections.abc import Sequence

from mal.engine.commands import command
from slurm.command import of_sweep
from slurm.sweep import Sweep
from slurm.watch import states, status_lines


def show(sweep: Sweep) -> None:
    """Print one line per stage."""
    print("\n".join(status_lines(sweep, states(sweep))))


@command
def main(arguments: Sequence[str] | None) -> None:
    of_sweep("slurm.status", __doc__, show, arguments)


if __name__ == "__main__":
    sys.exit(main())
