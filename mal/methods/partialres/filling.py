"""Points → masks."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mal.data.mask_formats import decode_mask

LEAST = 3  # points of a polygon
DIGITS = 3  # of a coordinate in pixels, behind the point


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
    # a corner of a pixel may be computed a hair before it; files hold as many digits
    cv2.fillPoly(canvas, [np.floor(points.round(DIGITS)).astype(np.int32)], 1)
    return canvas.astype(bool)
