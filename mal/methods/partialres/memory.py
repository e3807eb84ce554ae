"""What a decoder reads: the tokens of an image and its expression, encoded together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mal.config import Config
from mal.encoders.pyramid import STRIDES, Pyramid
from mal.methods.partialres.attention import hide
from mal.methods.partialres.encoder import Encoder
from mal.methods.partialres.fusion import Fusion, joined_strides
from mal.methods.partialres.positions import padding_of, sine_positions, valid_cells
from mal.methods.partialres.text.lexicon import Lexicon, text_encoder


class Memory(NamedTuple):
    """Attributes, S = h · w + 1 (h · w without a language token):
    tokens: (B, S, d), row by row, language last.
    positions: (B, S, d) float32, 0 for language.
    padding: (B, S) bool, true outside the image.
    grid: h and w, of the whole square.
    valid: (B, 2) width and height of the image as shares of the square.
    """

    tokens: Tensor
    positions: Tensor
    padding: Tensor
    grid: tuple[int, int]
    valid: Tensor

    @property
    def others(self) -> int:
        """Tokens behind those of the image."""
        return self.tokens.shape[1] - self.grid[0] * self.grid[1]

    @property
    def cells(self) -> Tensor:
        """(B, 2) int64 columns and rows that the image fills."""
        return valid_cells(self.valid, self.grid)

    def image(self) -> tuple[Tensor, Tensor]:
        """The image's tokens (B, h, w, d) and their padding (B, h, w)."""
        count = self.grid[0] * self.grid[1]
        return self.tokens[:, :count].unflatten(1, self.grid), self.padding[:, :count].unflatten(1, self.grid)


class Encoders(nn.Module):
    """A pyramid of maps and an encoder of text, fused and encoded: images and expressions → `Memory`.

    Args:
        config: `encoder` and `partialres.network` are used.
        lexicon: of the words that it reads.
        load: fill in the weights of the backbone and the text encoder; false when a trained network's will follow.
        finest: the backbone gives its map of stride 4, too, whether or not it is joined.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(
        self,
        config: Config,
        *,
        lexicon: Lexicon,
        load: bool = True,
        finest: bool = False,
    ) -> None:
        super().__init__()
        settings = config.partialres.network
        self.width = settings.width
        joined = joined_strides(settings.stride)
        strides = sorted({*joined, *(STRIDES[:1] if finest else ())})
        self.backbone = Pyramid(config.encoder, load=load, strides=strides)
        self.text = text_encoder(settings.text, lexicon, load=load)
        self.joined = [strides.index(stride) for stride in joined]
        channels = [self.backbone.widths[i] for i in self.joined]
        self.fusion = Fusion(settings, channels=channels, language=self.text.channels)
        self.encoder = Encoder(settings)

    def forward(self, images: Tensor, words: Tensor, valid: Tensor) -> Memory:
        """
        Args:
            images: (B, 3, S, S) RGB in [0, 1], letterboxed; S is a multiple of 32.
            words: (B, T) int64 ids, 0 behind the last, on the CPU. valid: (B, 2), see `Memory`.
        """
        return self.remember(self.backbone(images), words, valid)

    def remember(self, maps: Sequence[Tensor], words: Tensor, valid: Tensor) -> Memory:
        """The same of the backbone's maps, finest first."""
        maps = [maps[i] for i in self.joined]
        grid = (maps[-1].shape[-2], maps[-1].shape[-1])
        tokens = self.fusion(maps, self.text(words))
        cells = valid_cells(valid, grid)
        others = tokens.shape[1] - grid[0] * grid[1]
        positions = _followed(sine_positions(cells, grid, self.width).flatten(1, 2), others)
        padding = _followed(padding_of(cells, grid).flatten(1), others)
        return Memory(self.encoder(tokens, positions, hide(padding)), positions, padding, grid, valid)


def _followed(of_cells: Tensor, others: int) -> Tensor:
    """(B, h · w, …) and zeros (False) for `others` more."""
    return torch.cat([of_cells, of_cells.new_zeros(len(of_cells), others, *of_cells.shape[2:])], dim=1)
