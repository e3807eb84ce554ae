"""Cells of the tables that runs end with: what tells their rows apart, and numbers as they are shown."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.columns import METHOD, rank
from analysis.lineage import unlike
from analysis.recipes import departures, recipe_name, shown
from analysis.records import Record
from analysis.rendering import Table, markdown_rows

# what tells results apart: columns, `settings` unlike the recipe's, and `key`, which differs where nothing else does
IDENTITY = (*METHOD, "segmenter", "settings", "seed", "key")


def told_apart(
    records: list[Record], known: Mapping[str, Record], name: Callable[[Record], str], *, but: str = ""
) -> tuple[list[str], list[tuple[Record, list[str]]]]:
    """What tells the records of a table apart: a name, and every setting (`but` one) in which two of a name differ.

    Returns:
        The settings' names; the records in the table's order, each with the cells of its name and settings.
    """
    columns: list[str] = []
    cells = [[name(record)] for record in records]
    for setting in (setting for setting in IDENTITY if setting != but):
        values = [identity(record, setting, known) for record in records]
        by = [record["columns"].get("recipe") for record in records] if setting == "recipe" else values
        if any(unlike([tuple(row) for row in cells], by)):
            columns.append(setting)
            cells = [[*row, value] for row, value in zip(cells, values, strict=True)]

    def place(pair: tuple[Record, list[Any]]) -> tuple[Any, ...]:
        record, (title, *values) = pair
        baseline = record["columns"].get("supervision") in ("human", "boxes")
        sortable = [(value is not None, value) for value in values]
        return not baseline, rank(record["columns"]), title, sortable, record["key"]

    ordered = sorted(zip(records, cells, strict=True), key=place)
    return columns, [(r, ["" if value is None else str(value) for value in row]) for r, row in ordered]


def identity(record: Record, name: str, known: Mapping[str, Record]) -> Any:
    """What a record has of one of `IDENTITY`, to be shown; a recipe's name with what is otherwise than it says."""
    if name == "recipe":
        return recipe_name(record, known)
    if name == "settings":
        return " ".join(shown(departures(record, known))) or None
    return record["key"][:8] if name == "key" else record["columns"].get(name)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned to be read in a terminal too: the first column left, the others right."""
    return markdown_rows(Table("summary", "", tuple(header), tuple(map(tuple, rows))))


def count_of(records: list[Record], metric: str) -> str:
    return " or ".join(map(str, sorted({r["metrics"][metric]["n"] for r in records})))


def images(records: list[Record]) -> str:
    """Which validation images were scored."""
    placed = sorted({record["config"].get("images", "all") for record in records})
    return " or ".join(
        "the validation images" if it == "all" else f"the {it}-placed validation images" for it in placed
    )


def number(record: Record, metric: str) -> str:
    entry = record["metrics"].get(metric)
    return "-" if entry is None else f"{entry['value']:.3f}"


def percent(record: Record, metric: str) -> str:
    """A share and its interval, in %."""
    values = [record["metrics"].get(f"{metric}{end}") for end in ("", "_low", "_high")]
    if any(value is None for value in values):
        return "-"
    value, low, high = (100 * found["value"] for found in values if found is not None)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def bounded(record: Record, metric: str) -> str:
    """A metric, and its interval where the record has one; of a share of expressions the value alone."""
    ends = [record["metrics"].get(f"{metric}{end}") for end in ("_low", "_high")]
    if metric.startswith("pr") or any(end is None for end in ends):
        return number(record, metric)
    low, high = (end["value"] for end in ends if end is not None)
    return f"{number(record, metric)} [{low:.3f}, {high:.3f}]"
