"""Every result in a run store as one tidy data frame: a row a metric.

python -m analysis.collect [--store results/runs] [--csv FILE|-] [--skip-broken]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import COLUMNS as SETTINGS
from analysis.columns import KNOWN, PUBLISHED
from analysis.denominators import UNKNOWN, denominator
from analysis.records import Record, UnreadableRecordError, address, is_number, read_record
from analysis.sources import command
from mal.engine.tracking_address import DEFAULT_STORE

TYPES = {
    **SETTINGS,
    **{"seed": "Int64", "stage": "str", "metric": "str", "value": "float64", "n": "Int64", "key": "str"},
    **{"commit": "str", **PUBLISHED},
}
COLUMNS = list(TYPES)
KINDS = {"float64": float, "Int64": int}


def collect(root: str | Path, *, skip_broken: bool = False) -> pd.DataFrame:
    """Read every finished run.json under `root`/<stage>/<key>/.

    Args:
        root: a run store, or a copy of its run.json files in the same folders.
        skip_broken: leave records that cannot be used out, with a sentence on standard error each.

    Returns:
        One row a metric with the columns COLUMNS, sorted by all of them; settings a stage does not have, and values
        a metric does not have, are missing values. Stages that did not finish have no rows.

    Raises:
        UnreadableRecordError: names the first record that is broken or half written, and how many there are.
    """
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in sorted(Path(root).glob("*/*/run.json")):
        try:
            record = read_record(path)
            rows += _rows(record, path) if record["status"] == "done" else []
        except UnreadableRecordError as error:
            broken.append(str(error))
            if skip_broken:
                print(f"left out: {error}", file=sys.stderr)
    if broken and not skip_broken:
        more = f" (and {len(broken) - 1} more like it)" if broken[1:] else ""
        raise UnreadableRecordError(f"{broken[0]}{more}; compute it again, or leave it out with --skip-broken")
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(TYPES)
    return frame.sort_values(COLUMNS, kind="stable", na_position="first", ignore_index=True)


def _rows(record: Record, path: Path) -> Iterator[dict[str, Any]]:
    columns = record["columns"]
    if unknown := [name for name in columns if name not in KNOWN]:
        raise UnreadableRecordError(f"{path}: unknown columns {', '.join(unknown)}")
    for name, kind in ((name, TYPES[name]) for name in columns if name in TYPES):
        value = columns[name]
        if not _fits(value, kind):
            raise UnreadableRecordError(f"{path}: column {name} is {value!r}, which is no {kind}")
    common = {name: columns.get(name) for name in (*SETTINGS, "seed", *PUBLISHED)} | {
        "stage": record["stage"],
        "key": record["key"],
        "commit": (record.get("provenance") or {}).get("commit"),
    }
    if record["stage"] == "retention" and common["denominator"] is None:
        common["denominator"] = _denominator(record, path)
    if (record["stage"], record["key"]) != (path.parent.parent.name, path.parent.name):
        raise UnreadableRecordError(f"{path} is the record of {address(record)}, not of its own folder")
    for metric, entry in record["metrics"].items():
        yield {**common, "metric": metric, "value": entry["value"], "n": entry.get("n")}


def _fits(value: Any, kind: str) -> bool:
    """Whether a column's value is absent or of its type in the frame."""
    if kind in KINDS:
        return is_number(value, KINDS[kind])
    return value is None or isinstance(value, bool if kind == "boolean" else str)


def _denominator(record: Record, path: Path) -> str | None:
    """What a retention is divided by, of a record older than the column; None where the store lacks that AP."""
    human = record["inputs"].get("human", "")
    other = path.parents[2] / str(human) / path.name
    known = {str(human): read_record(other)} if human and other.is_file() else {}
    found = denominator(record, known)
    return None if found == UNKNOWN else found


@command
def main(arguments: Sequence[str] | None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.collect", description="One tidy row a metric.")
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help="default: %(default)s")
    parser.add_argument("--csv", metavar="FILE", help="write CSV to a file, or to standard output (-)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out records that cannot be read")
    options = parser.parse_args(arguments)
    frame = collect(options.store, skip_broken=options.skip_broken)
    if options.csv is None:
        print(frame.to_string(index=False, na_rep="") if len(frame) else " ".join(COLUMNS))
    else:
        try:
            frame.to_csv(sys.stdout if options.csv == "-" else options.csv, index=False, lineterminator="\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnreadableRecordError(
                f"cannot write {options.csv}: {error}; give another file, or - for the screen"
            ) from error
    if frame.empty:
        print(f"there are no results in {options.store} yet; `make demo` computes the first", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
