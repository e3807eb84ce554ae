"""A timm backbone as a feature pyramid: images → its own maps of strides 4, 8, 16 and 32."""

from collections.abc import Sequence
from dataclasses import replace

from mal.encoders.backbones import build_backbone
from mal.encoders.config import EncoderConfig
from mal.encoders.own_maps import OwnMaps
from mal.errors import ConfigError

STRIDES = (4, 8, 16, 32)
PROBE = (64, 64)  # height and width of the blank image that the widths are measured on


class Pyramid(OwnMaps):
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

    def __init__(self, config: EncoderConfig, *, load: bool = True, strides: Sequence[int] = STRIDES) -> None:
        settings = config if load else replace(config, pretrained=False, checkpoint=None)
        backbone, _ = build_backbone(settings, image_size=PROBE)
        found = [int(info["reduction"]) for info in backbone.feature_info]
        if len(set(found)) == 1 or any(stride not in found for stride in strides):
            raise ConfigError(
                f"encoder={config.name} gives maps of strides {sorted(set(found))}; a pyramid needs {list(strides)}: "
                "choose a ResNet, MobileNet, ConvNeXt, Swin or another pyramid"
            )
        if getattr(getattr(backbone, "patch_embed", None), "strict_img_size", False):
            raise ConfigError(
                f"encoder={config.name} takes images of one size only; set +encoder.options.strict_img_size=false"
            )
        super().__init__(backbone, [len(found) - 1 - found[::-1].index(stride) for stride in strides], config)
        self.widths = self._measured(PROBE)
        self.train()
