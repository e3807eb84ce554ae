"""Trained networks on whole images."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.config import Config
from mal.methods.bestie.checkpoint import Trained
from mal.methods.bestie.data import padded
from mal.methods.bestie.grouping import Seen, flip_averaged
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
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
    trained: Trained[ClassNetwork], image: Tensor, present: Tensor, config: Config, entry: dict[str, Any]
) -> Tensor:
    """The likeliest class of each pixel among those that the image has, and the background.

    Args:
        image: (3, H, W) uint8.
        present: (K,) bool, the classes that it has points of.
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
    known = torch.cat([present.new_ones(1), present]).to(trained.device)
    return chances.masked_fill(~known[:, None, None], -1).argmax(dim=0)
