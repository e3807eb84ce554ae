"""Write one self-contained page of all that a store holds: summary, tables, figures, a gallery of masks, provenance."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.sources import add_options, command, opened, writing


@command
def main(arguments: Sequence[str] | None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default=Path("results/report"), help="default: %(default)s")
    parser.add_argument(
        "--redistributable", action="store_true", help="only photographs that may be passed on, and no link elsewhere"
    )
    options = parser.parse_args(arguments)
    from analysis.report.page import write_page  # with all that draws, which help need not wait for

    with writing(options.out):
        page = write_page(opened(options), options.out, redistributable=options.redistributable)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
