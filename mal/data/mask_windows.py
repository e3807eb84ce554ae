"""Masks by the rectangle that holds them, so that a small object in a huge image costs no more than in a small one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mal.data.mask_formats import decode_runs, encode_runs


@dataclass(frozen=True)
class MaskWindow:
    """The part of an image's mask that a rectangle holds; outside of it there is none."""

    mask: np.ndarray  # (h, w) bool
    left: int  # pixels from the image's border
    top: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def pasted(self, height: int, width: int) -> np.ndarray:
        """The mask of an image of this size: (height, width) bool."""
        whole = np.zeros((height, width), dtype=bool)
        whole[self.place] = self.mask
        return whole


def decode_window(segmentation: Any, *, height: int, width: int) -> MaskWindow:
    """The pixels of a mask in a file, in the smallest rectangle that holds them; 0 × 0 where there are none.

    Args and errors are those of `mask_formats.decode_mask`.
    """
    edges = decode_edges(segmentation, height=height, width=width)
    if not len(edges):
        return MaskWindow(np.zeros((0, 0), dtype=bool), 0, 0)
    first, last = edges[::2], edges[1::2] - 1  # pixels of each run
    left, right = int(first[0]) // height, int(last[-1]) // height + 1
    top, bottom = 0, height  # where a run goes on from the foot of a column to the head of the next one
    if (first // height == last // height).all():
        top, bottom = int((first % height).min()), int((last % height).max()) + 1
    tall = bottom - top
    begins = (first // height - left) * tall + first % height - top
    ends = (last // height - left) * tall + last % height - top + 1
    runs = np.diff(np.stack([begins, ends], axis=1).ravel(), prepend=0, append=tall * (right - left))
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(right - left, tall).T
    return MaskWindow(mask, left, top)


def encode_window(window: MaskWindow, *, height: int, width: int) -> dict[str, Any]:
    """A mask as compressed RLE, the same as `mask_formats.encode_mask` gives of the whole image.

    Args:
        height, width: of the image, which the window lies in.
    """
    tall, wide = window.mask.shape
    columns = np.zeros(1 + wide * (tall + 1), dtype=np.uint8)
    columns[1:].reshape(wide, tall + 1)[:, :-1] = window.mask.T
    span = np.array([[window.left, window.top, window.left + wide, window.top + tall]])
    (edges,) = edges_in_images(columns, span, np.array([height]))
    return encode_runs(edges, height=height, width=width)


def in_common(first: MaskWindow, second: MaskWindow) -> tuple[np.ndarray, np.ndarray]:
    """Two masks in the rectangle that holds both: two (h, w) bool."""
    some = [window for window in (first, second) if window.mask.size] or [first]
    top, left = (min(window.place[axis].start for window in some) for axis in (0, 1))
    bottom, right = (max(window.place[axis].stop for window in some) for axis in (0, 1))
    moved = []
    for window in (first, second):
        moved.append(np.zeros((bottom - top, right - left), dtype=bool))
        if window.mask.size:
            rows, columns = window.mask.shape
            moved[-1][window.top - top :, window.left - left :][:rows, :columns] = window.mask
    return moved[0], moved[1]


def decode_edges(segmentation: Any, *, height: int, width: int) -> np.ndarray:
    """Where runs of foreground begin and end, in turns: int64, strictly ascending, counted down the columns.

    `encode_runs` takes them. Args and errors are those of `mask_formats.decode_mask`.
    """
    runs = decode_runs(segmentation, height=height, width=width)
    edges = runs.cumsum()[: len(runs) // 2 * 2]
    begins, ends = edges[::2], edges[1::2]
    some = begins < ends  # files may hold runs of no length
    begins, ends = begins[some], ends[some]
    apart = begins[1:] > ends[:-1]
    kept = np.concatenate([[True], apart])[: len(begins)], np.concatenate([apart, [True]])[: len(ends)]
    return np.stack([begins[kept[0]], ends[kept[1]]], axis=1).ravel()


def area_inside(edges: np.ndarray) -> int:
    """Pixels of foreground between edges that `decode_edges` gave."""
    return int(edges[1::2].sum() - edges[::2].sum())


def edges_in_images(masks: np.ndarray, spans: np.ndarray, heights: np.ndarray) -> list[np.ndarray]:
    """Where runs of foreground begin and end in the images, from masks that are cut at their boxes.

    Args:
        masks: uint8, 0 or 1: a zero, then box after box, column after column, each column ended by one more zero, so
            that no run goes on from one column, or box, to the next.
        spans: (B, 4) half-open whole pixels of the boxes.
        heights: (B,) of the images.

    Returns:
        Per box begin, end, begin, …, ascending: int64 places in the image, counted down its columns. Runs that touch
        (at the foot of a column and the head of the next) are one.
    """
    column = spans[:, 3] - spans[:, 1] + 1
    stops = 1 + ((spans[:, 2] - spans[:, 0]) * column).cumsum()
    starts = np.concatenate([[1], stops[:-1]])
    edges = np.flatnonzero(masks[1:] != masks[:-1]) + 1
    box = np.searchsorted(stops, edges, side="right")
    x, y = np.divmod(edges - starts[box], column[box])
    places = (spans[box, 0] + x) * heights[box] + spans[box, 1] + y
    touching = (places[1:] == places[:-1]) & (box[1:] == box[:-1])
    kept = np.ones(len(places), dtype=bool)
    kept[1:] &= ~touching
    kept[:-1] &= ~touching
    return np.split(places[kept], np.searchsorted(box[kept], np.arange(1, len(spans))))
