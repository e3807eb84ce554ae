"""Average precision from the match arrays (matches_segm.npz, matches_bbox.npz) of a finished evaluation.

No mask and no IoU is needed again, so AP is cheap for any resampling of the images.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from analysis.records import UnreadableRecordError

AREAS = {"all": (0.0, 1e10), "S": (0.0, 32.0**2), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e10)}
TRUE, FALSE, IGNORED = 1, 0, -1
RECALLS = np.linspace(0, 1, 101)
METRICS: dict[str, tuple[str, float | None]] = {  # (area range, IoU threshold or None for the mean over all)
    "ap": ("all", None),
    "ap50": ("all", 0.5),
    "ap75": ("all", 0.75),
    "ap_S": ("S", None),
    "ap_M": ("M", None),
    "ap_L": ("L", None),
}
RESAMPLES_AT_ONCE = 100  # bounds the working memory to this many × detections of a category


@dataclass(frozen=True)
class Matches:
    """The matches of one set of detections with one set of objects, at each area range of `AREAS` and each threshold.

    D detections lie by category, then image, then falling score; G objects in any order. A = len(AREAS).
    """

    image_ids: NDArray[np.int64]  # (N,), rising
    category_ids: NDArray[np.int64]  # (K,), rising
    thresholds: NDArray[np.float64]  # (T,) IoU
    det_image: NDArray[np.int64]  # (D,) index into image_ids
    det_category: NDArray[np.int64]  # (D,) index into category_ids
    det_score: NDArray[np.float64]  # (D,)
    det_state: NDArray[np.int8]  # (A, T, D): TRUE, FALSE or IGNORED (matches a crowd, is of another size, …)
    gt_image: NDArray[np.int64]  # (G,)
    gt_category: NDArray[np.int64]  # (G,)
    gt_counted: NDArray[np.bool_]  # (A, G): not a crowd, and of this size


def load_matches(path: Path) -> Matches:
    """Read the arrays that an ap_val stage saved.

    Raises:
        UnreadableRecordError: the file is absent or holds something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Matches(**{field.name: arrays[field.name] for field in fields(Matches)})
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UnreadableRecordError(f"{path} holds no match arrays ({error}); evaluate again to write them") from error


def ap_from_matches(matches: Matches, weights: NDArray[np.int64] | None = None, *, metric: str = "ap") -> float:
    """AP of the images, each counted `weights` times: what COCO's evaluator gives for a set with copies of images.

    Exact but for one thing: copies of an image whose detections tie in score are ranked detection by detection.

    Args:
        matches: see `Matches`.
        weights: (N,) counts, >= 0; None counts every image once.
        metric: a key of `METRICS`.

    Returns:
        AP in [0, 1]; NaN where the counted images hold no object.
    """
    if weights is None:
        weights = np.ones(len(matches.image_ids), dtype=np.int64)
    return float(ap_samples(matches, weights[None], metric=metric)[0])


def ap_samples(matches: Matches, weights: NDArray[np.int64], *, metric: str = "ap") -> NDArray[np.float64]:
    """AP for each row of image counts `weights` (R, N); see `ap_from_matches`. Returns (R,)."""
    area_name, threshold = METRICS[metric]
    area = list(AREAS).index(area_name)
    columns = list(range(len(matches.thresholds)))
    if threshold is not None:
        columns = [int(np.flatnonzero(np.isclose(matches.thresholds, threshold))[0])]
    weights = weights.astype(np.int32)
    total, present = np.zeros(len(weights)), np.zeros(len(weights), dtype=np.int64)
    for category in range(len(matches.category_ids)):
        counted = matches.gt_counted[area] & (matches.gt_category == category)
        objects = weights[:, matches.gt_image[counted]].sum(axis=1)
        has_objects = objects > 0
        if not has_objects.any():
            continue
        present += has_objects
        total[has_objects] += _category_ap(matches, weights[has_objects], objects[has_objects], category, area, columns)
    with np.errstate(invalid="ignore"):
        return np.where(present > 0, total / np.maximum(present, 1), math.nan)


def _category_ap(
    matches: Matches,
    weights: NDArray[np.int32],
    objects: NDArray[np.int64],
    category: int,
    area: int,
    columns: list[int],
) -> NDArray[np.float64]:
    """Mean over thresholds of one category's AP, (R,) for `weights` (R, N) and positive object counts (R,)."""
    chosen = np.flatnonzero(matches.det_category == category)
    chosen = chosen[np.argsort(-matches.det_score[chosen], kind="stable")]
    states = matches.det_state[area][:, chosen]
    images = matches.det_image[chosen]
    result = np.zeros(len(weights))
    for start in range(0, len(weights), RESAMPLES_AT_ONCE):
        rows = slice(start, start + RESAMPLES_AT_ONCE)
        counts = weights[rows][:, images]
        ranks = np.cumsum(counts, axis=1, dtype=np.int32)
        for column in columns:
            result[rows] += _interpolated(counts, ranks, states[column], objects[rows])
    return result / len(columns)


def _interpolated(
    counts: NDArray[np.int32], ranks: NDArray[np.int32], states: NDArray[np.int8], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """101-point interpolated AP of (R,) resamples.

    Args: counts (R, D) by falling score; ranks (R, D), their sums so far; states (D,); objects (R,).

    Recall rises, and precision peaks, only where a detection is true, so the rest of the curve is not looked at: the
    time goes with the true and the ignored detections, which are few, not with all.
    """
    true, ignored = np.flatnonzero(states == TRUE), np.flatnonzero(states == IGNORED)
    if not len(true):
        return np.zeros(len(counts))
    passed = np.zeros((len(counts), len(ignored) + 1), dtype=np.int32)
    np.cumsum(counts[:, ignored], axis=1, out=passed[:, 1:])
    detected = ranks[:, true] - passed[:, np.searchsorted(ignored, true)]
    found = np.cumsum(counts[:, true], axis=1)
    recall = found / objects[:, None]
    precision = found / (detected + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    return (envelope * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
