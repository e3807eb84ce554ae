"""What a table's file says of our results: which belong to it, what cells say of one, and in which order they stand.

It speaks of a record's stage and columns; `described` adds what is read off them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from analysis.records import Record

Columns = Mapping[str, Any]
Where = Mapping[str, Any]  # column → wanted value; `any`, `none` → list of the same
Text = str | Mapping[str, Mapping[str, str]]  # a template, or column → value → template
Order = Sequence[str | Mapping[str, Any]]  # columns, or column → its values in order, or the name of words
Words = Mapping[str, Mapping[str, str]]
ALTERNATIVES, EXCEPTIONS = "any", "none"
DERIVED = {"backend": "segmenter", "trained_on": "labeler"}  # column that `described` adds → the one that it is part of
PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")


def described(record: Record) -> dict[str, Any]:
    """A record's columns and stage; a segmenter's `backend` apart from its name, and what a labeler was `trained_on`.

    `mask_rcnn_tiny (detectron2)` is mask_rcnn_tiny and " (detectron2)"; `mal:coco` was trained on coco.
    """
    columns = record["columns"]
    found = {**columns, "stage": record["stage"], "backend": ""}
    if "segmenter" in columns:
        name, space, backend = columns["segmenter"].partition(" ")
        found |= {"segmenter": name, "backend": space + backend}
    return found | {"trained_on": str(columns.get("labeler", "")).partition(":")[2] or columns.get("data")}


def matches(columns: Columns, where: Where) -> bool:
    """Whether all columns have the wanted values, one of the alternatives holds, and no exception."""
    return all(
        any(matches(columns, one) for one in wanted) == (name == ALTERNATIVES)
        if name in (ALTERNATIVES, EXCEPTIONS)
        else fits(columns.get(name), wanted)
        for name, wanted in where.items()
    )


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one, one of several, or of its shape (`lvis*`); null: the record has none."""
    if isinstance(wanted, list):
        return any(fits(value, one) for one in wanted)
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatchcase(value, wanted)
    return bool(value == wanted)


def cell(text: Text, columns: Columns, words: Words) -> str:
    """What a cell says: `{column}` is a value, `{column:words}` its name among some words, or itself; - for none."""
    if not isinstance(text, str):
        (column, cases), *_ = text.items()
        text = next((case for value, case in cases.items() if fits(columns.get(column), value)), "-")

    def said(found: re.Match[str]) -> str:
        value = columns.get(found[1])
        return "-" if value is None else words.get(found[2], {}).get(str(value), str(value))

    return PLACEHOLDER.sub(said, text)


def place(columns: Columns, order: Order, words: Words) -> list[tuple[int, float, str]]:
    """Where a result stands among others: by each entry of the order in turn, unlisted values last, in their order."""
    found = []
    for entry in order:
        column, listed = (entry, []) if isinstance(entry, str) else next(iter(entry.items()))
        values, value = list(words[listed] if isinstance(listed, str) else listed), columns.get(column)
        position = next((i for i, one in enumerate(values) if fits(value, one)), len(values))
        unlisted = None if position < len(values) else value
        if isinstance(unlisted, int | float):
            found.append((position, float(unlisted), ""))
        else:
            found.append((position, 0.0, "" if unlisted is None else str(unlisted)))
    return found


def wanted_columns(where: Where, key: str) -> Iterator[tuple[str, str]]:
    """Every column that a condition names, below its key in the file."""
    for name, wanted in where.items():
        if name in (ALTERNATIVES, EXCEPTIONS):
            for one in wanted:
                yield from wanted_columns(one, f"{key}.{name}")
        else:
            yield f"{key}.{name}", name


def said_columns(text: Text) -> set[str]:
    """Every column that a cell is made of."""
    chosen, templates = (set(), [text]) if isinstance(text, str) else ({*text}, [*next(iter(text.values())).values()])
    return chosen | {column for template in templates for column, _ in PLACEHOLDER.findall(template)}
