"""What the queries of an image are to find: base classes with their masks, novel ones by their tags."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.data.semantic import IGNORED


@dataclass
class Targets:
    """The n targets of an image, one per class: base ones first, each kind sorted by class.

    Attributes:
        labels: (n,) classes.
        novel: (n,) bool; a flag of the target's, whatever its mask.
        masks: (n, H, W) bool, all zero for novel ones.
    """

    labels: Tensor
    novel: Tensor
    masks: Tensor


def targets_of(labels: Tensor, tags: Sequence[int]) -> Targets:
    """The targets of a crop.

    Args:
        labels: (H, W) integers, base classes or `IGNORED`.
        tags: the image's novel classes; none of them may have pixels.
    """
    found = [label for label in labels.unique().tolist() if label != IGNORED]
    assert not set(found) & set(tags), "a class of which there are pixels is no tag"
    every = torch.tensor([*found, *sorted(tags)], dtype=torch.long, device=labels.device)
    novel = torch.arange(len(every), device=labels.device) >= len(found)
    masks = (labels == every[:, None, None]) & ~novel[:, None, None]
    return Targets(every, novel, masks)


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
        The targets with the flags that follow from their position, and (n,) which of them each column's cost is of.
    """
    empty = ~shrunk(targets.masks, size).flatten(1).any(dim=1)
    order = torch.cat([(~empty).nonzero()[:, 0], empty.nonzero()[:, 0]])
    novel = torch.arange(len(order), device=order.device) >= (~empty).sum()
    return replace(targets, novel=novel), order
