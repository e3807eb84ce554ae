"""The ways between an image and the square that it is letterboxed into, and what sequences can reach.

In an image and in the square x goes right and y down, and pixel i covers [i, i + 1). The image lies in the square's
upper left corner, its long side as long as the square's.
"""

import numpy as np
from numpy.typing import NDArray

from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.contours import contour_points
from mal.methods.partialres.filling import mask_of
from mal.methods.partialres.sequences import points_of, quantise
from mal.metrics.masks import iou


def scale(height: int, width: int, side: int) -> float:
    """By which an image of this size is enlarged to fit into the square."""
    return side / max(height, width)


def to_square(points: NDArray[np.float64], height: int, width: int, side: int) -> NDArray[np.float64]:
    """Points (k, 2) xy in pixels of an image → of the square."""
    return points * scale(height, width, side)


def to_image(points: NDArray[np.float64], height: int, width: int, side: int) -> NDArray[np.float64]:
    """Points (k, 2) xy in pixels of the square → of the image; those on the padding lie outside of it."""
    return points / scale(height, width, side)


def round_trip(mask: NDArray[np.bool_], sequence: SequenceConfig, side: int) -> NDArray[np.bool_]:
    """A mask as its own sequence gives it back: the best that can be predicted."""
    height, width = mask.shape
    found = to_square(contour_points(mask, sequence.points, sequence.sampler), height, width, side)
    tokens = quantise(found, sequence.bins, side)
    points = points_of(tokens, sequence.bins, side, sequence.read_back)
    return mask_of(to_image(points, height, width, side), height, width, sequence.fill)


def ceiling(mask: NDArray[np.bool_], sequence: SequenceConfig, side: int) -> float:
    """IoU of a mask (H, W) with its `round_trip`, which no prediction exceeds but by luck.

    Args:
        side: of the square, in pixels.
    """
    return iou(round_trip(mask, sequence, side), mask)
