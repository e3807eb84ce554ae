"""Repeat-factor sampling: images of rare categories are seen more often (Gupta et al., "LVIS", CVPR 2019)."""

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mal.runtime import numpy_generator


def repeat_factors(categories: Sequence[Collection[int]], *, threshold: float) -> NDArray[np.float64]:
    """How often an epoch shows each image, on average: r_i = max over its categories c of max(1, sqrt(t / f_c)).

    Args:
        categories: of each image, those that have an object there; at least one.
        threshold: t. A category that is on a larger share f_c of the images is not repeated.

    Returns:
        (N,) >= 1, seldom whole; `copies` rounds them.
    """
    images_with = Counter(category for here in categories for category in set(here))
    factor = {
        category: max(1.0, math.sqrt(threshold * len(categories) / count)) for category, count in images_with.items()
    }
    return np.array([max(factor[category] for category in here) for here in categories], dtype=np.float64)


def copies(factors: NDArray[np.float64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """How often an epoch shows each image: its factor rounded up with a chance of its fraction, else down.

    Drawn anew for every epoch (as detectron2 does; MMDetection rounds up, always), from (seed, epoch) alone.
    """
    whole = np.floor(factors)
    up = numpy_generator(seed, "segmenter repeats", epoch).random(len(factors)) < factors - whole
    return whole.astype(np.int64) + up
