"""Semantic segmentation measured: pixels per class, IoU, its mean over classes, and intervals of it over images."""

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mal.data.semantic import IGNORED
from mal.errors import MalError
from mal.metrics.bootstrap import Interval, image_weights

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class ClassCounts(NamedTuple):
    """Pixels per class (…, classes) where the truth is labelled: of both, of the truth, of the prediction."""

    tp: Ints
    gt: Ints
    pred: Ints


@dataclass(frozen=True)
class Measured:
    """What a run's predictions are worth on a split, and which of its classes are asked about."""

    image_ids: Ints  # (images,)
    counts: ClassCounts  # each (images, classes)
    which: tuple[int, ...]  # classes, such as the novel ones


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ClassCounts:
    """Counts of one image: the diagonal, row sums and column sums of its confusion matrix.

    Args:
        truth, predicted: class maps (height, width), values below `classes` or 255. A pixel whose truth is 255 is left
            out; one that is predicted 255 elsewhere is of no class, so it misses the truth's.
        classes: how many there are.

    Raises:
        ValueError: the maps differ in size, or a pixel that counts has another value.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth has {truth.shape} pixels and the prediction {predicted.shape}")
    counted = truth != IGNORED
    true, guessed = truth[counted], predicted[counted]
    if true.size and (true.max() >= classes or guessed[guessed != IGNORED].max(initial=0) >= classes):
        raise ValueError(f"a class map holds a class beyond the {classes} there are")
    tp = np.bincount(true[true == guessed], minlength=classes)
    return ClassCounts(
        tp, np.bincount(true, minlength=classes), np.bincount(guessed[guessed != IGNORED], minlength=classes)
    )


def iou(tp: NDArray, gt: NDArray, pred: NDArray) -> Floats:
    """tp / (gt + pred − tp) of each class, in [0, 1]; NaN for a class without pixels of the truth.

    Args: pixels per class, (…, classes); see `ClassCounts`.
    """
    union = (gt + pred - tp).astype(np.float64)
    return np.divide(tp, union, out=np.full(union.shape, math.nan), where=gt > 0)


def mean_iou(tp: NDArray, gt: NDArray, pred: NDArray, which: Collection[int]) -> Floats:
    """The mean IoU over those of the classes `which` that have pixels of the truth; NaN where none has.

    Args: pixels per class, (…, classes); see `ClassCounts`.

    Returns:
        (…), in [0, 1].
    """
    chosen = sorted({*which})
    found = iou(tp[..., chosen], gt[..., chosen], pred[..., chosen])
    present = ~np.isnan(found)
    number = present.sum(axis=-1)
    total = np.where(present, found, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(total.shape, math.nan), where=number > 0)


def miou_interval(run: Measured, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean IoU over a run's classes `which`, with a 95 % percentile bootstrap over images.

    In each resample counts are summed over the images drawn, and the classes without pixels of the truth among them
    left out. A resample in which no class is left could have any mean: it counts as 0 for the lower bound and as 1 for
    the upper one; nothing is dropped.
    """
    samples = _samples(run, _weights(run, resamples, seed))
    return _interval(samples, lowest=0.0, highest=1.0)


def miou_difference(
    pairs: Sequence[tuple[Measured, Measured]],
    *,
    units: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """How much larger the first run's mean IoU is than the second's, averaged over pairs, with its 95 % interval.

    Paired: in each resample all runs see the same images, so what makes an image hard for all cancels. Of several
    pairs (one for each fold and seed) as many are drawn, with replacement, so that the interval is of what another
    fold or seed may give, too.

    Args:
        pairs: at least one; runs of a pair ask about the same classes.
        units: of which unit each pair is; pairs that are not independent, as splits that share classes, are of one and
            drawn together. None: each is one.
        resamples, seed: see `miou_interval`; a resample without a difference counts as −1 and as 1.

    Raises:
        MalError: the runs are measured on different images or truths, or a pair asks about different classes.
    """
    reference = pairs[0][0]
    for first, second in pairs:
        for run in (first, second):
            if not np.array_equal(run.image_ids, reference.image_ids):
                raise MalError("two runs are measured on different images: a difference needs the same, in one order")
            if not np.array_equal(run.counts.gt, reference.counts.gt):
                raise MalError("two runs are measured on different class maps: a difference needs the same ones")
        if {*first.which} != {*second.which}:
            raise MalError("two runs of a pair are asked about different classes: a difference needs the same ones")
    weights = _weights(reference, resamples, seed)
    each = np.stack([_samples(first, weights) - _samples(second, weights) for first, second in pairs])
    names = range(len(pairs)) if units is None else units
    places = [*dict.fromkeys(names)]
    many = np.concatenate([np.ones((1, len(places))), image_weights(len(places), resamples, seed=seed + 1)])
    drawn = many[:, [places.index(name) for name in names]]
    drawn = drawn / drawn.sum(axis=1, keepdims=True)
    parts = np.where(drawn.T > 0, each * drawn.T, 0.0)
    return _interval(parts.sum(axis=0), lowest=-1.0, highest=1.0)


def _weights(run: Measured, resamples: int, seed: int) -> Ints:
    """(1 + resamples, images): every image once, then how often each is drawn."""
    count = len(run.image_ids)
    return np.concatenate([np.ones((1, count), dtype=np.int64), image_weights(count, resamples, seed=seed)])


def _samples(run: Measured, weights: Ints) -> Floats:
    """Mean IoU for each row of image counts (R, images): (R,)."""
    chosen = sorted({*run.which})
    # as floating point for speed; sums of pixels stay exact below 2^53
    tp, gt, pred = (weights.astype(np.float64) @ part[:, chosen] for part in run.counts)
    return mean_iou(tp, gt, pred, range(len(chosen)))


def _interval(samples: Floats, *, lowest: float, highest: float) -> Interval:
    """The first sample as the estimate, the rest for its bounds."""
    undefined = np.isnan(samples)
    low = np.quantile(np.where(undefined, lowest, samples)[1:], 0.025)
    high = np.quantile(np.where(undefined, highest, samples)[1:], 0.975)
    return Interval(value=float(samples[0]), low=float(low), high=float(high))
