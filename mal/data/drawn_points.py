"""Points drawn from human masks, by the protocols of the papers: what an annotator who clicks on an object would give.

Where a point is drawn at random it follows from the ids of its image and annotation alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mal.data.mask_windows import MaskWindow, decode_window
from mal.data.own_points import Point
from mal.errors import AnnotationError

Box = list[float]  # x, y, width, height
SPREAD = 0.25  # of quasi-centre points: the Gauss's standard deviation as a share of the box's side
CENTRAL, LARGEST = 0.125, 96.0  # … and the semi-axis of the ellipse they lie in: a share of the side, at most pixels


def drawn_point(annotation: dict[str, Any], kind: str, *, height: int, width: int) -> Point | None:
    """The point of an object by a protocol; None where `quasi_centre` has none for it.

    Args:
        annotation: with a `bbox`, and, but for `box_centre`, a `segmentation`.
        kind: of `PROTOCOLS`.
        height, width: of its image.

    Raises:
        AnnotationError: the mask is empty or cannot be read.
    """
    box = annotation["bbox"]
    if kind == "box_centre":
        x, y = _centre(box)  # boxes may stick out of their images by a pixel
        return min(max(x, 0.0), width - 0.5), min(max(y, 0.0), height - 0.5)
    window = decode_window(annotation["segmentation"], height=height, width=width)
    if not window.mask.size:
        raise AnnotationError("no point can be drawn from an empty mask; correct it, or give the point")
    from mal.engine.runtime import numpy_generator  # torch comes with it, which who reads files need not wait for

    rng = numpy_generator("points", kind, annotation["image_id"], annotation["id"])
    return PROTOCOLS[kind](window, box, rng)


def inside(window: MaskWindow, box: Box, _: np.random.Generator) -> Point:
    """The centre of the box (xywh), or where the mask does not cover it the centre of the nearest pixel of the mask."""
    x, y = _centre(box)
    columns, rows = _pixels(window)
    if ((rows == int(y)) & (columns == int(x))).any():
        return x, y
    nearest = int(np.argmin((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2))
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def centroid(window: MaskWindow, _: Box, __: np.random.Generator) -> Point:
    """The mean of the mask's pixel centres, which a concave mask need not cover."""
    columns, rows = _pixels(window)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def uniform(window: MaskWindow, _: Box, rng: np.random.Generator) -> Point:
    """Any place of the mask, each as likely."""
    columns, rows = _pixels(window)
    return _within(columns, rows, int(rng.integers(len(rows))), rng)


def quasi_centre(window: MaskWindow, box: Box, rng: np.random.Generator) -> Point | None:
    """A place of the mask near the centre of its box, as people click; None where the mask has none so near.

    Pixels are drawn by a Gauss around the centre of the box (xywh), of standard deviation `SPREAD` × its width and
    height, among those whose centres lie in the ellipse of semi-axes `CENTRAL` × its width and height, at most
    `LARGEST`; and any place of the pixel (Chen et al., "Point-to-Box Network", ECCV 2022, quasi-centre points).
    """
    columns, rows = _pixels(window)
    away = np.stack([columns + 0.5, rows + 0.5], axis=1) - _centre(box)
    side = np.maximum(np.array(box[2:], dtype=np.float64), 1e-9)
    near = ((away / np.minimum(CENTRAL * side, LARGEST)) ** 2).sum(axis=1) <= 1
    if not near.any():
        return None
    weight = np.exp(-((away / (SPREAD * side)) ** 2).sum(axis=1) / 2) * near
    return _within(columns, rows, int(rng.choice(len(weight), p=weight / weight.sum())), rng)


PROTOCOLS: dict[str, Callable[[MaskWindow, Box, np.random.Generator], Point | None]] = {
    "inside": inside,
    "centroid": centroid,
    "uniform": uniform,
    "quasi_centre": quasi_centre,
}


def _centre(box: Box) -> Point:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def _pixels(window: MaskWindow) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of a mask's pixels in its image."""
    rows, columns = np.nonzero(window.mask)
    return columns + window.left, rows + window.top


def _within(columns: np.ndarray, rows: np.ndarray, index: int, rng: np.random.Generator) -> Point:
    """Any place of a pixel; in single precision the sum stays below the next pixel."""
    x, y = rng.random(2, dtype=np.float32)
    return float(columns[index]) + float(x), float(rows[index]) + float(y)
