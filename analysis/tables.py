"""The tables of results/paper, ours beside what papers print, from run.json files alone: `python -m analysis.tables`

Writes OUT/tables/tab1_coco.md, .tex, .csv and .html, and so on for each table, and prints what it wrote.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.paper_numbers import load
from analysis.records import Record, finished
from analysis.rendering import FORMATS, Table
from analysis.sources import add_options, command, opened, writing

DEFAULT_OUT = Path("results/report")
TESTDEV = Path("results/testdev.yaml")


def paper_tables(records: Iterable[Record], store: Path, *, testdev: Path = TESTDEV) -> list[Table]:
    """Every table of results/paper, with what the records say.

    Args:
        records: run.json of finished stages. store: the folder that they are in, with their arrays.
        testdev: what COCO's server said of submitted predictions.

    Raises:
        UnreadableRecordError, PaperNumbersError: an input file cannot be used.
    """
    from analysis.paper.layout import Builder  # with pandas, which help need not wait for
    from analysis.paper.results import Results, read_testdev

    tables, results = load(), Results.of(records, store, read_testdev(testdev))
    return [Builder(table, results, tables).build() for table in tables.values()]


def write(table: Table, folder: Path) -> list[Path]:
    """A file of each format in a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, render in FORMATS.items():
        paths.append(folder / f"{table.name}.{suffix}")
        paths[-1].write_text(render(table), encoding="utf-8")
    return paths


@command
def main(arguments: Sequence[str] | None) -> None:
    """Write the tables."""
    names = [table.name for table in load().values()]
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write into; default: %(default)s")
    parser.add_argument("--table", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--testdev", type=Path, default=TESTDEV, help="what COCO's server said; default: %(default)s")
    options = parser.parse_args(arguments)
    store = opened(options)
    with writing(options.out):
        for table in paper_tables(finished(store), store, testdev=options.testdev):
            if table.name in options.table:
                print("\n".join(map(str, write(table, options.out / "tables"))))


if __name__ == "__main__":
    sys.exit(main())
