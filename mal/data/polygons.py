"""Masks → polygons, as annotation tools and YOLO want them."""

import cv2
import numpy as np
from scipy.spatial import cKDTree


def polygons(mask: np.ndarray, *, left: int = 0, top: int = 0) -> list[list[float]]:
    """Outlines of a mask: one flat list x, y, x, y, … per part, in pixels; pixel i covers [i, i + 1).

    An outline runs along pixel edges and holds only its corners, so COCO's rasteriser gives back exactly the mask with
    its holes filled (COCO's polygons cannot express holes). Pixels that touch at a corner belong to one part.

    Args:
        mask: (H, W) bool, of an image or of its part from column `left` and row `top` on.

    Returns:
        Nothing where the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    filled = fill_holes(np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1))
    left, top = left + int(columns[0]), top + int(rows[0])
    nw, ne, sw, se = filled[:-1, :-1], filled[:-1, 1:], filled[1:, :-1], filled[1:, 1:]  # pixels around a grid point
    y, x = np.nonzero(nw ^ ne ^ sw ^ se)
    # where two pixels meet diagonally four edges do, which makes two corners: the left edge's and the right edge's
    pinch_y, pinch_x = np.nonzero((nw == se) & (ne == sw) & (nw != ne))
    falling = nw[pinch_y, pinch_x]  # the outline passes through \ : left and lower edge, right and upper edge
    none, ones = np.zeros(len(y), dtype=bool), np.ones(len(pinch_y), dtype=bool)
    x, y = np.concatenate([x, pinch_x, pinch_x]), np.concatenate([y, pinch_y, pinch_y])
    right = np.concatenate([none, ~ones, ones])
    lower = np.concatenate([none, falling, ~falling])
    # corners of a grid line, in order, are joined in pairs
    across, down = _partners(np.lexsort((right, x, y))), _partners(np.lexsort((lower, y, x)))
    corners, new = np.stack([x + left, y + top], axis=1).tolist(), [True] * len(x)
    outlines: list[list[float]] = []
    for start in range(len(corners)):
        outline, at = [], start
        while new[at]:
            for partner in (across, down):
                new[at] = False
                outline += corners[at]
                at = partner[at]
        if outline:
            outlines.append(outline)
    return outlines


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool and the background that it encloses (from which no way along pixel edges leads out)."""
    canvas = np.pad(mask, 1).astype(np.uint8, order="C")  # OpenCV takes no other order
    cv2.floodFill(canvas, None, (0, 0), 2)
    return canvas[1:-1, 1:-1] != 2


def joined(outlines: list[list[float]]) -> list[float]:
    """One polygon that holds all parts of an object: bridges of no width lead from part to part and back.

    That is how YOLO's one polygon per object is written for objects in several parts (ultralytics/JSON2YOLO,
    `merge_multi_segment`). A rasteriser that counts crossings gives back the same pixels as for the parts.

    Args:
        outlines: at least one, each x, y, x, y, …
    """
    parts = sorted((np.array(outline, dtype=np.float64).reshape(-1, 2) for outline in outlines), key=len, reverse=True)
    whole = parts[0]
    for part in parts[1:]:
        here, there = _nearest(whole, part)
        tour = np.concatenate([part[there:], part[: there + 1]])
        whole = np.concatenate([whole[: here + 1], tour, whole[here:]])
    return whole.ravel().tolist()


def _nearest(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Places of the two corners, (N, 2) and (M, 2), that are nearest to one another."""
    distances, places = cKDTree(first).query(second)
    there = int(distances.argmin())
    return int(places[there]), there


def area(outline: list[float]) -> float:
    """Shoelace formula; px²."""
    x, y = np.array(outline, dtype=np.float64).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _partners(order: np.ndarray) -> list[int]:
    """Each corner's other end of its edge, where neighbours in `order` are joined in pairs."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner.tolist()
