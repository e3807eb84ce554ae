"""Labelled annotations from doubtful to sure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.records import Json, grouped

LIMIT = 5000  # masks in a page: some 25 MB


@dataclass(frozen=True)
class Ranking:
    """The annotations to look at, most doubtful first."""

    annotations: list[Json]
    by: str  # quality | score | file: what orders them
    total: int  # in the file

    def value(self, annotation: Json) -> float | None:
        """What an annotation is ranked by, in [0, 1]; None where it has no such value, or is flagged."""
        return None if annotation.get("flagged") or self.by == "file" else _number(annotation.get(self.by))


def rank(annotations: list[Json], limit: int | None) -> Ranking:
    """The `limit` most doubtful annotations: flagged ones, those without a value, then by value, ascending.

    The value is the predicted IoU (`quality`); where no annotation has one, the `score`; without either the order is
    that of the file. Ties keep it too.
    """
    by = next(
        (key for key in ("quality", "score") if any(_number(a.get(key)) is not None for a in annotations)), "file"
    )
    unsorted = Ranking([], by, len(annotations))

    def doubt(annotation: Json) -> tuple[int, float]:
        if annotation.get("flagged"):
            return 0, 0.0
        value = unsorted.value(annotation)
        return (1, 0.0) if value is None else (2, value)

    return Ranking(sorted(annotations, key=doubt)[:limit], by, len(annotations))


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def covered(annotations: Iterable[Json]) -> dict[Any, float]:
    """Annotation id → the largest share of its box that one smaller box of its image covers, in [0, 1]."""
    found = {}
    for group in grouped(annotations, lambda annotation: annotation["image_id"]).values():
        xywh = np.array([annotation["bbox"] for annotation in group], dtype=np.float64)
        start, stop, areas = xywh[:, :2], xywh[:, :2] + xywh[:, 2:], xywh[:, 2:].prod(axis=1).clip(min=1e-9)
        for row, annotation in enumerate(group):  # box by box: an aerial image has tens of thousands
            common = (np.minimum(stop, stop[row]) - np.maximum(start, start[row])).clip(min=0).prod(axis=1)
            found[annotation["id"]] = float(common[areas < areas[row]].max(initial=0) / areas[row])
    return found
