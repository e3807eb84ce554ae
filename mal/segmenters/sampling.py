"""Which images an epoch shows, and in which batches.

Repeat factors show images of rare categories more often (Gupta et al., "LVIS", CVPR 2019). Aspect groups put wide
images into batches of their own, as MMDetection and detectron2 do.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mal.engine.runtime import numpy_generator


def repeat_factors(
    categories: Sequence[Collection[int]], *, threshold: float, rounding: str = "random"
) -> NDArray[np.float64]:
    """How often an epoch shows each image, on average: r_i = max over its categories c of max(1, sqrt(t / f_c)).

    Args:
        categories: of each image, those that have an object there; at least one.
        threshold: t. A category that is on a larger share f_c of the images is not repeated.
        rounding: random leaves that to `copies`, anew for every epoch, as detectron2 does; up rounds here, so that all
            epochs are alike and longer, as MMDetection does (ClassBalancedDataset): 1.01 becomes 2.

    Returns:
        (N,) >= 1; whole where they are rounded up, else seldom.
    """
    images_with = Counter(category for here in categories for category in set(here))
    factor = {
        category: max(1.0, math.sqrt(threshold * len(categories) / count)) for category, count in images_with.items()
    }
    found = np.array([max(factor[category] for category in here) for here in categories], dtype=np.float64)
    return np.ceil(found) if rounding == "up" else found


def copies(factors: NDArray[np.float64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """How often an epoch shows each image: its factor rounded up with a chance of its fraction, else down.

    Drawn anew for every epoch, from (seed, epoch) alone; whole factors stay as they are.
    """
    whole = np.floor(factors)
    up = numpy_generator(seed, "segmenter repeats", epoch).random(len(factors)) < factors - whole
    return whole.astype(np.int64) + up


def by_aspect(
    tall: NDArray[np.bool_], *, first: int, batch: int, mostly_tall: bool, generator: np.random.Generator
) -> NDArray[np.int64]:
    """An order of an epoch's images in which those of a batch are wide or tall alike, but for one batch at most.

    The batches before and after the epoch's own, which it shares with its neighbours, take the common kind. Batches
    come in random order, images of a kind in the order given; in the one mixed batch kinds do not alternate, so that
    few of the processes that share it get both.

    Args:
        tall: (N,) of the epoch's images, in random order.
        first: position of the epoch's first image in the run; batches begin at multiples of `batch`.
        batch: images per step.
        mostly_tall: which kind is the common one, the same in every epoch.
        generator: shuffles the batches.

    Returns:
        (N,) a permutation of 0 … N − 1.
    """
    common = tall if mostly_tall else ~tall
    sorted_ = np.argsort(~common, kind="stable")  # the common kind first
    before = min(-first % batch, len(tall))
    after = (len(tall) - before) % batch
    head, tail, inner = np.split(sorted_, [before, before + after])
    batches = inner.reshape(-1, batch)
    return np.concatenate([head, generator.permutation(batches).reshape(-1), tail])
