"""Masks that a box alone gives: filled, and the ellipse inscribed in it."""

from collections.abc import Sequence

import numpy as np

from mal.data.boxes import pixel_edges
from mal.data.mask_windows import MaskWindow


def box_window(box: Sequence[float] | np.ndarray, *, height: int, width: int) -> MaskWindow:
    """The pixels that a box touches (`boxes.pixel_edges`); empty where it lies outside the image.

    Args:
        box: xywh, float pixels; it may reach beyond the image of this height and width.
    """
    left, top, right, bottom = pixel_edges(box, height=height, width=width)
    return MaskWindow(np.ones((bottom - top, right - left), dtype=bool), left, top)


def ellipse_window(box: Sequence[float] | np.ndarray, *, height: int, width: int) -> MaskWindow:
    """The pixels whose centres (column + ½, row + ½) lie in the ellipse inscribed in a box, border included.

    Args:
        box: xywh, float pixels, w and h positive; it may reach beyond the image of this height and width.
    """
    left, top, right, bottom = pixel_edges(box, height=height, width=width)  # no pixel beyond has its centre inside
    x, y, w, h = box
    across = ((np.arange(left, right) + 0.5 - (x + w / 2)) / (w / 2)) ** 2
    down = ((np.arange(top, bottom) + 0.5 - (y + h / 2)) / (h / 2)) ** 2
    return MaskWindow(down[:, None] + across[None, :] <= 1, left, top)
