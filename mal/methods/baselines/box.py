"""The filled box as a mask: the floor every labeler must leave behind."""

import numpy as np

from mal.data.box_masks import box_window
from mal.data.mask_windows import MaskWindow


def masks(pixels: np.ndarray, boxes: np.ndarray) -> list[MaskWindow]:
    """Fill each box.

    A box covers the pixel columns int(x) … ceil(x + w) − 1 and likewise the rows, clipped to the image: every pixel
    it touches (`boxes.pixel_edges`).

    Args:
        pixels: (H, W, 3) uint8 RGB; only its shape matters here.
        boxes: (N, 4) xywh, float pixels; they may reach beyond the image.

    Returns:
        N masks; empty where a box lies outside the image.
    """
    height, width = pixels.shape[:2]
    filled = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return [box_window(box, height=height, width=width) for box in filled]
