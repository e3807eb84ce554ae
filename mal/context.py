"""What the stages of a run are made from: its config, its splits, and what identifies files."""

import dataclasses
from functools import cached_property
from typing import Any

import torch

from mal.config import Config
from mal.data import stages
from mal.data.sources import Parts, Split, files_split, maps_split
from mal.engine.graph import Stage
from mal.engine.precision import network_dtype
from mal.engine.store import Fingerprints, Store
from mal.errors import MalError

Json = dict[str, Any]


class Context:
    """
    Args:
        config: checked.
        store: its root holds the cache of file fingerprints.
        device: decides the precision, which is part of a result's identity.
    """

    def __init__(self, config: Config, store: Store, device: torch.device) -> None:
        self.config, self.store, self.device = config, store, device
        self.fingerprints = Fingerprints(store.root)

    @cached_property
    def val(self) -> Split | None:
        """The images that everything is scored on; None where none are named."""
        return self._split("val")

    @property
    def precision(self) -> str:
        """What a labeler's networks compute in on the device, as keys have it."""
        return str(network_dtype(self.config.train.precision, self.device))

    @cached_property
    def test(self) -> Split | None:
        """Images without annotations, for COCO's evaluation server; None where none are named."""
        if self.config.data.format in ("shapes", "maps"):
            return None
        return files_split("test", self.config.data, self.fingerprints)

    @property
    def required_val(self) -> Split:
        """
        Raises:
            MalError: none is named.
        """
        if self.val is None:
            raise MalError("there is nothing to score on; set data.val.annotations=FILE and data.val.images=FOLDER")
        return self.val

    @cached_property
    def train(self) -> Split:
        """What methods and segmenters learn from.

        Raises:
            ConfigError, MalError: none is named, or what is named is not there.
        """
        split = self._split("train")
        if split is None:
            raise MalError("this run has no training boxes; set data.train.annotations and data.train.images")
        return split

    @cached_property
    def labeler_train(self) -> Split:
        """What the labeler learns from. It is called `train` whichever data set it is: a labeler of COCO is the same
        whether COCO is labelled with it or LVIS."""
        other = files_split("labeler_train", self.config.data, self.fingerprints)
        if other is None:
            return self.train
        return dataclasses.replace(other, name="train", dataset=self.config.data.labeler_train.name)

    def view(self, split: Split, name: str) -> Stage:
        """What a method may see of a split: see `data.stages.view`."""
        data, workers = self.config.data, self.config.train.workers
        return stages.view(
            split,
            name,
            self.data_columns(split),
            skip_unreadable=data.on_bad_image == "skip",
            workers=workers,
            points=data.points.kind,
            expressions=data.expressions.kind,
        )

    def skipped(self, split: Split) -> dict[str, Stage]:
        """The stage that knows which images cannot be read, as an input of what must do without them."""
        return {"boxes": self.view(split, "boxes")} if self.config.data.on_bad_image == "skip" else {}

    def data_columns(self, split: Split | None = None) -> Json:
        """What a table says of the data."""
        return {"profile": self.config.profile, "data": (split and split.dataset) or self.config.data.name}

    def columns(self, split: Split | None = None) -> Json:
        """And of the seed."""
        return {**self.data_columns(split), "seed": self.config.seed}

    def _split(self, name: str) -> Split | None:
        if self.config.data.format == "maps":
            return maps_split(name, self.config.data, self.fingerprints)
        if self.config.data.format != "shapes":
            return files_split(name, self.config.data, self.fingerprints)
        drawn = stages.draw_shapes(self.config.data.shapes, name, self.data_columns())
        folder = self.store.folder(drawn.name, drawn.key)
        parts = Parts(folder / "parts.json") if self.config.data.shapes.kind == "parts" else None
        return Split(name, folder / "annotations.json", folder / "images", has_masks=True, drawn=drawn, parts=parts)
