"""Boxes, crop windows and grids: pure geometry.

Conventions. `bbox` and names ending in `_xywh` are (x, y, width, height) in image pixels, floats. A *window* is an
integer half-open rectangle (x0, y0, x1, y1) that is cropped out of an image; it may reach beyond the image's border.
A *span* is what a box covers in whole pixels: (x0, y0, x1, y1), half-open, inside the image. Pixel i covers [i, i + 1).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mal.data.config import EXPANSIONS
from mal.errors import ConfigError

SIZE_EDGES = (32**2, 96**2)  # box area in image pixels: S < 32² <= M < 96² <= L (A.2 of the paper, COCO's edges)
SIZE_NAMES = ("S", "M", "L")
REPEATS = ("nothing", "wrap", "reflect")  # what a window shows beyond the border that counts as the box again
DRAWS = 6  # uniform numbers that one expansion consumes


def size_index(area: Tensor) -> Tensor:
    """Size class of each box area in image pixels: 0 for S, 1 for M, 2 for L. An area on an edge belongs above it."""
    return torch.bucketize(area, torch.tensor(SIZE_EDGES, dtype=area.dtype), right=True)


def size_class(area: float) -> str:
    """`"S"`, `"M"` or `"L"` of one box area in image pixels."""
    return SIZE_NAMES[sum(area >= edge for edge in SIZE_EDGES)]


def spans(boxes_xywh: Tensor, image_sizes: Tensor) -> Tensor:
    """Whole pixels a box covers: corners truncated to integers, both inclusive (docs/method/mal.md, "box mask").

    Args:
        boxes_xywh: (N, 4) float.
        image_sizes: (N, 2) int, height and width.

    Returns:
        (N, 4) int64 half-open spans inside the image, each at least one pixel.
    """
    start = boxes_xywh[:, :2].long().clamp(min=0)
    stop = (boxes_xywh[:, :2] + boxes_xywh[:, 2:]).long() + 1
    limit = image_sizes.flip(1).long()
    start = torch.minimum(start, limit - 1)
    return torch.cat([start, torch.maximum(torch.minimum(stop, limit), start + 1)], dim=1)


def pixel_edges(box: Sequence[float] | np.ndarray, *, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels inside the image that a box xywh touches; right and bottom exclusive.

    It is how a filled box is drawn everywhere: other rasterisations move the mean IoU against human masks by up to .04.
    What MAL's losses call the box (`spans`) is the released program's, a row and a column more for whole numbers.
    """
    x, y, w, h = map(float, box)
    left, right = (min(max(int(edge), 0), width) for edge in (x, math.ceil(x + w)))
    top, bottom = (min(max(int(edge), 0), height) for edge in (y, math.ceil(y + h)))
    return left, top, right, bottom


def expand(boxes_xywh: Tensor, draws: Tensor, *, theta: float, form: str) -> Tensor:
    """Randomly expanded crop windows for training (§3.1).

    `paper`: per axis θ' ~ U[0, θ] is split over the two sides, β ~ U[0, θ'] and θ' − β.
    `released`: per side m ~ U[0, θ], per axis a gate g ~ U[0, 1]; left and top get m·g, right and bottom m·(1 − g).
    A side moves outward by its share of half the box's size on that axis.

    Args:
        boxes_xywh: (N, 4) float.
        draws: (N, 6) uniform in [0, 1).
        theta: upper bound θ of the expansion rate, >= 0.
        form: `paper` or `released`.

    Returns:
        (N, 4) int64 windows; each contains its box.
    """
    if form == "paper":
        total = draws[:, :2] * theta
        before = draws[:, 2:4] * total
        after = total - before
    elif form == "released":
        gate = draws[:, :2]
        before, after = draws[:, 2:4] * theta * gate, draws[:, 4:6] * theta * (1 - gate)
    else:
        raise ConfigError(f"roi.expansion={form} is unknown; choose one of {', '.join(EXPANSIONS)}")
    return _window(boxes_xywh, before, after)


def expand_fixed(boxes_xywh: Tensor, rate: float) -> Tensor:
    """Crop windows for labelling: every side moves outward by `rate` × half the box's size. (N, 4) int64."""
    share = torch.full_like(boxes_xywh[:, :2], rate)
    return _window(boxes_xywh, share, share)


def _window(boxes_xywh: Tensor, before: Tensor, after: Tensor) -> Tensor:
    half = boxes_xywh[:, 2:] / 2
    start = torch.floor(boxes_xywh[:, :2] - before * half)
    stop = torch.ceil(boxes_xywh[:, :2] + boxes_xywh[:, 2:] + after * half) + 1  # the released program's + 1 px
    return torch.cat([start, stop], dim=1).long()


