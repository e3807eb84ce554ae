"""Image encoders: any timm model → feature maps in (B, C, h, w)."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from mal.encoders.backbones import build_backbone
from mal.encoders.bilinear import resize
from mal.encoders.config import EncoderConfig
from mal.encoders.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from mal.encoders.patches import cut_patches_by_products
from mal.errors import ConfigError

FINEST = 4  # the smallest stride that `encoder.fuse` takes


@dataclass
class Features:
    """What the decoder sees of a batch of crops."""

    last: Tensor  # (B, C, h, w): the encoder's last layer, after its final norm where it has one
    fine: Tensor  # (B, D, H, W): the same, or the fused map where `encoder.levels` asks for one


class Encoder(nn.Module):
    """A timm backbone without its head.

    Plain ViTs give their last layer after the final norm, class and register tokens dropped, at the patch's stride
    (where timm keeps that norm behind the pooling, as for EVA-02, it is applied to the tokens; SAM's is its neck);
    Swin, ConvNeXt and other pyramids their last stage (a ConvNeXt's norm follows its pooling and is left out).

    With `levels`, the named strides are fused top-down to the finest: each is brought to `width` channels by a 1 × 1
    convolution and a group norm (stages differ in scale by an order of magnitude), and the coarser sum, resized
    bilinearly, is added (the paper fuses nothing; §3.2 and A.2 report a drop from it on ViTs).

    Crops whose sides are no multiples of the model's stride are resized up to the next, so that no edge is dropped.
    """

    backbone: Any  # timm's models share no type

    def __init__(self, config: EncoderConfig, *, image_size: int | tuple[int, int]) -> None:
        """image_size: the side of the crops in pixels, or their height and width."""
        super().__init__()
        asked = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.backbone, self.image_size = build_backbone(config, image_size=asked)
        strides = [int(info["reduction"]) for info in self.backbone.feature_info]
        levels = _level_indices(config, strides)
        self.indices = sorted({*levels, len(strides) - 1})
        self.norm = takes_norm(self.backbone)
        cut_patches_by_products(self.backbone)
        prune(self.backbone, self.indices)
        self.mean, self.std = statistics(config, self.backbone)
        self.freeze_norm = config.freeze_norm
        if config.freeze_norm:
            still_norms(self.backbone)
        widths = [m.shape[1] for m in self._probe()]
        self.lateral = nn.ModuleList(_lateral(width, config.width) for width in widths[: len(levels)])
        self.last_channels = widths[-1]
        self.fine_channels = config.width if levels else widths[-1]
        self.train()

    def prepare(self, images: Tensor) -> Tensor:
        """What the backbone sees of crops (B, 3, H, W), RGB in [0, 1]: at the size it wants, normalised."""
        if images.shape[-2:] != self.image_size:
            images = resize(images, self.image_size)
        return normalise(images, self.mean, self.std)

    def forward(self, images: Tensor) -> Features:
        """images: (B, 3, H, W) RGB in [0, 1]."""
        maps = self._maps(self.prepare(images))
        if not self.lateral:
            return Features(last=maps[-1], fine=maps[-1])
        fine = self.lateral[-1](maps[len(self.lateral) - 1])
        for level in range(len(self.lateral) - 2, -1, -1):
            side_map = self.lateral[level](maps[level])
            fine = side_map + resize(fine, (side_map.shape[-2], side_map.shape[-1]))
        return Features(last=maps[-1], fine=fine)

    def train(self, mode: bool = True) -> Self:
        """Training mode; frozen batch norms keep using their loaded statistics."""
        super().train(mode)
        if self.freeze_norm:
            still_norms(self.backbone)
        return self

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone.forward_intermediates(
            images, indices=self.indices, norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )
        if _norm_is_pooled(self.backbone):
            maps = [self.backbone.fc_norm(tokens.movedim(1, -1)).movedim(-1, 1) for tokens in maps]
        return maps

    @torch.no_grad()
    def _probe(self) -> list[Tensor]:
        """The maps of one blank crop: what the model says of its widths is not always so."""
        mode = self.backbone.training
        self.backbone.eval()
        maps = self._maps(torch.zeros(1, 3, *self.image_size))
        self.backbone.train(mode)
        return maps


def _level_indices(config: EncoderConfig, strides: list[int]) -> list[int]:
    """Which of the model's maps are fused, finest first; none where the last stage stands alone."""
    if config.levels is None:
        pyramid = config.fuse and len(set(strides)) > 1
        return (
            [i for i, stride in enumerate(strides) if stride >= FINEST and stride not in strides[i + 1 :]]
            if pyramid
            else []
        )
    levels = sorted(set(config.levels))
    if len(set(strides)) == 1:
        raise ConfigError(
            f"encoder.levels={config.levels}: {config.timm} is a plain ViT whose layers all have stride {strides[0]}; "
            "use encoder.levels=null"
        )
    if not levels or any(level not in strides for level in levels):
        raise ConfigError(f"encoder.levels={config.levels}: {config.timm} has strides {sorted(set(strides))}")
    return [len(strides) - 1 - strides[::-1].index(level) for level in levels]


def _lateral(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(math.gcd(8, width), width))


def prune(backbone: Any, indices: list[int]) -> None:
    """Drop what follows the last map, but not the norm of its tokens: what is left without a gradient stalls DDP."""
    norm = backbone.fc_norm if _norm_is_pooled(backbone) else None
    if hasattr(backbone, "prune_intermediate_layers"):
        backbone.prune_intermediate_layers(indices, prune_norm=False, prune_head=True)
    if norm is not None:
        backbone.fc_norm = norm
    if isinstance(head := getattr(backbone, "head", None), nn.Module) and any(True for _ in head.parameters()):
        backbone.head = nn.Identity()  # a ConvNeXt's keeps its norm


def _norm_is_pooled(backbone: Any) -> bool:
    """Whether a plain ViT's final norm sits behind its pooling, where timm puts it for mean-pooled heads."""
    norms = (getattr(backbone, "norm", None), getattr(backbone, "fc_norm", None))
    return isinstance(norms[0], nn.Identity) and isinstance(norms[1], nn.LayerNorm)


def takes_norm(backbone: nn.Module) -> bool:
    """Whether the family can apply its final norm to a returned map (Hiera's comes after pooling)."""
    return type(backbone).__name__ not in ("Hiera",)


def statistics(config: EncoderConfig, backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    default = getattr(backbone, "pretrained_cfg", {})
    mean = config.mean or default.get("mean") or IMAGENET_MEAN
    std = config.std or default.get("std") or IMAGENET_STD
    return tuple(mean), tuple(std)


def still_norms(module: nn.Module) -> None:
    """Batch norms in it learn nothing and use the statistics that they have, until the next `train()`."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.requires_grad_(False).eval()
