"""What the decoders share: maps of a size that follows the object's, and the convolutions on them (§3.2, A.2)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.encoders.bilinear import resize
from mal.encoders.encoder import Features
from mal.methods.mal.config import DecoderConfig

STRIDES = {"released": (32, 16, 8), "paper": (16, 8, 4)}  # crop side ÷ map side before V's doubling, for S, M, L
Groups = list[tuple[Tensor, Tensor]]  # indices (n,) into the batch, logits (n, s, s)


class PixelHead(nn.ModuleList):
    """V: four 3 × 3 convolutions, ReLU after each, one bilinear ×2 among them, on the map resized by object size."""

    def __init__(self, config: DecoderConfig, *, channels: int) -> None:
        convolutions = [nn.Conv2d(channels if i == 0 else config.width, config.width, 3, padding=1) for i in range(4)]
        super().__init__(convolutions)
        self.upsample_before = config.upsample_before
        self.strides = tuple(config.strides or STRIDES[config.scale])
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            convolution.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, maps: Tensor) -> Tensor:
        """(n, C, h, w) → (n, width, 2h, 2w)."""
        for place, convolution in enumerate(self, start=1):
            if place == self.upsample_before:
                maps = resize(maps, (2 * maps.shape[-2], 2 * maps.shape[-1]))
            maps = F.relu(convolution(maps))
        return maps

    def by_size(self, features: Features, sizes: Tensor, *, image_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """V's values, one group for each object size present.

        Args:
            features: of B crops.
            sizes: (B,) int64 on the CPU: 0, 1, 2 for S, M, L.
            image_size: side of the crops in pixels.

        Yields:
            Indices (n,) into the batch and values (n, width, s, s), s = 2 · image_size / stride of the size.
        """
        for size, stride in enumerate(self.strides):
            chosen = (sizes == size).nonzero()[:, 0].to(features.fine.device, non_blocking=True)
            if len(chosen):
                side = max(1, image_size // stride)
                yield chosen, self(resize(features.fine[chosen], (side, side)))


def scale_layer(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Multiply a layer's weight and bias: at initialisation, so that the logits it leads to start near 0."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(gain)


def gather(groups: Groups, count: int, side: int) -> Tensor:
    """Groups of logits, resized to one side and put back in the batch's order: (count, side, side)."""
    whole = groups[0][1].new_zeros(count, side, side)
    for chosen, logits in groups:
        whole = whole.index_copy(0, chosen, resize(logits[:, None], (side, side))[:, 0])
    return whole
