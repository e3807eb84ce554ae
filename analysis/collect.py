"""Every result in a run store as one tidy data frame: a row a metric.

python -m analysis.collect [--store results/runs] [--csv FILE|-] [--skip-broken]
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from analysis.denominators import UNKNOWN, denominator

SETTINGS = {
    "profile": "str",
    "data": "str",
    "labeler": "str",
    "recipe": "str",
    "encoder": "str",
    "decoder": "str",
    "theta": "float64",
    "segmenter": "str",
    "supervision": "str",
    "seed": "Int64",
}
PUBLISHED = {  # after all others: what a retention is divided by, and which published file an AP is of
    "denominator": "str",
    "published_file": "str",
    "printed_mask_ap": "float64",
}
KNOWN = {**SETTINGS, **PUBLISHED, "printed_by": "str"}  # columns of records; the last is words for the one before it
TYPES = {
    **SETTINGS,
    **{"stage": "str", "metric": "str", "value": "float64", "n": "Int64", "key": "str", "commit": "str"},
    **PUBLISHED,
}
COLUMNS = list(TYPES)
DEFAULT_STORE = "results/runs"


class BrokenRecordError(Exception):
    """A run.json that cannot be used; the message names it and says what is wrong."""


def collect(root: str | Path, *, skip_broken: bool = False) -> pd.DataFrame:
    """Read every finished run.json under `root`/<stage>/<key>/.

    Args:
        root: a run store, or a copy of its run.json files in the same folders.
        skip_broken: leave records that cannot be used out, with a sentence on standard error each.

    Returns:
        One row a metric with the columns COLUMNS, sorted by all of them; settings a stage does not have, and values
        a metric does not have, are missing values. Stages that did not finish have no rows.

    Raises:
        BrokenRecordError: names the first record that is broken or half written, and how many there are.
    """
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in sorted(Path(root).glob("*/*/run.json")):
        try:
            rows += _rows(path)
        except BrokenRecordError as error:
            broken.append(str(error))
            if skip_broken:
                print(f"left out: {error}", file=sys.stderr)
    if broken and not skip_broken:
        more = f" (and {len(broken) - 1} more like it)" if broken[1:] else ""
        raise BrokenRecordError(f"{broken[0]}{more}; compute it again, or leave it out with --skip-broken")
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(TYPES)
    return frame.sort_values(COLUMNS, kind="stable", na_position="first", ignore_index=True)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    record = _read(path)
    if _get(record, "status", path, str) != "done":
        return
    columns = _get(record, "columns", path, dict)
    if unknown := [name for name in columns if name not in KNOWN]:
        raise BrokenRecordError(f"{path}: unknown columns {', '.join(unknown)}")
    common = {
        **{name: _setting(columns, name, path) for name in SETTINGS},
        "stage": _get(record, "stage", path, str),
        "key": _get(record, "key", path, str),
        "commit": (record.get("provenance") or {}).get("commit"),
        **{name: _setting(columns, name, path) for name in PUBLISHED},
    }
    if common["stage"] == "retention" and common["denominator"] is None:
        common["denominator"] = _denominator(record, path)
    if (common["stage"], common["key"]) != (path.parent.parent.name, path.parent.name):
        raise BrokenRecordError(f"{path} is the record of {common['stage']}/{common['key']}, not of its own folder")
    for metric, entry in _get(record, "metrics", path, dict).items():
        where = f"{path}: metric {metric}"
        if not isinstance(entry, dict) or "value" not in entry:
            raise BrokenRecordError(f"{where} has no value")
        value, n = entry["value"], entry.get("n")
        if not _is_number(value, float) or not _is_number(n, int):
            raise BrokenRecordError(f"{where} has value {value!r} and n {n!r}; a number and a count were expected")
        yield {**common, "metric": metric, "value": value, "n": n}


def _denominator(record: dict[str, Any], path: Path) -> str | None:
    """What a retention is divided by, of a record older than the column; None where the store lacks that AP."""
    human = _get(record, "inputs", path, dict).get("human", "")
    other = path.parents[2] / str(human) / path.name
    known = {str(human): _read(other)} if human and other.is_file() else {}
    found = denominator(record, known)
    return None if found == UNKNOWN else found


def _read(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON number")

    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise BrokenRecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BrokenRecordError(f"{path} is not whole JSON: {error}") from error
    if not isinstance(record, dict):
        raise BrokenRecordError(f"{path} holds a {type(record).__name__}, not a record")
    return record


def _get(record: dict[str, Any], name: str, path: Path, kind: type) -> Any:
    if not isinstance(record.get(name), kind):
        raise BrokenRecordError(f"{path} has no usable '{name}'")
    return record[name]


def _setting(columns: dict[str, Any], name: str, path: Path) -> Any:
    value, kind = columns.get(name), KNOWN[name]
    fits = {
        "str": value is None or isinstance(value, str),
        "float64": _is_number(value, float),
        "Int64": _is_number(value, int),
    }
    if not fits[kind]:
        raise BrokenRecordError(f"{path}: column {name} is {value!r}, which is no {kind}")
    return value


def _is_number(value: Any, kind: type) -> bool:
    """Whether a value is absent, or a number (`float`) or a whole one (`int`)."""
    return value is None or (isinstance(value, int | kind) and not isinstance(value, bool))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.collect", description="One tidy row a metric.")
    parser.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), help="default: %(default)s")
    parser.add_argument("--csv", metavar="FILE", help="write CSV to a file, or to standard output (-)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out records that cannot be read")
    options = parser.parse_args(arguments)
    try:
        frame = collect(options.store, skip_broken=options.skip_broken)
        if options.csv is None:
            print(frame.to_string(index=False, na_rep="") if len(frame) else " ".join(COLUMNS))
        else:
            frame.to_csv(sys.stdout if options.csv == "-" else options.csv, index=False, lineterminator="\n")
    except BrokenRecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write {options.csv}: {error}; give another file, or - for the screen", file=sys.stderr)
        return 1
    if frame.empty:
        print(f"there are no results in {options.store} yet; `make demo` computes the first", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
