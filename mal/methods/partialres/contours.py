"""Masks → contours → a few points of them, in the order in which a sequence names them."""

import cv2
import numpy as np
from numpy.typing import NDArray


def outer_contour(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """All pixels of a mask's largest outer contour, one after another.

    The largest encloses the most; holes and other parts are left out. Pixels that touch at a corner belong to one part.
    OpenCV's order: from the leftmost pixel of the topmost row on, anticlockwise as one sees it on the screen. A part as
    thin as a pixel is walked there and back.

    Args:
        mask: (H, W).

    Returns:
        (n, 2) column and row of each; n = 0 where the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2), dtype=np.int64)
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    found, _ = cv2.findContours(window.astype(np.uint8, order="C"), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(found, key=lambda contour: (cv2.contourArea(contour), len(contour)))
    return largest[:, 0].astype(np.int64) + np.array([columns[0], rows[0]])


def sample(contour: NDArray[np.int64], count: int, how: str) -> NDArray[np.float64]:
    """Points of a contour, in its order, the first pixel first.

    Args:
        contour: (n, 2) pixels, as `outer_contour` gives them.
        count: N, how many at most.
        how: `arc`: N points equal in arc length along the closed line through the pixels' centres. `pixels`: every
            ⌈n/N⌉-th pixel, which are ⌈n/⌈n/N⌉⌉ of them: for n = N + 1 about half of N (R).

    Returns:
        (k, 2) x and y in the mask's pixels, where pixel i covers [i, i + 1); k = 0 where the contour is empty.
    """
    centres = contour.astype(np.float64) + 0.5
    if not len(contour):
        return centres
    if how == "pixels":
        return centres[:: -(-len(contour) // count)]
    closed = np.concatenate([centres, centres[:1]])
    along = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    places = np.arange(count) * along[-1] / count
    return np.stack([np.interp(places, along, axis) for axis in closed.T], axis=1)


def contour_points(mask: NDArray[np.bool_], count: int, how: str) -> NDArray[np.float64]:
    """(k, 2) points of a mask's largest outer contour: `sample` of `outer_contour`."""
    return sample(outer_contour(mask), count, how)
