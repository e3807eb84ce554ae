"""The filled box as a mask: the floor every labeler must leave behind."""

import math

import numpy as np

from mal.data.mask_windows import MaskWindow


def masks(pixels: np.ndarray, boxes: np.ndarray) -> list[MaskWindow]:
    """Fill each box.

    A box covers the pixel columns int(x) … ceil(x + w) − 1 and likewise the rows, clipped to the image: every pixel
    it touches. Other rasterisations move the mean IoU against human masks by up to .04, so this one is the
    suite's only one.

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


def pixel_edges(box: np.ndarray, *, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels inside the image that a box xywh touches; right and bottom exclusive."""
    x, y, w, h = map(float, box)
    left, right = (min(max(int(edge), 0), width) for edge in (x, math.ceil(x + w)))
    top, bottom = (min(max(int(edge), 0), height) for edge in (y, math.ceil(y + h)))
    return left, top, right, bottom
