"""From maps of a plain ViT, all of one stride, to a feature pyramid."""

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mal.errors import ConfigError


class Neck(nn.Module):
    """A feature pyramid (Lin et al., 2017) over four blocks' maps, each first brought to a stride of its own.

    A map becomes finer by transposed convolutions, each of which halves the stride (batch norm and GELU between two of
    them), and coarser by max pooling: with patches of 16 pixels and strides 4, 8, 16, 32 as ViT detectors have it since
    XCiT (El-Nouby et al., 2021). The fifth level is the fourth, subsampled.

    Args:
        channels: of the ViT.
        width: of every level.
        patch: the ViT's, in pixels. strides: of the levels but the last.

    Raises:
        ConfigError: a stride is not the patch times or divided by a power of two.
    """

    def __init__(self, channels: int, *, width: int, patch: int, strides: list[int]) -> None:
        super().__init__()
        self.resize = nn.ModuleList(resizing(channels, patch=patch, stride=stride) for stride in strides)
        names = [str(index) for index in range(len(strides))]
        self.pyramid = FeaturePyramidNetwork([channels] * len(strides), width, extra_blocks=LastLevelMaxPool())
        for layer in self.pyramid.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)  # as MMDetection has it; biases are 0
        self.names = names

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """(B, channels, h, w) from each block, the earliest first → the levels (B, width, h', w'), the finest first."""
        resized = [layer(map_) for layer, map_ in zip(self.resize, maps, strict=True)]
        return self.pyramid(dict(zip(self.names, resized, strict=True)))


def resizing(channels: int, *, patch: int, stride: int) -> nn.Module:
    """The layers that bring a map of stride `patch` to `stride`.

    Raises:
        ConfigError.
    """
    fine, coarse = patch // stride, stride // patch
    factor = max(fine, coarse)
    if factor & (factor - 1) or max(fine * stride, coarse * patch) != max(patch, stride):
        raise ConfigError(
            f"detector.neck.strides has {stride}, which is not the patch of {patch} pixels times or divided by a power "
            "of two; choose strides that are"
        )
    if coarse > 1:
        return nn.MaxPool2d(coarse)
    layers: list[nn.Module] = []
    for index in range(fine.bit_length() - 1):
        layers += [nn.BatchNorm2d(channels), nn.GELU()] if index else []
        layers.append(nn.ConvTranspose2d(channels, channels, 2, stride=2))
    return nn.Sequential(*layers)
