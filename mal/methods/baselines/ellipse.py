"""The ellipse inscribed in the box as a mask: a labeler that does not beat it has learned nothing."""

import numpy as np

from mal.data.boxes import pixel_edges
from mal.data.mask_windows import MaskWindow


def masks(pixels: np.ndarray, boxes: np.ndarray) -> list[MaskWindow]:
    """Fill the ellipse inscribed in each box.

    A pixel belongs to it if its centre (column + ½, row + ½) lies in the ellipse of the real-valued box, border
    included.

    Args:
        pixels: (H, W, 3) uint8 RGB; only its shape matters here.
        boxes: (N, 4) xywh, float pixels; they may reach beyond the image.

    Returns:
        N masks. A box inside the image and wider and higher than √2 pixels never gets an empty one.
    """
    height, width = pixels.shape[:2]
    filled = []
    for box in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        left, top, right, bottom = pixel_edges(box, height=height, width=width)  # no pixel beyond has its centre inside
        x, y, w, h = box
        across = ((np.arange(left, right) + 0.5 - (x + w / 2)) / (w / 2)) ** 2
        down = ((np.arange(top, bottom) + 0.5 - (y + h / 2)) / (h / 2)) ** 2
        filled.append(MaskWindow(down[:, None] + across[None, :] <= 1, left, top))
    return filled
