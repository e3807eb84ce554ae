"""The records (run.json) of finished stages."""

import json
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mal.errors import MalError

Record = dict[str, Any]
Json = dict[str, Any]
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
PARTS = {"status": str, "stage": str, "key": str, "columns": dict, "config": dict, "inputs": dict, "metrics": dict}

PUBLISHED, ELSEWHERE = "published", "from_other"  # of a published record: what of it was left out, and see `came_from`


class UnreadableRecordError(MalError):
    """A store without results, or with one that cannot be read."""


def finished(store: Path) -> list[Record]:
    """The run.json of every finished stage of a store.

    Raises:
        UnreadableRecordError: there is none, or one cannot be read.
    """
    if not store.is_dir():
        raise UnreadableRecordError(
            f"the store {store} does not exist; name another with --store; `make demo` makes one"
        )
    try:
        records = [read_record(path) for path in sorted(store.glob("*/*/run.json"))]
    except UnreadableRecordError as error:
        raise UnreadableRecordError(f"{error}; compute it again, or remove it") from error
    records = [record for record in records if record["status"] == "done"]
    if not records:
        raise UnreadableRecordError(f"the store {store} holds no finished run; `make demo` makes one")
    return records


def came_from(record: Record) -> list[str]:
    """Addresses of what a published result comes from and is published as it ended elsewhere, under the same key."""
    return (record.get(PUBLISHED) or {}).get(ELSEWHERE, [])


def read_record(path: Path) -> Record:
    """A run.json; if it is that of a finished stage it has its parts, and all metrics have values.

    Raises:
        UnreadableRecordError: it cannot be read, or is no record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise UnreadableRecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableRecordError(f"{path} cannot be read: it is not whole JSON: {error}") from error
    if not isinstance(record, dict):
        raise UnreadableRecordError(f"{path} cannot be read: it holds a {type(record).__name__}, not a record")
    for name, kind in PARTS.items():
        if not isinstance(record.get(name), kind) and (name == "status" or record["status"] == "done"):
            raise UnreadableRecordError(f"{path} cannot be read: it has no usable '{name}'")
    for name, entry in record["metrics"].items() if record["status"] == "done" else ():
        where = f"{path} cannot be read: its metric {name}"
        if not isinstance(entry, dict) or "value" not in entry:
            raise UnreadableRecordError(f"{where} has no value")
        value, n = entry["value"], entry.get("n")
        if not is_number(value, float) or not is_number(n, int):
            raise UnreadableRecordError(f"{where} has value {value!r} and n {n!r}; a number and a count were expected")
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is absent, or a number (`float`) or a whole one (`int`)."""
    return value is None or (isinstance(value, int | kind) and not isinstance(value, bool))


def address(record: Record) -> str:
    """stage/key: a record's folder below the store's root, and its name in other records' inputs."""
    return f"{record['stage']}/{record['key']}"


def by_address(records: Iterable[Record]) -> dict[str, Record]:
    """stage/key → record."""
    return {address(record): record for record in records}


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Key → the items that have it; both in the order of the items."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
