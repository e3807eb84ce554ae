"""What the commands share: a sweep named on the command line, and an error as one sentence."""

import argparse
import sys
from collections.abc import Callable, Sequence

from mal.errors import MalError
from slurm.sweep import Sweep, read_sweep


def of_sweep(
    module: str, description: str | None, work: Callable[[Sweep], None], arguments: Sequence[str] | None
) -> int:
    """Do something with the sweep that is named, or with the latest; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("sweep", nargs="?", help="a folder in results/sweeps; default: the latest")
    options = parser.parse_args(arguments)
    return told(lambda: work(read_sweep(options.sweep)))


def told(work: Callable[[], None]) -> int:
    """Do something; the exit code, after an error was printed."""
    try:
        work()
    except MalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
