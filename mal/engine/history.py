"""How long stages took before, and so how long a run or a sweep will take."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mal.engine.graph import Stage
from mal.engine.store import Store
from mal.errors import MalError

# The columns that decide how long a stage takes: a segmenter does not mind who made its masks.
ALIKE = {
    "train_segmenter": ("profile", "data", "segmenter"),
    "detect_val": ("profile", "data", "segmenter"),
    "predictions_test": ("profile", "data", "segmenter"),
    "ap_val": ("profile", "data"),
    "retention": ("profile", "data"),
    "quality_train": ("profile", "data"),
    "quality_val": ("profile", "data"),
}
ALIKE_ELSEWHERE = ("profile", "data", "encoder", "decoder", "labeler", "recipe")
SIZES = (("roi", "size"), ("loss", "stride"), ("crf", "kernel"), ("crf", "iterations"))  # of what a labeler works on
PUBLISHED = Path(__file__).parents[2] / "results" / "published"  # measured on two CPU cores


@dataclass(frozen=True)
class Took:
    """One earlier run of a stage."""

    about: dict[str, object]  # what must be the same for its time to say something
    seconds: float
    steps: int | None  # of a training


class History:
    """The times in some stores' records."""

    def __init__(self, *roots: Path) -> None:
        self._stores = [Store(root) for root in roots]
        self._known: dict[str, list[Took]] = {}

    def seconds(self, stage: Stage, *, processes: int, gpu: bool) -> tuple[float, int] | None:
        """The median of earlier runs of the same kind, and how many there are; None without any.

        Alike are those with the same columns as `ALIKE` says and the same `SIZES`, on as many processes and the same
        kind of device. Where the trainings differ in their number of steps, their times are scaled by it.
        """
        like = _about(stage.name, stage.columns, stage.config, processes=processes, gpu=gpu)
        steps = _steps(stage.config)
        found = [
            took.seconds * (steps / took.steps if steps and took.steps else 1)
            for took in self._of(stage.name)
            if took.about == like
        ]
        return (median(found), len(found)) if found else None

    def _of(self, name: str) -> list[Took]:
        if name not in self._known:
            folders = ((s, folder) for s in self._stores for folder in sorted((s.root / name).glob("*/")))
            records = [record for store, folder in folders if (record := _record(store, name, folder.name))]
            self._known[name] = [_took(record) for record in records]
        return self._known[name]


def _record(store: Store, name: str, key: str) -> dict[str, Any] | None:
    """The record of a finished stage, where it says how long that took; a damaged one says nothing."""
    with suppress(MalError):
        if store.is_recorded(name, key) and "seconds" in (record := store.read(name, key)):
            return {"stage": name, **record}
    return None


def outlook(stages: Iterable[Stage], store: Store, *, processes: int = 1, gpu: bool = False) -> str:
    """What there is to do, in words, and how long it takes by the times of earlier runs here or of those published.

    Args:
        stages: of one run or of a sweep's rows; one that several rows share counts once.
        processes: that share the work. gpu: whether it is done on one.
    """
    everything = set(stages)
    todo = [stage for stage in everything if not store.is_done(stage.name, stage.key)]
    said = f"{len(everything)} stages, {len(everything) - len(todo)} of them done"
    if not todo:
        return said
    history, elsewhere = History(store.root), History(PUBLISHED)
    total, borrowed, unknown = 0.0, False, 0
    for stage in todo:
        found = history.seconds(stage, processes=processes, gpu=gpu)
        if found is None:
            found = elsewhere.seconds(stage, processes=processes, gpu=gpu)
            borrowed |= found is not None
        unknown += found is None
        total += 0 if found is None else found[0]
    if unknown == len(todo):
        return f"{said}; how long the rest takes, no earlier run tells"
    basis = "earlier runs, some of them on another machine" if borrowed else "earlier runs"
    missing = f", without {unknown} stage{'s' if unknown > 1 else ''} of kinds never run before" if unknown else ""
    return f"{said}; the rest takes about {in_words(total)} by {basis}{missing}"


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _took(record: dict[str, Any]) -> Took:
    hardware = (record.get("provenance") or {}).get("hardware") or {}
    processes, gpu = record.get("processes", 1), hardware.get("gpu") is not None
    columns, config = record.get("columns") or {}, record.get("config") or {}
    about = _about(record["stage"], columns, config, processes=processes, gpu=gpu)
    return Took(about, float(record["seconds"]), _steps(config))


def _about(
    name: str, columns: dict[str, Any], config: dict[str, Any], *, processes: int, gpu: bool
) -> dict[str, object]:
    found = {column: columns.get(column) for column in ALIKE.get(name, ALIKE_ELSEWHERE)}
    sizes = {f"{part}.{key}": (config.get(part) or {}).get(key) for part, key in SIZES}
    return found | sizes | {"processes": processes, "gpu": gpu}


def _steps(config: dict[str, Any]) -> int | None:
    """The length of a training in steps, where it is set so."""
    plan = config.get("train") or (config.get("segmenter") or {}).get("schedule") or {}
    return plan.get("steps")
