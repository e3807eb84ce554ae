"""Trained networks on whole images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.config import Config
from mal.methods.bestie.checkpoint import Trained
from mal.methods.bestie.data import padded
from mal.methods.bestie.grouping import Seen, flip_averaged
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
from mal.methods.bestie.reading import read_classes
from mal.segmenters.data import resize


def shown(image: Tensor, config: Config) -> Tensor:
    """An image (3, H, W) uint8 in the size of the test."""
    scale = config.bestie.scale
    return resize(image, short=scale.test_short_side, long=scale.test_long_side)


@torch.inference_mode()
def see(trained: Trained[InstanceNetwork], image: Tensor, config: Config) -> Seen:
    """What the instance network says of an image (3, h, w) uint8 in the size of the test, or of it and its mirror
    image."""

    def of_one(view: Tensor) -> Seen:
        features, (height, width) = trained.network.features, view.shape[-2:]
        found = trained.network(padded(view, multiple=features.multiple, fill=features.mean)[None])
        classes = found.classes.softmax(dim=1)
        return Seen(*(each[0, :, :height, :width] for each in (classes, found.centres, found.offsets)))

    image = image.to(trained.device)
    plain = of_one(image)
    return flip_averaged(plain, of_one(image.flip(-1))) if config.bestie.detection.flip else plain


@torch.inference_mode()
def class_map(
    trained: Trained[ClassNetwork], image: Tensor, known: Sequence[Tensor], config: Config, entry: dict[str, Any]
) -> Tensor:
    """The class of each pixel of an image with points, see `read_classes`.

    Args:
        image: (3, H, W) uint8.
        known: the classes that it has, (K,) bool; its points (n, 2) in pixels, and their labels (n,).
        entry: of the image.

    Returns:
        (height, width) int64, 0 the background, k + 1 class k; in the image's own size.
    """
    view, features = shown(image, config).to(trained.device), trained.network.features

    def of_one(image: Tensor) -> Tensor:
        found = trained.network(padded(image, multiple=features.multiple, fill=features.mean)[None])
        return found.softmax(dim=1)[:, :, : image.shape[-2], : image.shape[-1]]

    chances = of_one(view)
    if config.bestie.detection.flip:
        chances = (chances + of_one(view.flip(-1)).flip(-1)) / 2
    chances = F.interpolate(chances, size=(entry["height"], entry["width"]), mode="bilinear", align_corners=False)[0]
    present, xy, labels = (each.to(trained.device) for each in known)
    return read_classes(chances, present, xy, labels, reach=reach_in(chances, config))


def reach_in(maps: Tensor, config: Config) -> float:
    """`class_maps.reach` in the pixels of maps (…, H, W)."""
    return config.bestie.class_maps.reach * min(maps.shape[-2:])
