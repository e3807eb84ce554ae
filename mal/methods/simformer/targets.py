"""What the queries of an image are to find: base classes with their masks, novel ones by their tags."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.engine.runtime import sent


@dataclass
class Targets:
    """The n targets of an image, one per class: base ones first, each kind sorted by class.

    Attributes:
        labels: (n,) classes, on the CPU, which matches them.
        masks: (n, H, W) bool, all zero for novel ones; where the image's labels are.
        base: how many of them count as base, whatever their masks; the others behind count as novel.
    """

    labels: Tensor
    masks: Tensor
    base: int


def targets_of(labels: Tensor, base: Sequence[int], tags: Sequence[int]) -> Targets:
    """The targets of a crop.

    Args:
        labels: (H, W) integers, base classes or 255.
        base: the classes among them, ascending.
        tags: the image's novel classes; none of them may have pixels.
    """
    assert not set(base) & set(tags), "a class of which there are pixels is no tag"
    every = torch.tensor([*base, *sorted(tags)], dtype=torch.long)
    masks = labels.new_zeros(len(every), *labels.shape, dtype=torch.bool)
    masks[: len(base)] = labels == sent(every[: len(base), None, None], labels.device)
    return Targets(every, masks, len(base))


def shrunk(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W) bool → (n, *size) float32 of 0 and 1, by nearest."""
    if not len(masks):
        return masks.new_zeros(0, *size, dtype=torch.float32)
    return F.interpolate(masks[None].float(), size=size, mode="nearest")[0]


def by_emptiness(targets: Targets, size: tuple[int, int]) -> tuple[Targets, Tensor]:
    """The released program's reading of the same targets, which tells novel ones by masks that are empty at `size`.

    It computes costs of the targets with a mask first and of the others behind, and then takes a column's number for a
    target's: from a base class on whose mask was lost, columns and targets are out of step.

    Returns:
        The targets, of which as many count as base, and (n,) which of them each column's cost is of.
    """
    empty = ~shrunk(targets.masks, size).flatten(1).any(dim=1).cpu()
    order = torch.cat([(~empty).nonzero()[:, 0], empty.nonzero()[:, 0]])
    return replace(targets, base=int((~empty).sum())), order
