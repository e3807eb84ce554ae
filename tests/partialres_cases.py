"""Small scenes and settings for the tests of Partial-RES's trainings."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import yaml

from mal.config import Config
from mal.config_checks import check
from mal.data import scenes
from mal.data.annotations import CocoDict, read
from mal.data.mask_kinds import with_masks
from mal.data.views import VIEWS
from mal.methods.partialres.few import human_masks
from mal.methods.partialres.known_masks import KnownMasks

SMOKE = (
    "labeler=partialres", "profile=smoke", "train.workers=0", "partialres.image.side=32",
    "partialres.network.width=16", "partialres.network.heads=2", "partialres.rec.batch=3", "partialres.res.batch=3",
    "encoder=pyramid_nano", "encoder.options.dims=[8,8,8,8]", "encoder.options.depths=[1,1,1,1]",
)  # fmt: skip


def draw(folder: Path, *, images: int = 5, size: int = 64) -> CocoDict:
    """Scenes, and what may be seen of them: the view of expressions."""
    scenes.generate(folder, images=images, size=size, seed=3, split="train")
    return VIEWS["expressions"](read(folder / "annotations.json", masks=False))


def some_masks(folder: Path, *ids: int) -> KnownMasks:
    """Human masks of some objects of drawn scenes."""
    human = with_masks(read(folder / "annotations.json", masks=False))
    return KnownMasks({row["id"]: row["segmentation"] for row in human_masks(human, ids)})


@cache
def _composed(compose: Callable[..., Config], overrides: tuple[str, ...]) -> Config:
    return compose(*overrides)


def changed(compose: Callable[..., Config], *settings: str, of: tuple[str, ...] = SMOKE) -> Config:
    """A copy of the small config (composing it takes half a second, this does not) with other settings below
    `partialres`: `parts.pmca=false`."""
    config = deepcopy(_composed(compose, of))
    for setting in settings:
        key, _, value = setting.partition("=")
        *parts, name = key.split(".")
        part = config.partialres
        for step in parts:
            part = getattr(part, step)
        assert hasattr(part, name), setting
        setattr(part, name, yaml.safe_load(value))
    check(config)
    return config
