"""Points → masks, the ways between an image and the square that it is letterboxed into, and what sequences can reach.

In an image and in the square x goes right and y down, and pixel i covers [i, i + 1). The image lies in the square's
upper left corner, its long side as long as the square's.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mal.data.mask_formats import decode_mask
from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.contours import contour_points
from mal.methods.partialres.sequences import points_of, quantise
from mal.metrics.masks import iou

LEAST = 3  # points of a polygon


def scale(height: int, width: int, side: int) -> float:
    """By which an image of this size is enlarged to fit into the square."""
    return side / max(height, width)


def to_square(points: NDArray[np.float64], height: int, width: int, side: int) -> NDArray[np.float64]:
    """Points (k, 2) xy in pixels of an image → of the square."""
    return points * scale(height, width, side)


def to_image(points: NDArray[np.float64], height: int, width: int, side: int) -> NDArray[np.float64]:
    """Points (k, 2) xy in pixels of the square → of the image; those on the padding lie outside of it."""
    return points / scale(height, width, side)


def mask_of(points: NDArray[np.float64], height: int, width: int, fill: str) -> NDArray[np.bool_]:
    """The filled polygon as a mask (height, width); what lies outside the image is cut off.

    Args:
        points: (k, 2) xy in pixels of the image; fewer than three are an empty mask.
        fill: `contour`: the pixels in which the points lie are corners, and what OpenCV draws between them belongs to
            the mask, as the contour of a mask does. `coco`: COCO's rasteriser, which takes the columns and rows of
            these pixels as places in the plane (R).
    """
    if len(points) < LEAST:
        return np.zeros((height, width), dtype=bool)
    if fill == "coco":
        corners = (points - 0.5).ravel().tolist()  # of pixels, from their centres
        counts = rle.merge(rle.frPyObjects([corners], height, width))["counts"].decode("ascii")
        return decode_mask({"size": [height, width], "counts": counts}, height=height, width=width)
    canvas = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(canvas, [np.floor(points).astype(np.int32)], 1)
    return canvas.astype(bool)


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
