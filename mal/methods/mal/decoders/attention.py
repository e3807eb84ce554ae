"""The attention-based decoder, the paper's own (§3.2, Fig. 3c)."""

import torch
from torch import Tensor, nn

from mal.encoders.encoder import Features
from mal.methods.mal.config import DecoderConfig
from mal.methods.mal.decoders.pixels import Groups, PixelHead, scale_layer


class AttentionDecoder(nn.Module):
    """D(E(I)) = K(E(I)) · V(E(I)): an instance-aware vector times a pixel-wise map (Fig. 3c).

    K pools the unresized last map and maps it to `width` channels: one FC after max pooling in the paper, FC-ReLU-FC
    after mean pooling in the released program. V is `PixelHead`. The logit is K·V at each pixel, without bias.
    """

    def __init__(self, config: DecoderConfig, *, last_channels: int, fine_channels: int) -> None:
        super().__init__()
        width = config.width
        self.pool = config.pool
        hidden = [nn.Linear(last_channels, width), nn.ReLU()] if config.key_layers == 2 else []
        last = nn.Linear(width if hidden else last_channels, width)
        self.key = nn.Sequential(*hidden, last)
        self.value = PixelHead(config, channels=fine_channels)
        scale_layer(last, config.key_gain)

    def forward(self, features: Features, sizes: Tensor, *, image_size: int) -> Groups:
        """Logits, one group for each object size present; arguments and sizes as in `PixelHead.by_size`."""
        last = features.last
        keys = self.key(last.amax(dim=(2, 3)) if self.pool == "max" else last.mean(dim=(2, 3)))
        return [
            (chosen, torch.einsum("bc,bchw->bhw", keys[chosen], values))
            for chosen, values in self.value.by_size(features, sizes, image_size=image_size)
        ]
