"""The fully connected and the fully convolutional decoder of Table 3 (§4.5, Fig. 3a and b)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.encoders.encoder import Features
from mal.methods.mal.config import DecoderConfig
from mal.methods.mal.decoders.pixels import Groups, PixelHead, scale_layer


class FullyConnectedDecoder(nn.Module):
    """FC-ReLU-FC from the pooled map to one logit for each cell of a fixed map (Fig. 3a).

    The paper states the hidden width, 2048, and no size of either map. At its 512² crops a layer on the whole
    32 × 32 × 768 map would have 1.6 billion weights, so the map is first averaged to `fc.pool`² cells. Object size
    changes nothing here: the mask map always has `fc.side`² cells.
    """

    def __init__(self, config: DecoderConfig, *, last_channels: int, fine_channels: int) -> None:  # noqa: ARG002
        super().__init__()
        sizes = config.fc
        self.grid, self.side = sizes.pool, sizes.side
        last = nn.Linear(sizes.hidden, sizes.side**2)
        self.layers = nn.Sequential(nn.Linear(fine_channels * sizes.pool**2, sizes.hidden), nn.ReLU(), last)
        scale_layer(last, config.key_gain)

    def forward(self, features: Features, sizes: Tensor, *, image_size: int) -> Groups:  # noqa: ARG002
        """One group with every crop: indices (B,) and logits (B, side, side)."""
        pooled = F.adaptive_avg_pool2d(features.fine, self.grid).flatten(1)
        logits = self.layers(pooled).unflatten(1, (self.side, self.side))
        return [(torch.arange(len(logits), device=logits.device), logits)]


class FullyConvolutionalDecoder(nn.Module):
    """V of the attention-based decoder, then a 1 × 1 convolution to one channel: no K, the same for every crop."""

    def __init__(self, config: DecoderConfig, *, last_channels: int, fine_channels: int) -> None:  # noqa: ARG002
        super().__init__()
        self.value = PixelHead(config, channels=fine_channels)
        self.last = nn.Conv2d(config.width, 1, 1)
        scale_layer(self.last, config.key_gain)

    def forward(self, features: Features, sizes: Tensor, *, image_size: int) -> Groups:
        """Logits, one group for each object size present; arguments and sizes as in `PixelHead.by_size`."""
        values = self.value.by_size(features, sizes, image_size=image_size)
        return [(chosen, self.last(maps)[:, 0]) for chosen, maps in values]
