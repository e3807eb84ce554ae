"""Mask probabilities of crops → masks of images, as run lengths.

What needs every pixel is done where the network ran. One byte per pixel of the rectangle comes back, for all boxes of a
batch in one copy, which nobody waits for until the next batch is on its way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.data.mask_formats import encode_runs
from mal.data.mask_windows import area_inside, edges_in_images
from mal.data.rois import RoiBatch
from mal.methods.labelling import Label
from mal.methods.mal.config import LabelConfig

STRONGEST = 128  # reduction of one axis that a GPU's kernel of 48 KiB is asked for


@dataclass
class Outlines:
    """The masks of B boxes, each in a rectangle of its image, on their way to the host."""

    packed: Tensor  # uint8: B float64 scores, B × K float64 cues, then bytes of masks as `edges_in_images` reads them
    rectangles: np.ndarray  # (B, 4) int64 half-open, in whole pixels of the images
    image_sizes: np.ndarray  # (B, 2) int64 width, height
    arrived: torch.cuda.Event | None  # None where nothing had to be copied
    kinds: int = 0  # K of cues

    def labels(self) -> list[Label]:
        """Of each box its mask as RLE, the mask's area in pixels, and its score; waits for the copy.

        The score is the mean probability inside the mask, 0 where it is empty.
        """
        packed, count = self._packed(), len(self.rectangles)
        scores, masks = packed[: 8 * count].view(np.float64), packed[8 * count * (1 + self.kinds) :]
        edges = edges_in_images(masks, self.rectangles, self.image_sizes[:, 1])
        return [
            {
                "segmentation": encode_runs(along, height=height, width=width),
                "area": area_inside(along),
                "score": score,
            }
            for along, (width, height), score in zip(edges, self.image_sizes.tolist(), scores.tolist(), strict=True)
        ]

    def cues(self) -> np.ndarray:
        """(B, K) float64: the cues that came along; waits for the copy."""
        count = len(self.rectangles)
        return self._packed()[8 * count : 8 * count * (1 + self.kinds)].view(np.float64).reshape(count, self.kinds)

    def _packed(self) -> np.ndarray:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.packed.numpy()


def outlines(probabilities: Tensor, rois: RoiBatch, options: LabelConfig, cues: Tensor | None = None) -> Outlines:
    """Resize each crop's probabilities to its window, threshold them, and drop what lies beyond the image.

    Args:
        probabilities: (B, S, S) in [0, 1], 0 outside the boxes, on any device.
        rois: their windows and boxes, on the CPU.
        options: whether the resizing antialiases, whether what it brings beyond the box is dropped too, and thresholds
            for boxes of sizes S, M and L, each in [0, 1).
        cues: (B, K) float64 on the same device, to come along in the same copy.
    """
    rectangles = (rois.spans if options.cut else _within_reach(rois, probabilities.shape[-1])).numpy()
    width, height = (rectangles[:, 2:] - rectangles[:, :2]).T
    column = height + 1  # the zero that ends a column included
    stops = 1 + (width * column).cumsum()
    masks = torch.zeros(int(stops[-1]), dtype=torch.bool, device=probabilities.device)
    sums = torch.zeros(len(stops), 2, dtype=torch.float64, device=masks.device)  # of probabilities inside, and pixels
    for row, (window, rectangle, size) in enumerate(
        zip(rois.windows.tolist(), rectangles.tolist(), rois.sizes.tolist(), strict=True)
    ):
        own = masks[stops[row] - width[row] * column[row] : stops[row]].view(width[row], column[row])[:, :-1].T
        resize = partial(_resized, probabilities[row], antialias=options.antialias)
        _threshold(resize, window, rectangle, options.threshold[size], out=own, sums=sums[row])
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
    return Outlines(packed, rectangles, rois.images[:, 2:].numpy(), arrived, kinds)


def _within_reach(rois: RoiBatch, side: int) -> Tensor:
    """What of the image the resized masks can reach: (B, 4) int64, half-open.

    A cell's value reaches to the next one's centre; a box thinner than a cell has one whose centre lies beside it.
    """
    cells = (rois.windows[:, 2:] - rois.windows[:, :2]) / side
    margin = (1.5 * cells).clamp(min=1).ceil().long() + 1
    start = (rois.spans[:, :2] - margin).clamp(min=0)
    return torch.cat([start, torch.minimum(rois.spans[:, 2:] + margin, rois.images[:, 2:])], dim=1)


def _threshold(
    resize: Callable[[int, int], Tensor],
    window: list[int],
    rectangle: list[int],
    threshold: float,
    *,
    out: Tensor,
    sums: Tensor,
) -> None:
    """Write a box's mask to `out`, (h, w) bool, all False so far, and what its score is computed from to `sums`.

    What the window shows beyond the rectangle is dropped.

    Args:
        resize: gives the probabilities at the window's height and width.
    """
    x0, y0, x1, y1 = window
    left, top = max(x0, rectangle[0]), max(y0, rectangle[1])
    right, bottom = min(x1, rectangle[2]), min(y1, rectangle[3])
    if right <= left or bottom <= top:
        return
    region = resize(y1 - y0, x1 - x0)[top - y0 : bottom - y0, left - x0 : right - x0]
    mask = out[top - rectangle[1] : bottom - rectangle[1], left - rectangle[0] : right - rectangle[0]]
    torch.gt(region, threshold, out=mask)
    if region.is_cuda:  # picking values by a mask would wait for their number
        torch.sum(torch.where(mask, region, 0), dim=(0, 1), dtype=torch.float64, out=sums[0])
        torch.sum(mask, dim=(0, 1), dtype=torch.float64, out=sums[1])
    elif mask.any():
        sums[0], sums[1] = region.numpy()[mask.numpy()].mean().item(), 1


def _resized(values: Tensor, height: int, width: int, *, antialias: bool) -> Tensor:
    """(S, S) → (height, width), bilinear."""
    if values.is_cuda and antialias:
        return _axis_by_axis(values, height, width)
    return _at_once(values, height, width, antialias=antialias)


def _at_once(values: Tensor, height: int, width: int, *, antialias: bool = True) -> Tensor:
    return F.interpolate(
        values[None, None], size=(height, width), mode="bilinear", align_corners=False, antialias=antialias
    )[0, 0]


def _axis_by_axis(values: Tensor, height: int, width: int) -> Tensor:
    """With antialiasing, for a GPU, whose kernel has too little shared memory for strong reductions of both axes."""
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
