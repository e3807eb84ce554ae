"""Masks and boxes of referring expressions measured: IoU per expression, what is made of it, intervals over images."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mal.engine.files import atomic_write
from mal.errors import MalError
from mal.metrics.bootstrap import Interval, image_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of Pr@k
LOCATED = 0.5  # IoU of a box that counts as found


@dataclass(frozen=True)
class Scores:
    """What the predictions of some expressions have in common with what they mean; one entry per expression.

    Attributes:
        ids: of the objects meant, (n,). image_ids: of their images, (n,).
        intersection, union: areas in pixels of the image, (n,); of masks whole numbers.
    """

    ids: Ints
    image_ids: Ints
    intersection: Floats
    union: Floats

    @property
    def iou(self) -> Floats:
        """(n,) in [0, 1]; 0 where both are empty."""
        return np.divide(self.intersection, self.union, out=np.zeros(len(self.union)), where=self.union > 0)


def scores(rows: Sequence[tuple[int, int, float, float]]) -> Scores:
    """Scores from (id, image id, intersection, union) of each expression."""
    ids, image_ids, intersection, union = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Scores(
        np.array(ids, dtype=np.int64),
        np.array(image_ids, dtype=np.int64),
        np.array(intersection, dtype=np.float64),
        np.array(union, dtype=np.float64),
    )


def write_scores(path: str | Path, found: Scores, **more: np.ndarray) -> None:
    """An `iou.npz` of scores: `ids`, `image_ids`, `intersection`, `union`, `iou`, and other arrays of n entries."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **_arrays(found), **more)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getvalue())


def _arrays(found: Scores) -> dict[str, np.ndarray]:
    return {
        "ids": found.ids,
        "image_ids": found.image_ids,
        "intersection": found.intersection,
        "union": found.union,
        "iou": found.iou,
    }


# One prediction


def mask_overlap(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Pixels of the intersection and of the union of two bool masks (H, W)."""
    return int(np.count_nonzero(predicted & truth)), int(np.count_nonzero(predicted | truth))


def box_overlap(predicted: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Areas of the intersection and of the union of two boxes xywh; a side below 0 counts as 0."""
    first, second = (np.asarray(box, dtype=np.float64) for box in (predicted, truth))
    sides = np.maximum([first[2:], second[2:]], 0)
    stop = np.minimum(first[:2] + sides[0], second[:2] + sides[1])
    common = float(np.maximum(stop - np.maximum(first[:2], second[:2]), 0).prod())
    return common, float(sides.prod(axis=1).sum()) - common


def crowd_iou(predicted: np.ndarray, truth: np.ndarray, *, in_parts: bool) -> float:
    """IoU as R has it: of a truth in several parts, intersection ÷ predicted area, as COCO measures crowds.

    It says nothing of what a prediction leaves out, and so flatters it: a single pixel of the truth has 1.

    Args:
        predicted, truth: bool (H, W). in_parts: see `is_in_parts`.
    """
    common, union = mask_overlap(predicted, truth)
    below = int(np.count_nonzero(predicted)) if in_parts else union
    return common / below if below else 0.0


def is_in_parts(segmentation: Any, truth: np.ndarray) -> bool:
    """Whether a human mask is of several polygons; one of run lengths, of several components.

    Args:
        segmentation: of its annotation. truth: its pixels, bool (H, W).
    """
    if isinstance(segmentation, list):
        return len(segmentation) > 1
    return bool(cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)[0] > 2)  # the ground is one


# All expressions


Parts = Callable[[Scores], tuple[Floats, Floats]]  # → what is summed above and below a measure's fraction, each (n,)


def of_mean(found: Scores) -> tuple[Floats, Floats]:
    """The mean over expressions of their IoU."""
    return found.iou, np.ones(len(found.ids))


def of_overall(found: Scores) -> tuple[Floats, Floats]:
    """ΣI/ΣU over expressions: large objects count more."""
    return found.intersection, found.union


def of_precision(threshold: float) -> Parts:
    """Pr@threshold: the share of expressions whose IoU is at least that; of boxes at `LOCATED`, the accuracy of REC."""

    def parts(found: Scores) -> tuple[Floats, Floats]:
        return (found.iou >= threshold).astype(np.float64), np.ones(len(found.ids))

    return parts


def interval(found: Scores, measure: Parts, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """A measure, in [0, 1], with its 95 % percentile bootstrap over images, each drawn with all of its expressions.

    Args:
        measure: `of_mean`, `of_overall`, `of_precision(threshold)`. resamples, seed: of the bootstrap.

    Raises:
        MalError: there is no expression.
    """
    return _interval(_samples(found, measure, _weights(found, resamples, seed)))


def mask_metrics(found: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """`mean_iou`, `overall_iou` and `pr50` … `pr90` of masks, each with `_low` and `_high`, and how many
    `expressions`."""
    measures: dict[str, Parts] = {"mean_iou": of_mean, "overall_iou": of_overall}
    measures |= {f"pr{round(100 * k)}": of_precision(k) for k in THRESHOLDS}
    return _named(found, measures, resamples, seed)


def box_metrics(found: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """`rec_accuracy` of boxes with `_low` and `_high`, and how many `expressions`."""
    return _named(found, {"rec_accuracy": of_precision(LOCATED)}, resamples, seed)


def _named(found: Scores, measures: Mapping[str, Parts], resamples: int, seed: int) -> dict[str, float]:
    weights = _weights(found, resamples, seed)
    metrics: dict[str, float] = {}
    for name, measure in measures.items():
        one = _interval(_samples(found, measure, weights))
        metrics |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return metrics | {"expressions": len(found.ids)}


def _weights(found: Scores, resamples: int, seed: int) -> Floats:
    """(1 + resamples, n): every expression once, then how often each is drawn with its image."""
    if not len(found.ids):
        raise MalError("there is no expression to measure on; give validation data of which some object has one")
    images, places = np.unique(found.image_ids, return_inverse=True)
    drawn = image_weights(len(images), resamples, seed=seed)[:, places]
    return np.concatenate([np.ones((1, len(found.ids))), drawn])


def _samples(found: Scores, measure: Parts, weights: Floats) -> Floats:
    """The measure for each row of weights, (R,); 0 where nothing is below its fraction."""
    above, below = (weights @ part for part in measure(found))
    return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)


def _interval(samples: Floats) -> Interval:
    low, high = np.quantile(samples[1:], [0.025, 0.975])
    return Interval(float(samples[0]), float(low), float(high))
