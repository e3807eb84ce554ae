"""Maps of an image and the vector of its expression, joined to tokens of one width."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mal.encoders.pyramid import STRIDES
from mal.methods.partialres.config.network import NetworkConfig

FURTHER = 2  # maps finer than the last that are joined to it, where there are as many
GROUPS = 32  # of the group norm, or what divides both it and the width
WIDEST = 7  # times `width`, of the last 3 × 3 convolution: 1792 at 256, what DarkNet-53's maps have joined
SLOPE = 0.1  # of LeakyReLU


class Fusion(nn.Module):
    """Each finer map, pooled to half its size and convolved, is joined to the next; tanh(v) ⊙ tanh(l) are the tokens.

    Args:
        config: `width` and `language_token` are used.
        channels: of the maps, finest first; each has half the side of the one before.
        language: channels of the expression's vector, which the joined map is brought to.
    """

    def __init__(self, config: NetworkConfig, *, channels: Sequence[int], language: int) -> None:
        super().__init__()
        self.language_token = config.language_token
        self.shrink = nn.ModuleList()
        joined, *coarser = channels
        for more in coarser:
            self.shrink.append(nn.Sequential(nn.AvgPool2d(2), *_convolution(joined, joined, 3)))
            joined += more
        inner = min(joined, WIDEST * config.width)
        self.join = nn.Sequential(*_convolution(joined, inner, 3), *_convolution(inner, language, 1))
        self.project = nn.Linear(language, config.width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.norm = nn.GroupNorm(math.gcd(GROUPS, config.width), config.width)

    def forward(self, maps: Sequence[Tensor], language: Tensor) -> Tensor:
        """(B, h · w + 1, d) tokens: the last map's cells row by row, then tanh(l), if it is a token.

        Args:
            maps: (B, C, H, W), finest first. language: (B, C).
        """
        joined, *coarser = maps
        for shrink, more in zip(self.shrink, coarser, strict=True):
            joined = torch.cat([shrink(joined), more], dim=1)
        pixels, words = self.join(joined).flatten(2).transpose(1, 2).tanh(), language.tanh()[:, None]
        tokens = pixels * words
        if self.language_token:
            tokens = torch.cat([tokens, words], dim=1)
        return self.norm(self.project(tokens).transpose(1, 2)).transpose(1, 2)


def joined_strides(last: int) -> list[int]:
    """Strides, ascending, of the map `last` and of up to FURTHER next finer ones."""
    place = STRIDES.index(last)
    return list(STRIDES[max(0, place - FURTHER) : place + 1])


def _convolution(inputs: int, outputs: int, side: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)]
