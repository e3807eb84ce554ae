"""The ellipse inscribed in the box as a mask: a labeler that does not beat it has learned nothing."""

import numpy as np


def masks(pixels: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """Fill the ellipse inscribed in each box.

    A pixel belongs to it if its centre (column + ½, row + ½) lies in the ellipse of the real-valued box, border
    included.

    Args:
        pixels: (H, W, 3) uint8 RGB; only its shape matters here.
        boxes: (N, 4) xywh, float pixels; they may reach beyond the image.

    Returns:
        N bool masks (H, W). A box inside the image and wider and higher than √2 pixels never gets an empty one.
    """
    height, width = pixels.shape[:2]
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    filled = []
    for x, y, w, h in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        across = ((columns - (x + w / 2)) / (w / 2)) ** 2
        down = ((rows - (y + h / 2)) / (h / 2)) ** 2
        filled.append(down[:, None] + across[None, :] <= 1)
    return filled
