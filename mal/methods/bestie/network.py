"""BESTIE's two networks: an encoder, a light decoder, and what each pixel is taken for."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from mal.config import Config
from mal.encoders.bilinear import resize
from mal.engine.precision import autocast
from mal.methods.bestie.features import Features

BACKGROUND = 0  # its channel among the classes


class Branch(nn.Module):
    """Maps of all strides → one of `stride`: the coarser sum is added to each finer map, then two convolutions.

    Args:
        widths: channels of the maps, finest first.
        width: of its own maps.
        stride: of its map, in pixels.
    """

    def __init__(self, widths: list[int], *, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 1, bias=False), _norm(width)) for each in widths
        )
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(width), nn.ReLU())
                for _ in range(2)
            )
        )

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """size: height and width of the images → (B, width, ⌈height / stride⌉, ⌈width / stride⌉)."""
        *finer, coarsest = list(zip(maps, self.laterals, strict=True))
        total = coarsest[1](coarsest[0])
        for each, lateral in reversed(finer):
            side = lateral(each)
            total = side + resize(total, (side.shape[-2], side.shape[-1]))
        wanted = (-(-size[0] // self.stride), -(-size[1] // self.stride))
        return self.convolutions(resize(torch.relu(total), wanted))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, width), width)


@dataclass
class Fields:
    """What the instance network says of each pixel of a batch of images, in float32; K classes.

    Attributes:
        classes: (B, K + 1, H, W) logits, the background first.
        centres: (B, K, H, W) how much a pixel is the centre of an object of each class: 1 at one, about 0 elsewhere.
        offsets: (B, 2, H, W) x and y in pixels to the centre of the object that the pixel belongs to.
    """

    classes: Tensor
    centres: Tensor
    offsets: Tensor


class _Network(nn.Module):
    """
    Args:
        config: `encoder` and `bestie` are used.
        classes: K, the background not counted.
        load: fill in the encoder's weights; false when a trained network's will follow.

    Attributes:
        dtype: what it computes in; see `lowered`.

    Raises:
        ConfigError, WeightsError: see `Features`.
    """

    def __init__(self, config: Config, *, classes: int, load: bool = True) -> None:
        super().__init__()
        own = config.bestie
        self.features = Features(config.encoder, side=own.scale.crop, load=load)
        self.branch_settings: dict[str, Any] = {"width": own.network.width, "stride": own.network.stride}
        self.semantic = Branch(self.features.widths, **self.branch_settings)
        self.classifier = nn.Conv2d(own.network.width, classes + 1, 1)
        self.dtype = torch.float32

    def lowered(self, dtype: torch.dtype) -> Self:
        """The same network, which computes in `dtype`; what it gives stays float32."""
        self.dtype = dtype
        return self


class ClassNetwork(_Network):
    """Images → logits of the classes."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1], sides multiples of `features.multiple` → (B, K + 1, H, W) float32."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        with autocast(images.device, self.dtype):
            found = self.classifier(self.semantic(self.features(images), size))
        return resize(found.float(), size)


class InstanceNetwork(_Network):
    """Images → classes, centres and offsets; the last two have a branch of their own, as in Panoptic-DeepLab."""

    def __init__(self, config: Config, *, classes: int, load: bool = True) -> None:
        super().__init__(config, classes=classes, load=load)
        width = config.bestie.network.width
        self.instance = Branch(self.features.widths, **self.branch_settings)
        self.centre, self.offset = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Fields:
        """images: as of `ClassNetwork`."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        with autocast(images.device, self.dtype):
            maps = self.features(images)
            semantic, instance = self.semantic(maps, size), self.instance(maps, size)
            found = (self.classifier(semantic), self.centre(instance), self.offset(instance))
        classes, centres, offsets = (resize(each.float(), size) for each in found)
        return Fields(classes, centres, offsets * self.semantic.stride)
