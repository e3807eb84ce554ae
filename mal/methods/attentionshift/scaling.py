"""Maps brought to full precision, to a range, to pixels; masks made smaller by erosion, and listed."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.encoders.bilinear import line_weights, resize


def in_full(values: Tensor) -> Tensor:
    """In float32 what a network gave in half precision; anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def min_max(maps: Tensor) -> Tensor:
    """(…, H, W) → each map brought to 0…1; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def over_max(maps: Tensor) -> Tensor:
    """(…, H, W) → each map divided by its maximum; a map without a positive value becomes 0."""
    high = maps.amax((-2, -1), keepdim=True)
    return maps / torch.where(high > 0, high, torch.inf)


def upsample(maps: Tensor, patch: int) -> Tensor:
    """(n, h, w) → (n, h·patch, w·patch), bilinear, corners not aligned.

    On a CPU by two matrix products, which take a fifth of the time; a GPU's would keep 10 bits of float32.
    """
    height, width = maps.shape[-2:]
    if not len(maps):
        return maps.new_zeros(0, height * patch, width * patch)
    if maps.is_cuda:
        return resize(maps[None], (height * patch, width * patch))[0]
    rows, columns = (line_weights(side, side * patch, maps.device, maps.dtype) for side in (height, width))
    return rows @ maps @ columns.T


def pixels_of(mask: Tensor) -> Tensor:
    """(H, W) bool → (m,) indices of its pixels in raster order; on a CPU numpy takes a third of torch's time."""
    return mask.flatten().nonzero()[:, 0] if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def eroded(masks: Tensor, size: int, *, patch: int) -> Tensor:
    """Binary erosion by a square; the border of the map does not erode.

    Args:
        masks: (n, H, W) bool.
        size: the square's side in pixels at patches of 16; at other patches it is scaled with them and made odd.

    Returns:
        (n, H, W) bool.
    """
    side = 2 * int(size * patch / 16 / 2) + 1
    if masks.is_cuda:
        return eroded_by_sums(masks, side)
    square = np.ones((side, side), np.uint8)
    found = np.empty(masks.shape, np.uint8)
    for mask, slot in zip(masks.contiguous().numpy().view(np.uint8), found, strict=True):
        cv2.erode(mask, square, dst=slot)
    return torch.from_numpy(found.view(np.bool_))


def eroded_by_sums(masks: Tensor, side: int) -> Tensor:
    """`eroded` by an odd side, without leaving the device: what holds no zero is kept."""
    return _counted(_counted((~masks).to(torch.int32), side).mT, side).mT == 0


def _counted(values: Tensor, side: int) -> Tensor:
    """(…, W) int32 → the sum of each window of `side` along the last axis, 0 beyond the border.

    By running sums: four passes over the map whatever the side, where pooling takes one per pixel of the side.
    """
    running = F.pad(values, (side // 2 + 1, side // 2)).cumsum(-1, dtype=torch.int32)
    return running[..., side:] - running[..., :-side]
