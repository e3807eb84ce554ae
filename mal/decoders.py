"""Mask decoders: features of B crops → mask logits, grouped by object size (§3.2, Fig. 3, A.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.config import DecoderConfig
from mal.encoders import Encoder, Features
from mal.errors import NotBuiltYet

STRIDES = {"released": (32, 16, 8), "paper": (16, 8, 4)}  # crop side ÷ map side before V's doubling, for S, M, L


class AttentionDecoder(nn.Module):
    """D(E(I)) = K(E(I)) · V(E(I)): an instance-aware vector times a pixel-wise map (Fig. 3c).

    K pools the unresized last map and maps it to `width` channels: one FC after max pooling in the paper, FC-ReLU-FC
    after mean pooling in the released program. V is four 3 × 3 convolutions, ReLU after each, with one bilinear ×2
    among them, on the map resized by object size. The logit is K·V at each pixel, without bias.
    """

    def __init__(self, config: DecoderConfig, *, last_channels: int, fine_channels: int) -> None:
        super().__init__()
        width = config.width
        self.pool, self.upsample_before = config.pool, config.upsample_before
        self.strides = tuple(config.strides or STRIDES[config.scale])
        hidden = [nn.Linear(last_channels, width), nn.ReLU()] if config.key_layers == 2 else []
        last = nn.Linear(width if hidden else last_channels, width)
        self.key = nn.Sequential(*hidden, last)
        convolutions = [nn.Conv2d(fine_channels if i == 0 else width, width, 3, padding=1) for i in range(4)]
        self.value = nn.ModuleList(convolutions)
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            for convolution in convolutions:
                convolution.bias.zero_()  # type: ignore[union-attr]
            last.weight.mul_(config.key_gain)
            last.bias.mul_(config.key_gain)

    def forward(self, features: Features, sizes: Tensor, *, image_size: int) -> list[tuple[Tensor, Tensor]]:
        """Logits, one group for each object size present.

        Args:
            features: of B crops.
            sizes: (B,) int64 on the CPU: 0, 1, 2 for S, M, L.
            image_size: side of the crops in pixels.

        Returns:
            Pairs of indices (n,) into the batch and logits (n, s, s), s = 2 · image_size / stride of the size.
        """
        last = features.last
        keys = self.key(last.amax(dim=(2, 3)) if self.pool == "max" else last.mean(dim=(2, 3)))
        groups = []
        for size, stride in enumerate(self.strides):
            chosen = (sizes == size).nonzero()[:, 0].to(keys.device)
            if len(chosen):
                side = max(1, image_size // stride)
                values = self._values(resize(features.fine[chosen], side))
                groups.append((chosen, torch.einsum("bc,bchw->bhw", keys[chosen], values)))
        return groups

    def _values(self, maps: Tensor) -> Tensor:
        for place, convolution in enumerate(self.value, start=1):
            if place == self.upsample_before:
                maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            maps = F.relu(convolution(maps))
        return maps


def require_built(name: str) -> None:
    """Refuse a decoder that the paper compares and this version does not have.

    Raises:
        NotBuiltYet.
    """
    if name not in DECODERS:
        raise NotBuiltYet(f"decoder={name} is not built yet; built: {', '.join(DECODERS)}")


def build_decoder(config: DecoderConfig, encoder: Encoder) -> nn.Module:
    """The decoder a config names.

    Raises:
        NotBuiltYet: see `require_built`.
    """
    require_built(config.name)
    return DECODERS[config.name](config, last_channels=encoder.last_channels, fine_channels=encoder.fine_channels)


DECODERS = {"attention": AttentionDecoder}


def resize(maps: Tensor, side: int) -> Tensor:
    """Bilinear, (B, C, h, w) → (B, C, side, side)."""
    if maps.shape[-2:] == (side, side):
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def gather(groups: list[tuple[Tensor, Tensor]], count: int, side: int) -> Tensor:
    """Groups of logits, resized to one side and put back in the batch's order: (count, side, side)."""
    whole = groups[0][1].new_zeros(count, side, side)
    for chosen, logits in groups:
        whole = whole.index_copy(0, chosen, resize(logits[:, None], side)[:, 0])
    return whole
