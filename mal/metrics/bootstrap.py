"""How far a retention may be off: AP from match arrays under resampling of the images, and intervals from it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal.errors import MalError
from mal.metrics.matches import AREAS, IGNORED, TRUE, MatchArrays

RECALLS = np.linspace(0, 1, 101)
METRICS: dict[str, tuple[str, float | None]] = {  # (area range, IoU threshold or None for the mean over all)
    "ap": ("all", None),
    "ap50": ("all", 0.5),
    "ap75": ("all", 0.75),
    "ap_S": ("S", None),
    "ap_M": ("M", None),
    "ap_L": ("L", None),
}
PAIRED = ("image_ids", "category_ids", "gt_image", "gt_category", "gt_counted")  # alike where APs can be compared
RESAMPLES_AT_ONCE = 100  # bounds the working memory to this many × detections of a category


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its 95 % interval. NaN: undefined; infinity: the data set no limit."""

    value: float
    low: float
    high: float


def image_weights(images: int, resamples: int, *, seed: int = 0) -> NDArray[np.int64]:
    """How often each image is drawn, with replacement, in each resample: (resamples, images), rows sum to `images`."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def retention(
    pseudo: MatchArrays, human: MatchArrays, *, resamples: int = 1000, seed: int = 0, metric: str = "ap"
) -> Interval:
    """Box-supervised AP / mask-supervised AP, with a 95 % percentile bootstrap over images.

    Paired: in each resample both APs see the same images, so what makes an image hard for both cancels. Where a
    resample gives the mask-supervised segmenter an AP of zero the ratio could be anything from 0 to infinity, and it
    is counted as 0 for the lower bound and as infinity for the upper one; nothing is dropped.

    Args:
        pseudo, human: matches of the same images and annotations.
        resamples: bootstrap resamples.
        seed: of the resampling.
        metric: a key of `METRICS`.

    Returns:
        The ratio (NaN when the mask-supervised AP is zero) and its bounds.

    Raises:
        MalError: the two do not belong to the same images and categories.
    """
    for name in PAIRED:
        if not np.array_equal(getattr(pseudo, name), getattr(human, name)):
            raise MalError(
                f"the two evaluations differ in {name}: retention needs both measured on the same annotations"
            )
    count = len(human.image_ids)
    weights = np.concatenate([np.ones((1, count), dtype=np.int64), image_weights(count, resamples, seed=seed)])
    above, below = ap_samples(pseudo, weights, metric=metric), ap_samples(human, weights, metric=metric)
    defined = below > 0
    ratios = np.divide(above, below, out=np.full(len(above), math.nan), where=defined)
    # "lower" and "higher" pick a value: between one and infinity, interpolation gives NaN
    low = np.quantile(np.where(defined, ratios, 0.0)[1:], 0.025, method="lower")
    high = np.quantile(np.where(defined, ratios, math.inf)[1:], 0.975, method="higher")
    return Interval(value=float(ratios[0]), low=float(low), high=float(high))


def ap_from_matches(matches: MatchArrays, weights: NDArray[np.int64] | None = None, *, metric: str = "ap") -> float:
    """AP of the images, each counted `weights` times: what COCO's evaluator gives for a set with copies of images.

    Exact but for one thing: copies of an image whose detections tie in score are ranked detection by detection.

    Args:
        matches: see `MatchArrays`.
        weights: (N,) counts, >= 0; None counts every image once.
        metric: a key of `METRICS`.

    Returns:
        AP in [0, 1]; NaN where the counted images hold no object.
    """
    if weights is None:
        weights = np.ones(len(matches.image_ids), dtype=np.int64)
    return float(ap_samples(matches, weights[None], metric=metric)[0])


def ap_samples(matches: MatchArrays, weights: NDArray[np.int64], *, metric: str = "ap") -> NDArray[np.float64]:
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
    matches: MatchArrays,
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
