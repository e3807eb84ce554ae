"""Publishers' names of weights as ours. Each key of a file is used, each of ours is filled, or the file is refused."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mal.segmenters.published.files import Weights
from mal.segmenters.weights import COUNTER, refuse


@dataclass(frozen=True)
class Rule:
    """How one kind of our keys is called in a file.

    Attributes:
        ours: a regular expression that matches a whole key of ours.
        theirs: what it is there: a template as `re.Match.expand` takes it, or a function of the match.
        change: what makes their tensor ours.
    """

    ours: str
    theirs: str | Callable[[re.Match[str]], str]
    change: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)


def filled(
    build: Callable[[], nn.Module],
    weights: Weights,
    *,
    rules: Sequence[Rule],
    model: str,
    way_out: str,
    unread: str = "",
    unpublished: str = "",
) -> dict[str, Tensor]:
    """Our state dict with a file's weights.

    Args:
        build: ours, of which only the names and shapes of the weights are made.
        weights: the file's, all of its keys under the publisher's names.
        rules: the first that matches holds; a key that none matches must be there under our name.
        model: what it should have fitted, for the error. way_out: how that ends.
        unread: a regular expression of keys that a file may hold in vain.
        unpublished: a regular expression of our keys that no file has and nothing reads; they are 0.

    Raises:
        WeightsError: lists keys that are missing, unexpected or of another shape, under the publisher's names.
    """
    with torch.device("meta"):
        own = build().state_dict()
    found: dict[str, Tensor] = {}
    used, missing, shapes = set(), [], []
    for key, value in own.items():
        if key.endswith(COUNTER) or (unpublished and re.fullmatch(unpublished, key)):
            found[key] = torch.zeros(value.shape, dtype=value.dtype)
            continue
        theirs, change = _theirs(key, rules)
        used.add(theirs)
        if theirs not in weights.tensors:
            missing.append(theirs)
            continue
        tensor = change(weights.tensors[theirs]).to(value.dtype)
        if tensor.shape != value.shape:
            shapes.append(f"{theirs} (here {key}) {tuple(tensor.shape)} instead of {tuple(value.shape)}")
        found[key] = tensor
    ignored = re.compile(rf".*{COUNTER}" + (f"|{unread}" if unread else ""))
    unexpected = [key for key in weights.tensors if key not in used and not ignored.fullmatch(key)]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    refuse(faults, source=weights.source, model=model, way_out=way_out)
    return found


def background_first(tensor: Tensor) -> Tensor:
    """Class scores (classes + 1, …) with the background last, as MMDetection and detectron2 have it, → first."""
    return torch.cat([tensor[-1:], tensor[:-1]])


def with_background(count: int) -> Callable[[Tensor], Tensor]:
    """Puts `count` rows of zeros first: what torchvision's heads predict for the background and never read."""
    return lambda tensor: torch.cat([tensor.new_zeros(count, *tensor.shape[1:]), tensor])


def _theirs(key: str, rules: Sequence[Rule]) -> tuple[str, Callable[[Tensor], Tensor]]:
    for rule in rules:
        if match := re.fullmatch(rule.ours, key):
            return (match.expand(rule.theirs) if isinstance(rule.theirs, str) else rule.theirs(match)), rule.change
    return key, lambda tensor: tensor
