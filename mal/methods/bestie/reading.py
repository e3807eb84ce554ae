"""Class maps of images whose points are known: what the points say is read together with a network (I)."""

import torch
from torch import Tensor

from mal.methods.bestie.network import BACKGROUND
from mal.methods.bestie.places import centres_of_pixels

BELOW = -1.0  # what no probability is


def read_classes(chances: Tensor, present: Tensor, xy: Tensor, labels: Tensor, *, reach: float) -> Tensor:
    """The class of each pixel: the background where it has more than the image's own classes together; else the one of
    these with the largest probability × exp(−d² / 2·reach²), d the distance to the nearest point of the class.

    Args:
        chances: (K + 1, H, W) probabilities, the background first.
        present: (K,) bool, the classes that the image has; others are left out.
        xy: (n, 2) points in pixels. labels: (n,) their classes from 0. A class without one has d = 0.
        reach: in pixels; 0: probabilities alone decide between the classes.

    Returns:
        (H, W) int64, 0 the background, k + 1 class k.
    """
    own = chances[1:].masked_fill(~present[:, None, None], 0)
    objects = own.sum(dim=0) > chances[BACKGROUND]
    if reach > 0:
        pixels = centres_of_pixels(chances.shape[1], chances.shape[2], device=chances.device)
        for label in labels.unique().tolist():
            squares = [(pixels - point[:, None, None]).square().sum(dim=0) for point in xy[labels == label]]
            own[label] *= torch.exp(-torch.stack(squares).amin(dim=0) / (2 * reach**2))
    likeliest = own.masked_fill(~present[:, None, None], BELOW).argmax(dim=0) + 1
    return torch.where(objects, likeliest, BACKGROUND)
