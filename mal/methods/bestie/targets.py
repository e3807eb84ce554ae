"""What centres and offsets are learned from: Gaussians at the points, and refined offsets, which lead to points."""

import torch
from torch import Tensor

from mal.methods.bestie.places import centres_of_pixels, nearest


def centre_map(xy: Tensor, labels: Tensor, *, classes: int, size: tuple[int, int], sigma: float) -> Tensor:
    """exp(−d² / 2σ²), d a pixel's distance from the nearest point of the class; 0 for a class without any.

    Args:
        xy: (n, 2) in pixels. labels: (n,) from 0.
        size: height and width.
        sigma: in pixels.

    Returns:
        (classes, height, width) float32 in [0, 1].
    """
    pixels = centres_of_pixels(*size, device=xy.device)
    found = xy.new_zeros(classes, *size)
    for (x, y), label in zip(xy.unbind(), labels.tolist(), strict=True):
        falling = [
            torch.exp(-(axis - place).square() / (2 * sigma**2))
            for axis, place in ((pixels[0, :1], x), (pixels[1, :, :1], y))
        ]
        found[label] = torch.maximum(found[label], falling[0] * falling[1])
    return found


def refined_offsets(predicted: Tensor, class_map: Tensor, xy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of the pixels of each class to the point of the class that they point nearest to.

    Args:
        predicted: (2, H, W) offsets in pixels, without gradient.
        class_map: (H, W) int64, 0 the background, k + 1 class k.
        xy: (n, 2) points in pixels. labels: (n,) their classes from 0.

    Returns:
        (2, H, W) float32, and which pixels have one, (H, W) bool: those of classes with a point.
    """
    height, width = class_map.shape
    pixels = centres_of_pixels(height, width, device=predicted.device)
    offsets, known = torch.zeros_like(predicted), torch.zeros_like(class_map, dtype=torch.bool)
    for label in labels.unique().tolist():
        own, places = class_map == label + 1, xy[labels == label]
        chosen = places[nearest((pixels + predicted)[:, own], places)]
        offsets[:, own] = chosen.T - pixels[:, own]
        known |= own
    return offsets, known
