"""The ellipse inscribed in the box as a mask: a labeler that does not beat it has learned nothing."""

import numpy as np

from mal.data.box_masks import ellipse_window
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
    filled = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return [ellipse_window(box, height=height, width=width) for box in filled]
