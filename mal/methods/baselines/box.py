"""The filled box as a mask: the floor every labeler must leave behind."""

import numpy as np

from mal.data.boxes import pixel_edges
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
    filled = []
    for box in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        left, top, right, bottom = pixel_edges(box, height=height, width=width)
        filled.append(MaskWindow(np.ones((bottom - top, right - left), dtype=bool), left, top))
    return filled
