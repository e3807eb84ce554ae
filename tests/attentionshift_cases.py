"""Drawn images of parts, and a network that has learned nothing, for tests of what is made of its features."""

from pathlib import Path

from mal.config import Config
from mal.data.annotations import CocoDict, read
from mal.data.categories import Categories
from mal.data.parts import CATEGORIES, generate
from mal.data.views import VIEWS
from mal.engine.runtime import seed_everything
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.network import AttentionShift

SMOKE = ("labeler=attentionshift", "profile=smoke", "data=parts", "segmenter=none", "compare=[]", "tracking=none")


def draw(folder: Path) -> Path:
    """Three images with annotations.json in a folder."""
    generate(folder, images=3, size=96, seed=3, split="val")
    return folder


def drawn_files(folder: Path) -> list[str]:
    """Draw them; the overrides that name them as files of the user's, for both splits."""
    draw(folder)
    split = [f"data.{s}.{k}" for s in ("train", "val") for k in ("annotations=annotations.json", "images=images")]
    return [f"data.root={folder}", *split]


def points_of(folder: Path) -> CocoDict:
    """Their points view."""
    return VIEWS["points"](read(folder / "annotations.json", masks=False))


def untrained(config: Config, points: CocoDict) -> Trained:
    """A network of random weights in evaluation mode, always the same."""
    seed_everything(0, "looks")
    return Trained(AttentionShift(config, classes=len(CATEGORIES)).eval(), Categories.of(points, agnostic=False))
