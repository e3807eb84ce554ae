"""Patch embeddings from the first stages of a trained convolutional network, for ViTs too small to learn their own."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.encoders.backbones import build_backbone, read_weights
from mal.encoders.config import EncoderConfig
from mal.encoders.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from mal.errors import ConfigError, WeightsError
from mal.methods.attentionshift.config.network import StemConfig
from mal.segmenters.weights import mismatches, refuse

SHIPPED = Path(__file__).parent / "stem.safetensors"  # made by experiments/attentionshift_stem.py


def stem_path(name: str) -> Path:
    """The file that a name stands for."""
    return SHIPPED if name == "shipped" else Path(name)


class Stem(nn.Module):
    """A map of one stride of a timm network, standardised per channel, cells of a patch stacked, then linear.

    Coarser maps of such networks see far beyond a patch and need not look at an object to know its class, so tokens
    that read them do not localise; those of stride 8 do.

    Args:
        patch: side of a patch in pixels, a multiple of the map's stride.
        channels: of the ViT.
        load: fill in the weights.

    Raises:
        ConfigError: the network has no map of that stride, or the patch is no multiple of it.
        WeightsError: its weights cannot be had.
    """

    body: Any

    def __init__(self, config: StemConfig, *, patch: int, channels: int, load: bool = True) -> None:
        super().__init__()
        known = EncoderConfig(
            name=str(config.timm),
            timm=str(config.timm),
            pretrained=config.pretrained and config.checkpoint is None and load,
            options=config.options,
        )
        self.body, _ = build_backbone(known, image_size=(224, 224))
        strides = [int(info["reduction"]) for info in self.body.feature_info]
        if config.stride not in strides or patch % config.stride:
            raise ConfigError(
                f"attentionshift.tokens.stem.stride={config.stride}: {config.timm} has strides {strides}, and the "
                f"encoder's patches of {patch} pixels must be a multiple of it"
            )
        self.index, self.stack = strides.index(config.stride), patch // config.stride
        self.body.prune_intermediate_layers([self.index], prune_norm=True, prune_head=True)
        if config.checkpoint is not None and load:
            self._load(stem_path(config.checkpoint))
        self.frozen = config.frozen
        if self.frozen:
            self.body.requires_grad_(False)
        pretrained = getattr(self.body, "pretrained_cfg", None) or {}
        self.mean = tuple(config.mean or pretrained.get("mean") or IMAGENET_MEAN)
        self.std = tuple(config.std or pretrained.get("std") or IMAGENET_STD)
        width = int(self.body.feature_info[self.index]["num_chs"])
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.linear = nn.Linear(width * self.stack**2, channels)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] → (B, h·w, channels), row by row."""
        cells = F.pixel_unshuffle(self.norm(self.cells(images)), self.stack)
        return self.linear(cells.flatten(2).transpose(1, 2))

    def cells(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] → (B, width, H / stride, W / stride), what the network gives."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            shown = normalise(images, self.mean, self.std)
            return self.body.forward_intermediates(shown, indices=[self.index], intermediates_only=True)[0]

    def _load(self, path: Path) -> None:
        """The body's weights from a file, which may hold more of the network."""
        try:
            whole = read_weights(path)
        except WeightsError as error:
            setting = "attentionshift.tokens.stem.checkpoint"
            raise WeightsError(str(error).replace("encoder.checkpoint", setting)) from error
        own = self.body.state_dict()
        state = {key: value for key, value in whole.items() if key in own}
        way_out = "give a file of attentionshift.tokens.stem.timm"
        refuse(mismatches(own, state), source=path, model="stem's network", way_out=way_out)
        self.body.load_state_dict({key: state[key].to(value.dtype) for key, value in own.items()})

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen body's batch norms keep using their loaded statistics."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self
