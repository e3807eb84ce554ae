"""Labelers trained for a moment, images with boxes or points, and command lines of `python -m mal.label`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mal.config import Config
from mal.data import parts, shapes
from mal.data.annotations import read, strip, write
from mal.data.views import VIEWS
from mal.engine.runtime import load_checkpoint
from mal.label import main
from mal.methods.attentionshift.train import train
from mal.methods.mal.network import build_network
from mal.methods.mal.train import save_labeler, train_labeler


@dataclass
class Place:
    """A trained labeler, and images with boxes."""

    folder: Path
    images: Path
    boxes: Path
    checkpoint: Path

    def arguments(self, out: Path, *more: object, **instead: object) -> list[str]:
        """A command line; `images=…` and the like replace what is at hand."""
        inputs = {"images": self.images, "boxes": self.boxes, "checkpoint": self.checkpoint, "out": out, **instead}
        return command_line(inputs, *more)

    def label(self, out: Path, *more: object, **instead: object) -> dict:
        """What a call that succeeds wrote."""
        assert main(self.arguments(out, *more, **instead)) == 0
        return read(out, masks=True)


@dataclass
class PointsPlace:
    """A labeler that learned from points, and images with points."""

    folder: Path
    images: Path
    points: Path
    checkpoint: Path

    def arguments(self, out: Path, *more: object, **instead: object) -> list[str]:
        """A command line; `images=…` and the like replace what is at hand."""
        inputs = {"images": self.images, "points": self.points, "checkpoint": self.checkpoint, "out": out, **instead}
        return command_line(inputs, *more)

    def label(self, out: Path, *more: object, **instead: object) -> dict:
        """What a call that succeeds wrote."""
        assert main(self.arguments(out, *more, **instead)) == 0
        return read(out, masks=True)


def command_line(inputs: dict[str, object], *more: object) -> list[str]:
    options = [str(part) for name, value in inputs.items() for part in (f"--{name}", value)]
    return [*options, "--device", "cpu", "--workers", "1", *map(str, more)]


def make_points_place(folder: Path, config: Config) -> PointsPlace:
    """Draw objects of parts, train on a point of each; the user's file has nothing but these."""
    parts.generate(folder, images=5, size=96, seed=3, split="train")
    view = VIEWS["points"](read(folder / "annotations.json", masks=False))
    train(view, folder / "images", config, folder=folder, device=torch.device("cpu"))
    annotations = [{k: a[k] for k in ("id", "image_id", "category_id", "point")} for a in view["annotations"]]
    write(folder / "points.json", {**view, "annotations": annotations})
    return PointsPlace(folder, folder / "images", folder / "points.json", folder / "labeler.pt")


def make_place(folder: Path, config: Config) -> Place:
    """Draw images, train on their boxes."""
    shapes.generate(folder, images=7, size=128, seed=3, split="val")
    boxes = strip(read(folder / "annotations.json", masks=False))
    train_labeler(boxes, folder / "images", config, folder=folder, device=torch.device("cpu"))
    state = load_checkpoint(folder / "labeler.pt")
    torch.manual_seed(5)
    teacher = torch.nn.ModuleDict(
        {"module": build_network(config)}
    )  # unlike the student, so that they can be told apart
    student = build_network(config)
    student.load_state_dict(state["student"])
    save_labeler(folder / "labeler.pt", student, teacher, config)
    write(folder / "boxes.json", boxes)
    return Place(folder, folder / "images", folder / "boxes.json", folder / "labeler.pt")
