"""Small scenes and settings for the tests of Partial-RES's trainings."""

from collections.abc import Callable
from pathlib import Path

from mal.config import Config
from mal.data import scenes
from mal.data.annotations import CocoDict, read
from mal.data.mask_kinds import with_masks
from mal.data.views import VIEWS
from mal.methods.partialres.few import human_masks
from mal.methods.partialres.known_masks import KnownMasks
from tests.small_configs import changed_below

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


def changed(compose: Callable[..., Config], *settings: str, of: tuple[str, ...] = SMOKE) -> Config:
    """A copy of the small config with other settings below `partialres`."""
    return changed_below("partialres", compose, *settings, of=of)
