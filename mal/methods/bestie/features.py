"""An encoder's maps of images of any size: those of a pyramid, or the last one of a plain ViT."""

from dataclasses import replace
from typing import Any

from mal.encoders.backbones import build_backbone
from mal.encoders.config import EncoderConfig
from mal.encoders.own_maps import OwnMaps
from mal.errors import ConfigError

FINEST = 4  # the smallest stride that is read
ANY_SIZE = {"dynamic_img_size": True}  # timm's word for positions that are resized to an image's


class Features(OwnMaps):
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

    def __init__(self, config: EncoderConfig, *, side: int, load: bool = True) -> None:
        settings = config if load else replace(config, pretrained=False, checkpoint=None)
        backbone = _build(settings, side)
        strides = [int(info["reduction"]) for info in backbone.feature_info]
        plain = len(set(strides)) == 1
        indices = [
            place
            for place, stride in enumerate(strides)
            if (plain and place == len(strides) - 1)
            or (not plain and stride >= FINEST and stride not in strides[place + 1 :])
        ]
        super().__init__(backbone, indices, config)
        self.multiple = max(strides)
        try:
            self.widths = self._measured((self.multiple * 2, self.multiple * 3))
        except (AssertionError, RuntimeError) as error:  # as each family says it
            raise _one_size(config) from error
        self.train()


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
