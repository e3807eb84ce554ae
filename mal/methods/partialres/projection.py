"""How far a predicted mask's extent is from the object's given box, which tells good pseudo masks from bad ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mal.data.box_masks import box_window, ellipse_window

Box = Sequence[float]  # xywh, pixels of the image


def distance(mask: NDArray[np.bool_], box: Box) -> float:
    """d = Σ over both axes of 1 − 2 Σ p·b / (Σ p² + Σ b² + 10⁻⁵).

    p is the mask's projection on the axis, 1 where it has a pixel in that column (row); b is the box's, 1 from int(x)
    to int(x) + int(w) − 1, likewise for rows. It tests extent and not shape: a filled box has d = 0.

    Args:
        mask: (H, W) of the image. box: inside the image or not; what is outside does not count.

    Returns:
        in [0, 2]: 2 where the mask is empty.
    """
    total = 0.0
    for axis in (0, 1):
        inside = np.asarray(mask.any(axis=axis))
        given = np.zeros(inside.shape, dtype=bool)
        first = int(box[axis])
        given[max(first, 0) : max(first + int(box[axis + 2]), 0)] = True
        common, both = np.count_nonzero(inside & given), np.count_nonzero(inside) + np.count_nonzero(given)
        total += 1 - 2 * common / (both + 1e-5)
    return total


def filled_box(box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels that a box touches, as a mask of an image (height, width)."""
    return box_window(box, height=size[0], width=size[1]).pasted(*size)


def filled_ellipse(box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels with their centre in the ellipse inscribed in a box, as a mask of an image (height, width)."""
    if not box[2] > 0 < box[3]:
        return np.zeros(size, dtype=bool)
    return ellipse_window(box, height=size[0], width=size[1]).pasted(*size)
