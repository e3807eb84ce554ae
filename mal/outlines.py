"""Mask probabilities of crops → masks of images, as run lengths.

What needs every pixel is done where the network ran. One byte a pixel of the box comes back, for all boxes of a batch
in one copy, which nobody waits for until the next batch is on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.mask_formats import encode_runs
from mal.rois import RoiBatch

STRONGEST = 128  # reduction of one axis that a GPU's kernel of 48 KiB is asked for
Label = dict[str, Any]  # segmentation, area and what else an annotation gains


@dataclass
class Outlines:
    """The masks of B boxes, cut at the boxes, on their way to the host."""

    packed: Tensor  # uint8: B float64 scores, B × K float64 cues, then bytes of masks as `edges_in_images` reads them
    spans: np.ndarray  # (B, 4) int64 whole pixels of the boxes
    image_sizes: np.ndarray  # (B, 2) int64 width, height
    arrived: torch.cuda.Event | None  # None where nothing had to be copied
    kinds: int = 0  # K of cues

    def labels(self) -> list[Label]:
        """Of each box its mask as RLE, the mask's area in pixels, and its score; waits for the copy.

        The score is the mean probability inside the mask, 0 where it is empty.
        """
        packed, count = self._packed(), len(self.spans)
        scores, masks = packed[: 8 * count].view(np.float64), packed[8 * count * (1 + self.kinds) :]
        edges = edges_in_images(masks, self.spans, self.image_sizes[:, 1])
        return [
            {
                "segmentation": encode_runs(along, height=height, width=width),
                "area": int(along[1::2].sum() - along[::2].sum()),
                "score": score,
            }
            for along, (width, height), score in zip(edges, self.image_sizes.tolist(), scores.tolist(), strict=True)
        ]

    def cues(self) -> np.ndarray:
        """(B, K) float64: the cues that came along; waits for the copy."""
        count = len(self.spans)
        return self._packed()[8 * count : 8 * count * (1 + self.kinds)].view(np.float64).reshape(count, self.kinds)

    def _packed(self) -> np.ndarray:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.packed.numpy()


def outlines(
    probabilities: Tensor, rois: RoiBatch, thresholds: Sequence[float], cues: Tensor | None = None
) -> Outlines:
    """Resize each crop's probabilities to its window, cut them at the box, and threshold them.

    Args:
        probabilities: (B, S, S) in [0, 1], on any device.
        rois: their windows and boxes, on the CPU.
        thresholds: for boxes of sizes S, M and L, each in [0, 1).
        cues: (B, K) float64 on the same device, to come along in the same copy.
    """
    spans = rois.spans.numpy()
    width, column = spans[:, 2] - spans[:, 0], spans[:, 3] - spans[:, 1] + 1  # the zero that ends a column included
    stops = 1 + (width * column).cumsum()
    masks = torch.zeros(int(stops[-1]), dtype=torch.bool, device=probabilities.device)
    sums = torch.zeros(len(spans), 2, dtype=torch.float64, device=masks.device)  # of probabilities inside, and pixels
    for row, (window, span, size) in enumerate(
        zip(rois.windows.tolist(), spans.tolist(), rois.sizes.tolist(), strict=True)
    ):
        own = masks[stops[row] - width[row] * column[row] : stops[row]].view(width[row], column[row])[:, :-1].T
        _threshold(probabilities[row], window, span, thresholds[size], out=own, sums=sums[row])
    scores = sums[:, 0] / sums[:, 1].clamp(min=1)
    kinds = 0 if cues is None else cues.shape[1]
    numbers = scores if cues is None else torch.cat([scores, cues.flatten()])
    packed = torch.cat([numbers.view(torch.uint8), masks.view(torch.uint8)])
    arrived = None
    if packed.is_cuda:
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        arrived, stream = torch.cuda.Event(), torch.cuda.current_stream(packed.device)
        packed = host.copy_(packed, non_blocking=True)
        arrived.record(stream)
    return Outlines(packed, spans, rois.images[:, 2:].numpy(), arrived, kinds)


def _threshold(
    values: Tensor, window: list[int], span: list[int], threshold: float, *, out: Tensor, sums: Tensor
) -> None:
    """Write a box's mask to `out`, (h, w) bool, all False so far, and what its score is computed from to `sums`.

    What the window shows beyond the image, or beyond the box, is dropped.
    """
    x0, y0, x1, y1 = window
    left, top = max(x0, span[0]), max(y0, span[1])
    right, bottom = min(x1, span[2]), min(y1, span[3])
    if right <= left or bottom <= top:
        return
    at_size = (_axis_by_axis if values.is_cuda else _at_once)(values, y1 - y0, x1 - x0)
    region = at_size[top - y0 : bottom - y0, left - x0 : right - x0]
    mask = out[top - span[1] : bottom - span[1], left - span[0] : right - span[0]]
    torch.gt(region, threshold, out=mask)
    if values.is_cuda:  # picking values by a mask would wait for their number
        torch.sum(torch.where(mask, region, 0), dim=(0, 1), dtype=torch.float64, out=sums[0])
        torch.sum(mask, dim=(0, 1), dtype=torch.float64, out=sums[1])
    elif mask.any():
        sums[0], sums[1] = region.numpy()[mask.numpy()].mean().item(), 1


def _at_once(values: Tensor, height: int, width: int) -> Tensor:
    """(S, S) → (height, width), bilinear with antialiasing."""
    return F.interpolate(
        values[None, None], size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )[0, 0]


def _axis_by_axis(values: Tensor, height: int, width: int) -> Tensor:
    """The same for a GPU, whose kernel has too little shared memory for strong reductions of both axes at once."""
    if values.shape[1] <= STRONGEST * width:
        across = _at_once(values, values.shape[0], width)
    else:
        across = values @ _averages(values.shape[1], width, values.device).T
    if across.shape[0] <= STRONGEST * height:
        return _at_once(across, height, width)
    return _averages(across.shape[0], height, values.device) @ across


@lru_cache(maxsize=64)  # a side this small is a pixel or a few
def _averages(old: int, new: int, device: torch.device) -> Tensor:
    """(new, old): the share of each old line in each new one."""
    return _at_once(torch.eye(old), new, old).to(device)


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
