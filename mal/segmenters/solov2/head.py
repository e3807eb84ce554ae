"""The network of SOLOv2 (Wang et al., 2020): kernels and categories by grid cell, and one map of mask features."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.deformable import DeformableConv, deform
from mal.segmenters.pyramids import build_pyramid

STRIDES = (8, 8, 16, 32, 32)  # of the maps the grids are read from: P2 is halved, P6 doubled
PRIOR = 0.01  # a cell's score for each category at the start, as focal loss wants it


class Outputs(NamedTuple):
    """What the network says about a batch. Cells run level after level, row after row."""

    kernels: Tensor  # (B, cells, E)
    logits: Tensor  # (B, cells, categories)
    features: Tensor  # (B, E, h, w) at stride 4


def with_coordinates(maps: Tensor) -> Tensor:
    """(B, C, h, w) → (B, C + 2, h, w): x, then y of each pixel, from −1 at the first to 1 at the last."""
    batch, _, height, width = maps.shape
    x = torch.linspace(-1, 1, width, device=maps.device, dtype=maps.dtype).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=maps.device, dtype=maps.dtype)[:, None].expand(batch, 1, height, width)
    return torch.cat([maps, x, y], dim=1)


def dynamic_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """Mask logits: each kernel as a 1 × 1 convolution of the features. (n, E) and (E, h, w) → (n, h, w)."""
    return (kernels @ features.flatten(1)).view(len(kernels), *features.shape[1:])


class GridHead(nn.Module):
    """The two branches by grid cell, shared by all levels; the kernel branch sees coordinates."""

    def __init__(self, channels: int, config: SegmenterConfig, *, classes: int) -> None:
        super().__init__()
        grid = config.grid
        self.cells = list(grid.cells)
        widths = [grid.width] * grid.convs
        self.kernel_branch = nn.Sequential(*_tower(channels + 2, widths))
        self.category_branch = nn.Sequential(*_tower(channels, widths))
        self.kernel = nn.Conv2d(grid.width, grid.kernel, 3, padding=1)
        self.category = nn.Conv2d(grid.width, classes, 3, padding=1)
        _initialise(self)
        assert self.category.bias is not None
        nn.init.constant_(self.category.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) a level, of STRIDES → kernels (B, cells, E) and category logits (B, cells, classes)."""
        kernels, logits = [], []
        for level, cells in zip(maps, self.cells, strict=True):
            located = F.interpolate(with_coordinates(level), size=(cells, cells), mode="bilinear")
            kernels.append(self.kernel(self.kernel_branch(located)).flatten(2))
            logits.append(self.category(self.category_branch(located[:, :-2])).flatten(2))
        return torch.cat(kernels, dim=2).transpose(1, 2), torch.cat(logits, dim=2).transpose(1, 2)


class MaskFeatures(nn.Module):
    """P2 to P5, each brought to stride 4 and summed, then mixed; the coarsest sees coordinates."""

    def __init__(self, channels: int, config: SegmenterConfig) -> None:
        super().__init__()
        width = config.grid.mask_width
        self.levels = nn.ModuleList([nn.Sequential(*_convolution(channels, width))])
        for level in (1, 2, 3):
            steps: list[nn.Module] = []
            for below in [channels + 2 * (level == 3)] + [width] * (level - 1):
                steps += [*_convolution(below, width), nn.Upsample(scale_factor=2, mode="bilinear")]
            self.levels.append(nn.Sequential(*steps))
        self.out = nn.Sequential(*_convolution(width, config.grid.kernel, side=1))
        _initialise(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of strides 4, 8, 16 and 32 → (B, E, h, w) at stride 4."""
        located = [*maps[:-1], with_coordinates(maps[-1])]
        return self.out(sum(level(x) for level, x in zip(self.levels, located, strict=True)))


class Solov2(nn.Module):
    """Backbone, FPN, grid head and mask features. The sides of the images must be multiples of 32 pixels."""

    def __init__(self, config: SegmenterConfig, *, classes: int, load: bool) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_pyramid(config, load=load)
        self.grid_head = GridHead(config.pyramid.channels, config, classes=classes)
        self.mask_features = MaskFeatures(config.pyramid.channels, config)
        if config.dcn:  # in the heads too: all but the last convolution of each branch
            head = self.grid_head
            deform([head.kernel_branch, head.category_branch, self.mask_features.levels])
            if config.grid.deform_out:
                last = self.mask_features.out[0]
                assert isinstance(last, nn.Conv2d)
                self.mask_features.out[0] = DeformableConv(last)

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, H, W), normalised."""
        p2, p3, p4, p5, p6 = self.backbone(images).values()
        halved = F.interpolate(p2, scale_factor=0.5, mode="bilinear")
        doubled = F.interpolate(p6, size=p5.shape[-2:], mode="bilinear")
        kernels, logits = self.grid_head([halved, p3, p4, p5, doubled])
        return Outputs(kernels, logits, self.mask_features([p2, p3, p4, p5]))


def _tower(below: int, widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += _convolution(below, width)
        below = width
    return layers


def _convolution(below: int, width: int, *, side: int = 3) -> list[nn.Module]:
    """A convolution, group norm (32 groups, fewer where they would have under 4 channels) and ReLU."""
    norm = nn.GroupNorm(math.gcd(32, width // 4), width)
    return [nn.Conv2d(below, width, side, padding=side // 2, bias=False), norm, nn.ReLU(inplace=True)]


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
