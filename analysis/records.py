"""The records (run.json) of finished stages, their files, and the images that they are about."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_STORE = Path("results/runs")
Record = dict[str, Any]
Json = dict[str, Any]


class UnreadableRecordError(Exception):
    """A store without results, or with one that cannot be read."""


@dataclass(frozen=True)
class Pictures:
    """Photographs or drawings, and the file that describes them."""

    annotations: Path  # COCO or LVIS, with human masks
    images: Path  # folder
    drawn: bool  # procedural: nobody's rights are touched


def finished(store: Path) -> list[Record]:
    """The run.json of every finished stage of a store.

    Raises:
        UnreadableRecordError: there is none, or one cannot be read.
    """
    records = []
    for path in sorted(store.glob("*/*/run.json")):
        try:
            records.append(_checked(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise UnreadableRecordError(f"{path} cannot be read: {error}; compute it again, or remove it") from error
    records = [record for record in records if record["status"] == "done"]
    if not records:
        raise UnreadableRecordError(f"the store {store} holds no finished run; `make demo` makes one")
    return records


def _checked(record: Any) -> Record:
    """Raises ValueError: this is no record of a stage."""
    if not isinstance(record, dict) or "status" not in record:
        raise ValueError("it is no record of a stage")
    if record["status"] != "done":
        return record
    parts = {"stage": str, "key": str, "columns": dict, "config": dict, "inputs": dict, "metrics": dict}
    for name, kind in parts.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"it has no usable '{name}'")
    for name, entry in record["metrics"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), int | float):
            raise ValueError(f"its metric '{name}' has no value")
    return record


def address(record: Record) -> str:
    """stage/key: a record's folder below the store's root, and its name in other records' inputs."""
    return f"{record['stage']}/{record['key']}"


def by_address(records: Iterable[Record]) -> dict[str, Record]:
    """stage/key → record."""
    return {address(record): record for record in records}


def pictures(record: Record, known: Mapping[str, Record], store: Path) -> Pictures | None:
    """The images that a result is about; None where they cannot be found on this machine.

    Procedural images lie in the store. Those of a user's files lie where they lay when their boxes were read, if
    they still do: two results of the same files have the same digests among their `sources`.

    Args:
        record: of a stage that reads a split: boxes_*, label_*, quality_*, detect_val, ap_val, …
        known: all records, by address. store: folder that they are in.
    """
    for name in _ancestors(record, known):
        if name.startswith(("shapes_train/", "shapes_val/")):  # the nearest: its own split before the labeler's
            folder = store / name
            return Pictures(folder / "annotations.json", folder / "images", drawn=True) if folder.is_dir() else None
    for other in known.values():
        places, sources = other.get("places"), other["sources"]
        if places and sources and sources.items() <= record["sources"].items():
            found = Pictures(Path(places["annotations"]), Path(places["images"]), drawn=False)
            if found.annotations.is_file() and found.images.is_dir():
                return found
    return None


def _ancestors(record: Record, known: Mapping[str, Record]) -> Iterable[str]:
    """A record's address and those of all it comes from, nearest first; each once."""
    queue = [address(record)]
    for name in queue:
        yield name
        inputs = record["inputs"] if name == address(record) else known.get(name, {"inputs": {}})["inputs"]
        queue += [other for other in inputs.values() if other not in queue]
