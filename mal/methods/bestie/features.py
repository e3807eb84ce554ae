"""An encoder's maps of images of any size: those of a pyramid, or the last one of a plain ViT."""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from mal.encoders.backbones import build_backbone
from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import prune, statistics, still_norms, takes_norm
from mal.encoders.normalise import normalise
from mal.errors import ConfigError

FINEST = 4  # the smallest stride that is read
ANY_SIZE = {"dynamic_img_size": True}  # timm's word for positions that are resized to an image's


class Features(nn.Module):
    """
    Args:
        config: `levels`, `fuse` and `width` are not used.
        side: pixels of the square that the positions of a plain ViT are made for; they are resized to other images.
        load: fill in the starting weights; false when a trained network's will follow.

    Attributes:
        widths: channels of the maps, finest first.
        multiple: what the sides of images must be divisible by.
        mean: of RGB, what the encoder's normalisation makes 0 of.

    Raises:
        ConfigError: the model takes images of one size only.
        WeightsError: its weights cannot be had.
    """

    backbone: Any  # timm's models share no type

    def __init__(self, config: EncoderConfig, *, side: int, load: bool = True) -> None:
        super().__init__()
        settings = config if load else replace(config, pretrained=False, checkpoint=None)
        self.backbone = _build(settings, side)
        strides = [int(info["reduction"]) for info in self.backbone.feature_info]
        plain = len(set(strides)) == 1
        self.indices = [
            place
            for place, stride in enumerate(strides)
            if (plain and place == len(strides) - 1)
            or (not plain and stride >= FINEST and stride not in strides[place + 1 :])
        ]
        self.multiple = max(strides)
        self.norm = takes_norm(self.backbone)
        prune(self.backbone, self.indices)
        self.mean, self.std = statistics(config, self.backbone)
        self.freeze_norm = config.freeze_norm
        if config.freeze_norm:
            still_norms(self.backbone)
        try:
            self.widths = self._measure()
        except (AssertionError, RuntimeError) as error:  # as each family says it
            raise _one_size(config) from error
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """
        Args:
            images: (B, 3, H, W) RGB in [0, 1]; H and W are multiples of `multiple`.

        Returns:
            Maps (B, C, h, w), finest first.
        """
        return self._maps(normalise(images, self.mean, self.std))

    def train(self, mode: bool = True) -> Self:
        """Training mode; frozen batch norms keep using their loaded statistics."""
        super().train(mode)
        if self.freeze_norm:
            still_norms(self.backbone)
        return self

    def _maps(self, images: Tensor) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            images, indices=self.indices, norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )

    @torch.no_grad()
    def _measure(self) -> list[int]:
        """The maps' channels; what a model says of them is not always so."""
        self.backbone.eval()
        return [int(found.shape[1]) for found in self._maps(torch.zeros(1, 3, self.multiple * 2, self.multiple * 3))]


def _build(config: EncoderConfig, side: int) -> Any:
    """The backbone, which must take images of any size."""
    backbone, _ = build_backbone(config, image_size=(side, side))
    if not getattr(getattr(backbone, "patch_embed", None), "strict_img_size", False):
        return backbone
    try:
        backbone, _ = build_backbone(replace(config, options={**config.options, **ANY_SIZE}), image_size=(side, side))
    except ConfigError as error:
        raise _one_size(config) from error
    return backbone


def _one_size(config: EncoderConfig) -> ConfigError:
    way_out = "choose a plain ViT, ResNet, HRNet, ConvNeXt, Swin or another pyramid"
    return ConfigError(f"encoder={config.name} takes images of one size only; {way_out}")
