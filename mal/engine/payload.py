"""What a stage's files say, in a tracking server's terms: params, tags, metrics and points of curves.

No server and no mlflow here. The limits are MLflow's (mlflow.utils.validation); what exceeds them is cut, because the
whole of it is in run.json, which is sent along as an artifact.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

PARAM_LENGTH = 6000
TAG_LENGTH = 8000
NAME_LENGTH = 250
CURVE = "curve/"  # before the names of what curves.jsonl holds

_NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")


@dataclass(frozen=True)
class Point:
    """One value of one metric. Its time is fixed by the files, so that sending it twice stores it once."""

    name: str
    value: float
    step: int
    milliseconds: int  # since 1970


def params(record: dict[str, Any]) -> dict[str, str]:
    """The config, flattened to dotted names."""
    return {name(key): _cut(_text(value), PARAM_LENGTH) for key, value in flatten(record.get("config") or {})}


def tags(stage: str, key: str, record: dict[str, Any]) -> dict[str, str]:
    """What one filters runs by: stage, key, commit, the columns of the tidy table, the results it started from."""
    provenance = record.get("provenance") or {}
    found = {
        "stage": stage,
        "key": key,
        "version": record.get("version"),
        "commit": provenance.get("commit"),
        "diff": provenance.get("diff"),
        "mlflow.source.git.commit": provenance.get("commit"),
        **(record.get("columns") or {}),
        **{f"input.{role}": source for role, source in (record.get("inputs") or {}).items()},
    }
    return {name(tag): _cut(_text(value), TAG_LENGTH) for tag, value in found.items() if value is not None}


def final_metrics(record: dict[str, Any], *, milliseconds: int) -> list[Point]:
    """The results: `iou` and, as `iou.n`, the count it was taken over; seconds and memory."""
    found: dict[str, Any] = {}
    for metric, entry in (record.get("metrics") or {}).items():
        found[metric], found[f"{metric}.n"] = entry.get("value"), entry.get("n")
    found["seconds"] = record.get("seconds")
    found.update(flatten({"memory": record.get("memory") or {}}))
    return [Point(name(key), float(value), 0, milliseconds) for key, value in found.items() if _is_number(value)]


def curve_points(line: str, *, milliseconds: int) -> list[Point] | None:
    """The points of one line of curves.jsonl: every number in it but `step` and `time`.

    Args:
        line: `{"step": 10, "time": 1763689000.5, "loss": 0.5}`; `time`, in seconds since 1970, may be absent.
        milliseconds: the time of a line that has none.

    Returns:
        None for a line that cannot be read, such as one that a kill cut short and the resumed run wrote on behind.
    """
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        return None
    if _is_number(values.get("time")) and math.isfinite(values["time"]):
        milliseconds = round(values["time"] * 1000)
    return [
        Point(name(f"{CURVE}{key}"), float(value), values["step"], milliseconds)
        for key, value in values.items()
        if key not in ("step", "time") and _is_number(value)
    ]


def lines_there(lines: list[str], last_steps: dict[str, int]) -> int:
    """How many of the first lines of curves.jsonl a server has, by the last step that it has of each curve."""
    for number, line in enumerate(lines):
        points = curve_points(line, milliseconds=0) or []
        if any(point.step > last_steps.get(point.name, -1) for point in points):
            return number
    return len(lines)


def complete_lines(path: Path) -> list[str]:
    """The lines of a file that is being appended to, without a last one that is still being written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def milliseconds(moment: Any) -> int | None:
    """An ISO date and time in milliseconds since 1970; None for anything else."""
    try:
        return round(datetime.fromisoformat(moment).timestamp() * 1000)
    except (TypeError, ValueError):
        return None


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `("a.b", 1)`; lists and empty dicts stay whole."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def name(text: str) -> str:
    """A name MLflow accepts: letters, digits, `_ - . / :` and blanks."""
    return _NOT_IN_NAMES.sub("_", text)[:NAME_LENGTH]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
