"""A timm backbone as a feature pyramid: images → its own maps of strides 4, 8, 16 and 32."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from mal.encoders.backbones import build_backbone
from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import prune, statistics, still_norms, takes_norm
from mal.encoders.normalise import normalise
from mal.errors import ConfigError

STRIDES = (4, 8, 16, 32)
PROBE = (64, 64)  # height and width of the blank image that the widths are measured on


class Pyramid(nn.Module):
    """The maps of a ResNet, ConvNeXt, Swin, MobileNet or another pyramid, of images of any size.

    Args:
        config: `levels`, `fuse` and `width` are not used.
        load: fill in the starting weights; false when a trained network's will follow.
        strides: of the maps that are wanted, ascending, among STRIDES; stages behind the last of them are dropped.

    Attributes:
        widths: channels of the maps, finest first.

    Raises:
        ConfigError: the model has no map of one of the strides, or takes images of one size only.
        WeightsError: its weights cannot be had.
    """

    backbone: Any  # timm's models share no type

    def __init__(self, config: EncoderConfig, *, load: bool = True, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        settings = config if load else replace(config, pretrained=False, checkpoint=None)
        self.backbone, _ = build_backbone(settings, image_size=PROBE)
        found = [int(info["reduction"]) for info in self.backbone.feature_info]
        if len(set(found)) == 1 or any(stride not in found for stride in strides):
            raise ConfigError(
                f"encoder={config.name} gives maps of strides {sorted(set(found))}; a pyramid needs {list(strides)}: "
                "choose a ResNet, MobileNet, ConvNeXt, Swin or another pyramid"
            )
        if getattr(getattr(self.backbone, "patch_embed", None), "strict_img_size", False):
            raise ConfigError(
                f"encoder={config.name} takes images of one size only; set +encoder.options.strict_img_size=false"
            )
        self.indices = [len(found) - 1 - found[::-1].index(stride) for stride in strides]
        self.norm = takes_norm(self.backbone)
        prune(self.backbone, self.indices)
        self.mean, self.std = statistics(config, self.backbone)
        self.freeze_norm = config.freeze_norm
        if config.freeze_norm:
            still_norms(self.backbone)
        self.widths = self._measure()
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """
        Args:
            images: (B, 3, H, W) RGB in [0, 1]; where H and W are multiples of 32, all strides are exact.

        Returns:
            Maps (B, C, H / stride, W / stride), finest first.
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
        return [int(found.shape[1]) for found in self._maps(torch.zeros(1, 3, *PROBE))]