def clip_windows(windows: Tensor, image_sizes: Tensor) -> Tensor:
    """Windows cut at the image's border, for `border=clip`. (N, 4) int64; each keeps at least one pixel."""
    limit = image_sizes.flip(1).long()
    start = torch.minimum(windows[:, :2].clamp(min=0), limit - 1)
    return torch.cat([start, torch.maximum(torch.minimum(windows[:, 2:], limit), start + 1)], dim=1)


def border_index(start: int, stop: int, size: int, border: str) -> Tensor:
    """Which image row (or column) each row of a window shows.

    Args:
        start, stop: the window's extent on this axis.
        size: the image's extent on this axis.
        border: `wrap` takes the index modulo the size, `reflect` mirrors about the edge pixels' outer edges,
            `constant` repeats the edge pixel (those pixels are masked out of every loss).

    Returns:
        (stop − start,) int64 in [0, size).
    """
    index = torch.arange(start, stop)
    if border == "wrap":
        return index % size
    if border == "reflect":
        index = index % (2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    return index.clamp(0, size - 1)


def crop(pixels: Tensor, window: tuple[int, int, int, int], *, border: str) -> Tensor:
    """Cut a window out of an image.

    Args:
        pixels: (3, H, W).
        window: x0, y0, x1, y1; may reach beyond the image.
        border: what lies beyond: see `border_index`. A window for `clip` is expected to be clipped already.

    Returns:
        (3, y1 − y0, x1 − x0), a view where the window lies inside the image.
    """
    x0, y0, x1, y1 = window
    height, width = pixels.shape[-2:]
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return pixels[:, y0:y1, x0:x1]
    image = pixels.permute(1, 2, 0)  # (H, W, 3), as images lie in memory
    if border == "wrap":  # blocks: copied seven times as fast as gathered pixels
        region = image.new_empty(y1 - y0, x1 - x0, 3)
        for row, from_row, rows in _wrapped(y0, y1, height):
            for column, from_column, columns in _wrapped(x0, x1, width):
                block = image[from_row : from_row + rows, from_column : from_column + columns]
                region[row : row + rows, column : column + columns] = block
        return region.permute(2, 0, 1)
    chosen = image.index_select(0, border_index(y0, y1, height, border))
    return chosen.index_select(1, border_index(x0, x1, width, border)).permute(2, 0, 1)


def _wrapped(start: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(place in the window, place in the image, length) of each run of consecutive indices of `border_index`."""
    place = start
    while place < stop:
        length = min(size - place % size, stop - place)
        yield place - start, place % size, length
        place += length


def grid_inside(
    windows: Tensor, boxes: Tensor, cells: int, *, images: Tensor | None = None, repeats: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which rows and columns of a cells × cells grid over each window have their centre inside a rectangle.

    The box mask is their outer product, and they are the bag labels g of the MIL loss. Rows of the window beyond the
    image's border are background, but where `repeats` says that they show the image again: there they are what they
    show (the released program's training masks).

    Args:
        windows: (N, 4) int64.
        boxes: (N, 4) int64 half-open rectangles (spans, or the image's own extent).
        cells: rows and columns of the grid.
        images: (N, 4) int64, 0, 0, width, height; read where `repeats` is given.
        repeats: (N,) int64: an index into `REPEATS`; "nothing" for all where left out.

    Returns:
        rows, columns: (N, cells) bool, each with at least one True (the cell nearest the rectangle's centre, where
        the rectangle is thinner than a cell).
    """
    rows, columns = (
        _axis_inside(
            windows, boxes, cells, axis=axis, size=None if images is None else images[:, axis + 2], repeats=repeats
        )
        for axis in (1, 0)
    )
    return rows, columns


def _axis_inside(
    windows: Tensor, boxes: Tensor, cells: int, *, axis: int, size: Tensor | None, repeats: Tensor | None
) -> Tensor:
    start, stop = windows[:, axis, None].double(), windows[:, axis + 2, None].double()
    low, high = boxes[:, axis, None].double(), boxes[:, axis + 2, None].double()
    centres = start + (torch.arange(cells, device=windows.device).double() + 0.5) * (stop - start) / cells
    if size is not None and repeats is not None:
        centres = _shown(centres, size[:, None].double(), repeats[:, None])
    inside = (centres >= low) & (centres < high)
    nearest = (centres - (low + high) / 2).abs().argmin(dim=1, keepdim=True)
    return inside.scatter(1, nearest, True)


def _shown(places: Tensor, size: Tensor, repeats: Tensor) -> Tensor:
    """Which place of the image each place of a window shows, on one axis: the continuous form of `border_index`."""
    wrapped, turned = places % size, places % (2 * size)
    mirrored = torch.minimum(turned, 2 * size - turned)
    return torch.where(
        repeats == REPEATS.index("wrap"), wrapped, torch.where(repeats == REPEATS.index("reflect"), mirrored, places)
    )
