"""How far a retention may be off: AP from match arrays under resampling of the images, and intervals from it."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.ap import METRICS, ap_from_matches, ap_samples
from mal.errors import MalError
from mal.metrics.matches import MatchArrays

__all__ = ["METRICS", "Interval", "ap_from_matches", "ap_samples", "retention"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its 95 % interval. NaN: undefined; infinity: no upper bound."""

    value: float
    low: float
    high: float


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
    for name in ("image_ids", "category_ids", "gt_image", "gt_category", "gt_counted"):
        if not np.array_equal(getattr(pseudo, name), getattr(human, name)):
            raise MalError(
                f"the two evaluations differ in {name}: retention needs both measured on the same annotations"
            )
    count = len(human.image_ids)
    uniform = np.full(count, 1 / count)
    weights = np.random.default_rng(seed).multinomial(count, uniform, size=resamples)
    weights = np.concatenate([np.ones((1, count), dtype=np.int64), weights])
    above, below = ap_samples(pseudo, weights, metric=metric), ap_samples(human, weights, metric=metric)
    defined = below > 0
    ratios = np.divide(above, below, out=np.full(len(above), math.nan), where=defined)
    # "lower" and "higher" pick a value: between one and infinity, interpolation gives NaN
    low = np.quantile(np.where(defined, ratios, 0.0)[1:], 0.025, method="lower")
    high = np.quantile(np.where(defined, ratios, math.inf)[1:], 0.975, method="higher")
    return Interval(value=float(ratios[0]), low=float(low), high=float(high))
