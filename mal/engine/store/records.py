"""What a run.json must be like, and whether the files beside it are those that it names."""

from pathlib import Path
from typing import Any

Json = dict[str, Any]
DAMAGED = ".damaged"  # what the names of files end with that were put aside
SHAPES: dict[str, type | tuple[type, ...]] = {
    "stage": str,
    "key": str,
    "status": str,
    "version": int,
    "columns": dict,
    "config": dict,
    "inputs": dict,
    "sources": dict,
    "metrics": dict,
    "places": dict,
    "files": dict,
    "provenance": dict,
    "seconds": (int, float),
}
# what others keep beside the results, now or later: claims, queue, mirror (its state and lock), pictures drawn from the
# results, and what a file system hides (NFS: .nfs…)
NOT_RESULTS = (".", "claim-", "stage.json", "queued.json", "mlflow.", "run.json", "sheet.png", "attention.png")
NOTES = ("bad_batch.pt", "not_finite.json")  # of an attempt that failed


def check_record(record: Any) -> str | None:
    """What is wrong with the JSON value of a run.json, as a phrase; parts may be absent, but not be something else."""
    if not isinstance(record, dict):
        return "it is no JSON object"
    for name, kind in SHAPES.items():
        if name in record and (not isinstance(record[name], kind) or isinstance(record[name], bool)):
            return f"its {name!r} is of type {type(record[name]).__name__}"
    for name, entry in record.get("metrics", {}).items():
        if not isinstance(entry, dict):
            return f"its metric {name!r} is of type {type(entry).__name__}"
    if bad := [name for name, address in record.get("inputs", {}).items() if not _is_address(address)]:
        return f"its input {bad[0]!r} is no stage/key"
    return None


def inventory(folder: Path, *, without: tuple[str, ...]) -> dict[str, int]:
    """Name → size in bytes of the files of a result; of its folders (images), how many files are in each.

    Args:
        folder: of the result.
        without: files and folders in it that are about to go.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name in without or not _is_of_result(path.name):
            continue
        if path.is_dir():
            found[f"{path.name}/"] = _count(path)
        elif path.is_file():
            found[path.name] = path.stat().st_size
    return found


def faults(folder: Path, record: Json) -> dict[str, str]:
    """How a folder differs from a record's `files`: name → what is wrong, in words.

    Records of earlier versions have no `files`, and are believed.
    """
    found = {}
    for name, size in record.get("files", {}).items():
        if not _is_of_result(name):
            continue
        path = folder / name
        try:
            there = _count(path) if name.endswith("/") else path.stat().st_size
        except OSError:
            found[name] = f"{name} is gone"
            continue
        if there != size:
            unit = "files" if name.endswith("/") else "bytes"
            found[name] = f"{name} has {there} {unit}, {size} were written"
    return found


def _is_of_result(name: str) -> bool:
    return name not in NOTES and not name.startswith(NOT_RESULTS) and not name.endswith(DAMAGED)


def _count(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if not path.name.startswith("."))


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.count("/") == 1
