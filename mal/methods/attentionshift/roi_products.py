"""RoIAlign as matrix products: what a CPU does several times faster, above all backwards."""

import torch
from torch import Tensor

AT_ONCE = 64  # RoIs of an image: bounds the memory of what lies between the two products


def roi_align_by_products(features: Tensor, boxes: list[Tensor], *, cells: int, scale: float) -> Tensor:
    """torchvision's `roi_align`, aligned and with its adaptive number of points, for any gradient but the boxes'.

    A cell is the mean of a grid of points read bilinearly. Both are separable, so that a cell's share of the map's
    pixels is an outer product: one product gathers the map's lines, a second one the columns.

    Args:
        features: (B, C, h, w). boxes: (r, 4) xyxy, an image.
        cells: side of the grid. scale: pixels of the map per unit of the boxes.

    Returns:
        (Σr, C, cells, cells).
    """
    height, width = features.shape[2:]
    found = [features[:0, :, :1, :1].expand(-1, -1, cells, cells)]  # without a box too, the map is part of the result
    with torch.autocast(features.device.type, enabled=False):
        for image, own in zip(features, boxes, strict=True):
            lines = image.transpose(0, 1).flatten(1)  # (h, C·w)
            for some in (own * scale - 0.5).split(AT_ONCE) if len(own) else ():
                rows = _shares(some[:, 1], some[:, 3], cells, height)
                columns = _shares(some[:, 0], some[:, 2], cells, width)
                tall = (rows.flatten(0, 1) @ lines).view(len(some), -1, width)  # (r, cells·C, w)
                found.append((tall @ columns.mT).unflatten(1, (cells, -1)).transpose(1, 2))
    return torch.cat(found)


@torch.no_grad()
def _shares(low: Tensor, high: Tensor, cells: int, length: int) -> Tensor:
    """Extents (r,) along an axis of `length` pixels, the first one's middle at 0 → (r, cells, length): what each pixel
    adds to a cell. A cell is read at as many points as it is long in pixels, rounded up, and at more than a pixel
    beyond the map as 0."""
    size = ((high - low) / cells)[:, None, None]
    count = size.ceil()
    most = max(1, int(count.max()))
    cell, point = (torch.arange(n, device=low.device, dtype=low.dtype) for n in (cells, most))
    places = low[:, None, None] + cell[:, None] * size + (point + 0.5) * size / count.clamp(min=1)
    share = ((point < count) & (places >= -1) & (places <= length)) / count.clamp(min=1)
    places = places.clamp(0, length - 1)
    left = places.floor()
    right = (left + 1).clamp(max=length - 1)
    found = low.new_zeros(len(low), cells, length)
    found.scatter_add_(2, left.long(), share * (1 - (places - left)))
    return found.scatter_add_(2, right.long(), share * (places - left))
