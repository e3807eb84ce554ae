"""What the commands share: a sweep named on the command line."""

import argparse
from collections.abc import Callable, Sequence

from slurm.sweep import Sweep, read_sweep


def of_sweep(
    module: str, description: str | None, work: Callable[[Sweep], None], arguments: Sequence[str] | None
) -> None:
    """Do something with the sweep that is named, or with the latest."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("sweep", nargs="?", help="a folder in results/sweeps; default: the latest")
    work(read_sweep(parser.parse_args(arguments).sweep))
