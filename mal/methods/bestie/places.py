"""Where pixels are, and which of some places each of them points to."""

import torch
from torch import Tensor


def centres_of_pixels(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(2, height, width) float32: x and y of each pixel's centre; the first pixel's are .5."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device) + 0.5,
        torch.arange(width, dtype=torch.float32, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y])


def nearest(pointed: Tensor, places: Tensor) -> Tensor:
    """The index of the place that each pixel points nearest to; of equally near ones the first.

    Args:
        pointed: (2, m) x and y, pixels + offsets.
        places: (n, 2), at least one.

    Returns:
        (m,) int64.
    """
    best = torch.full_like(pointed[0], torch.inf)
    found = torch.zeros(pointed.shape[1], dtype=torch.int64, device=pointed.device)
    for index, (x, y) in enumerate(places.unbind()):  # one by one: n × m distances would not fit for large images
        distance = (pointed[0] - x).square() + (pointed[1] - y).square()
        nearer = distance < best
        best, found = torch.where(nearer, distance, best), torch.where(nearer, index, found)
    return found
