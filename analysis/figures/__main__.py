"""Draw what a store has data for, and say which commands compute the rest."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.figures import KINDS, draw_all
from analysis.sources import add_options, command, opened, writing


@command
def main(arguments: Sequence[str] | None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.figures", description=__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default=Path("results/report"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="NAME", help=", ".join(KINDS))
    parser.add_argument(
        "--redistributable", action="store_true", help="only photographs that may be passed on (for committed figures)"
    )
    options = parser.parse_args(arguments)
    with writing(options.out):
        drawn = draw_all(opened(options), options.out, options.only, options.redistributable)
    for figure in drawn:
        if figure.png is None:
            print(f"{figure.name} ({figure.title}): {figure.reason}")
        else:
            print(f"{figure.png} (.pdf, .txt)" + (f"\n    left out: {figure.reason}" if figure.reason else ""))


if __name__ == "__main__":
    sys.exit(main())
