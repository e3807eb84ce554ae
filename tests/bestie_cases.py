"""Small data, settings and networks for the tests of BESTIE."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict, read
from mal.data.parts import generate
from mal.data.views import VIEWS
from mal.methods.bestie.data import Sample
from mal.methods.bestie.grouping import Seen
from tests.small_configs import changed_below

SMOKE = ("labeler=bestie", "profile=smoke", "data=parts", "train.workers=0")


def draw(folder: Path, *, images: int = 5) -> CocoDict:
    """Drawn images below a folder, and their points view."""
    generate(folder, images=images, size=96, seed=3, split="train")
    return VIEWS["points"](read(folder / "annotations.json", masks=False))


def changed(compose: Callable[..., Config], *settings: str, of: tuple[str, ...] = SMOKE) -> Config:
    """A copy of the small config with other settings below `bestie`."""
    return changed_below("bestie", compose, *settings, of=of)


def sample(side: int, points: list[tuple[float, float, int]], *, classes: int, **more: Tensor) -> Sample:
    """A black square with points (x, y, label), each the first of its object."""
    labels = torch.tensor([label for _, _, label in points], dtype=torch.int64)
    present = torch.zeros(classes, dtype=torch.bool)
    present[labels] = True
    known = {
        "image": torch.zeros(3, side, side),
        "inside": torch.ones(side, side, dtype=torch.bool),
        "xy": torch.tensor([[x, y] for x, y, _ in points], dtype=torch.float32).view(-1, 2),
        "labels": labels,
        "first": torch.ones(len(points), dtype=torch.bool),
        "present": present,
    }
    return Sample(**(known | more), image_id=1)


def seen(class_map: Tensor, *, classes: int) -> Seen:
    """What a network says that is certain of a class map (H, W), sees no centres, and points nowhere."""
    height, width = class_map.shape
    chances = torch.nn.functional.one_hot(class_map, classes + 1).movedim(-1, 0).float()
    return Seen(chances, torch.zeros(classes, height, width), torch.zeros(2, height, width))
