"""Images in [0, 1] → what networks that learned from ImageNet expect."""

from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> Tensor:
    """(…, 3, H, W) in [0, 1] → zero mean, unit variance by the given statistics."""
    return (images - _per_channel(mean, images)) / _per_channel(std, images)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    """(3, 1, 1) on the device and of the type of another tensor."""
    return _constant(tuple(values), like.device, like.dtype)[:, None, None]


@cache  # each copy to a GPU would wait for all that runs there
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)
