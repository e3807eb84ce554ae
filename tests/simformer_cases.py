"""Small class maps and settings for the tests of SimFormer's training."""

from collections.abc import Callable
from pathlib import Path

import torch

from mal.config import Config
from mal.data import shapes12
from mal.data.annotations import read
from mal.data.class_maps import write_class_maps
from mal.data.semantic import FILE, IGNORED, read_semantic
from mal.data.weak_view import FILE as WEAK
from mal.data.weak_view import weak_view
from tests.small_configs import changed_below

NOVEL = (0, 4, 5, 7, 8, 11)  # half of the twelve, so that few images go without
SMOKE = (
    "labeler=simformer", "profile=smoke", "train.workers=0", "simformer.network.queries=10",
    "simformer.augment.side=32", "simformer.learning.batch=2", "encoder.options.dims=[8,8,8,8]",
    "encoder.options.depths=[1,1,1,1]",
)  # fmt: skip


def draw(folder: Path, *, images: int = 5, size: int = 64) -> Path:
    """Images, and their class maps: the path of `semantic.FILE`."""
    shapes12.generate(folder, images=images, size=size, seed=3, split="train")
    coco = read(folder / "annotations.json", masks=True)
    write_class_maps(folder / FILE, coco, ground="class", groups=False)
    return folder / FILE


def weak(truth: Path, folder: Path) -> Path:
    """The weak view of class maps: the path of its file."""
    weak_view(read_semantic(truth), NOVEL, folder)
    return folder / WEAK


def base_of(labels: torch.Tensor) -> list[list[int]]:
    """The classes of each map (B, H, W), ascending."""
    return [sorted(set(each.flatten().tolist()) - {IGNORED}) for each in labels]


def changed(compose: Callable[..., Config], *settings: str, of: tuple[str, ...] = SMOKE) -> Config:
    """A copy of the small config with other settings below `simformer`."""
    return changed_below("simformer", compose, *settings, of=of)


def steps(config: Config, number: int, *, warm: int = 1) -> Config:
    """The same config with so many steps."""
    config.simformer.learning.warm_start, config.simformer.learning.steps = warm, number - warm
    return config
