"""A small network of Partial-RES's, and a batch that it can read, for tests."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mal.config import Config
from mal.encoders.config import EncoderConfig
from mal.methods.partialres.config.network import NetworkConfig, PartsConfig, QueryConfig, TextConfig
from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.memory import Memory
from mal.methods.partialres.network import PartialRes
from mal.methods.partialres.positions import padding_of, valid_cells
from mal.methods.partialres.text.vocabulary import Vocabulary

LEXICON = Vocabulary(tuple(f"word{i}" for i in range(7)))
IDS = len(LEXICON)
BINS, POINTS = 16, 5
ENCODER = EncoderConfig(
    name="nano", timm="convnext_tiny", pretrained=False, options={"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
)
NETWORK = NetworkConfig(
    width=16, heads=2, encoder_layers=1, decoder_layers=2, feed_forward=24, dropout=0.1, stride=8,
    text=TextConfig(width=6, hidden=5, words=4), query=QueryConfig(queries=3),
)  # fmt: skip
PLAIN = PartsConfig(cctf="none", pmca=False)


def config(*, task: str = "learnable", **network: Any) -> Config:
    made = Config()
    made.profile, made.recipe, made.labeler.name = "smoke", "ours", "partialres"
    made.encoder, made.train.precision = ENCODER, "fp32"
    made.data.name, made.decoder.name = "scenes", "none"
    made.partialres.network = replace(NETWORK, **network)
    made.partialres.sequence = SequenceConfig(points=POINTS, bins=BINS, task=task)
    return made


def network(
    *, task: str = "learnable", parts: PartsConfig | None = None, boxes_only: bool = False, **changed: Any
) -> PartialRes:
    torch.manual_seed(0)
    return PartialRes(
        config(task=task, **changed), lexicon=LEXICON, parts=parts or PartsConfig(), load=False, boxes_only=boxes_only
    )


def batch(size: int = 3, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Images, words and valid shares; the images differ in shape, the expressions in length."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(2, IDS, (size, 4), generator=generator)
    for i in range(size):
        words[i, 1 + i % 4 :] = 0
    valid = torch.tensor([[1.0, 0.75], [0.5, 1.0], [1.0, 1.0]]).repeat(-(-size // 3), 1)[:size]
    return torch.rand(size, 3, side, side, generator=generator), words, valid


def inputs(task: str, size: int = 3, points: int = POINTS) -> Tensor:
    """Input tokens of a whole sequence: `box` | `mask` | `taskwise`."""
    generator = torch.Generator().manual_seed(2)
    box = torch.randint(0, BINS, (size, 4), generator=generator)
    contour = torch.randint(0, BINS, (size, 2 * points), generator=generator)
    of_box, of_mask = torch.full((size, 1), BINS + 1), torch.full((size, 1), BINS + 2)
    parts = {"box": [of_box, box], "mask": [of_mask, contour], "taskwise": [of_box, box, of_mask, contour]}
    return torch.cat(parts[task], dim=1)


def memory(grid: tuple[int, int] = (4, 6), size: int = 3, width: int = 16) -> Memory:
    """Noise in float64 and a language token; of the images one lacks the last row, one the right half."""
    generator = torch.Generator().manual_seed(3)
    count = grid[0] * grid[1] + 1
    tokens, positions = (torch.randn(size, count, width, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = torch.tensor([[1.0, 0.75], [0.5, 1.0], [1.0, 1.0]], dtype=torch.float64)[:size]
    padding = padding_of(valid_cells(valid, grid), grid).flatten(1)
    padding = torch.cat([padding, torch.zeros(size, 1, dtype=torch.bool)], dim=1)
    return Memory(tokens, positions, padding, grid, valid)
