"""Which pixels of two images are compared. Drawn on the CPU, where the batch comes from, so that a GPU waits for
nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from mal.data.semantic import IGNORED
from mal.engine.runtime import sent
from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.data import Batch

STRIDE = 4  # of the pixel embeddings
EVERY = 5  # the released program counts the pairs of every fifth point


@dataclass
class PairPoints:
    """The pixels of two images that are compared: places in the row-major maps at the embeddings' stride."""

    images: tuple[int, int]  # positions in the batch
    places: tuple[Tensor, Tensor]  # of SimLoss, (J,) in each image
    labels: tuple[Tensor, Tensor]  # of their base classes there, 255 for none
    truth: tuple[Tensor, Tensor] | None  # (J / 5,) with the hidden classes, for the released count
    hidden: tuple[Tensor, Tensor] | None  # of DistLoss, at most J; None where the two share no novel class

    def to(self, device: torch.device) -> Self:
        def moved(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            first, second = (sent(each, device) for each in pair)
            return first, second

        return replace(
            self,
            places=moved(self.places),
            labels=moved(self.labels),
            truth=None if self.truth is None else moved(self.truth),
            hidden=None if self.hidden is None else moved(self.hidden),
        )


def draw_points(
    batch: Batch, pairs: PairsConfig, distillation: DistillationConfig, generator: torch.Generator
) -> list[PairPoints]:
    """The points of each pair of a batch.

    Args:
        batch: on the CPU.
        generator: on the CPU; the same state, the same points.
    """
    return [_points(batch, pair, pairs, distillation, generator) for pair in batch.pairs]


def _points(
    batch: Batch,
    pair: tuple[int, int],
    config: PairsConfig,
    distillation: DistillationConfig,
    generator: torch.Generator,
) -> PairPoints:
    labels = [_shrunk(batch.labels[image]) for image in pair]
    inside = [_shrunk(batch.inside[image]) for image in pair]
    chosen = shared_class(labels[0], labels[1], generator)
    places, hidden = [], []
    for values, real in zip(labels, inside, strict=True):
        wanted = values == chosen if chosen is not None else values != IGNORED
        regions = (wanted & real, ~wanted & real)
        places.append(draw(regions, config.points, first=round(config.share * config.points), generator=generator))
    tags = [set(batch.tags[image]) for image in pair]
    if distillation.weight and tags[0] & tags[1]:
        draw_hidden = HIDDEN[distillation.points]
        hidden = [draw_hidden(*maps, config.points, generator) for maps in zip(labels, inside, strict=True)]
    truth = None
    if batch.truth is not None:
        there = [_shrunk(batch.truth[i])[at[::EVERY]] for i, at in zip(pair, places, strict=True)]
        truth = (there[0], there[1])
    return PairPoints(
        images=pair,
        places=(places[0], places[1]),
        labels=(labels[0][places[0]], labels[1][places[1]]),
        truth=truth,
        hidden=(hidden[0], hidden[1]) if hidden else None,
    )


def _shrunk(values: Tensor) -> Tensor:
    """(H, W) → (H/4 · W/4,), of the nearest pixels as torch's `nearest` has them."""
    return values[::STRIDE, ::STRIDE].flatten()


def shared_class(first: Tensor, second: Tensor, generator: torch.Generator) -> int | None:
    """One of the classes that two maps of labels both have, drawn; None where they have none in common."""
    common = sorted((set(first.unique().tolist()) & set(second.unique().tolist())) - {IGNORED})
    return common[int(torch.randint(len(common), (), generator=generator))] if common else None


def draw(regions: tuple[Tensor, Tensor], count: int, *, first: int, generator: torch.Generator) -> Tensor:
    """(count,) places: `first` of them from the first region, the others from the second.

    Where one region is short, more come from the other; where both are together, their places come again.

    Args:
        regions: (n,) bool each, not both empty and without a place in common.
    """
    wanted, rest = (_shuffled(region, generator) for region in regions)
    many = max(min(first, len(wanted)), min(count - len(rest), len(wanted)))
    chosen = torch.cat([wanted[:many], rest[: count - many]])
    return chosen[torch.arange(count) % len(chosen)]


def _shuffled(region: Tensor, generator: torch.Generator) -> Tensor:
    places = region.nonzero()[:, 0]
    return places[torch.randperm(len(places), generator=generator)]


def hidden_inside(labels: Tensor, inside: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(at most count,) places of an image's pixels that are of no base class."""
    return _shuffled((labels == IGNORED) & inside, generator)[:count]


def hidden_anywhere(labels: Tensor, inside: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) places of no base class, padding included, and of any where these are short: as released."""
    hidden = (labels == IGNORED) | ~inside
    return draw((hidden, ~hidden), count, first=count, generator=generator)


HIDDEN: dict[str, Callable[[Tensor, Tensor, int, torch.Generator], Tensor]] = {
    "paper": hidden_inside,
    "released": hidden_anywhere,
}
