"""What every run starts from: its splits, procedural images, and the box-only view of them."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import check_images, read, strip, write
from mal.data.box_checks import is_left_over
from mal.data.sources import Split, files_split, unreadable
from mal.engine import ranks
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workplace
from mal.engine.store import Fingerprints, Store
from mal.errors import MalError
from mal.methods.baselines.file import path_for

Json = dict[str, Any]


class DataStages:
    """Each method is one kind of stage: what defines it, and what it does.

    Args:
        config: checked.
        store: its root holds the cache of file fingerprints.
        device: decides the precision, which is part of a result's identity.
    """

    def __init__(self, config: Config, store: Store, device: torch.device) -> None:
        self.config, self.store, self.device = config, store, device
        self.fingerprints = Fingerprints(store.root)
        self.val: Split | None = self._split("val")
        self.test = None if config.data.format == "shapes" else files_split("test", config.data, self.fingerprints)
        if not self.trains_nothing:  # fail here where a split is missing
            _ = self._val() if self.train is None else self.train
            _ = self.labeler_train if self.learns else None

    @property
    def trains_nothing(self) -> bool:
        """Whether the run only evaluates a published segmenter."""
        return self.config.segmenter.name != "none" and self.config.segmenter.weights == "published"

    @property
    def learns(self) -> bool:
        """Whether a labeler is trained: for its masks, or for the features of its encoder."""
        looks = (self.config.clustering, self.config.attention)
        return self.config.labeler.name == "mal" or any(look.enabled and look.encoder == "trained" for look in looks)

    def labels(self, split: str, labeler: str) -> bool:
        """Whether a labeler has masks for a split: `none` has none, `file` may have them for one alone."""
        return labeler != "none" and (labeler != "file" or path_for(self.config.labeler, split) is not None)

    @property
    def train(self) -> Split | None:
        """What is labelled beside the validation images; None where the run looks at validation images alone."""
        if self.trains_nothing or not self.labels("train", self.config.labeler.name):
            return None
        return self.required_train

    @cached_property
    def required_train(self) -> Split:
        """What labelers and segmenters learn from.

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
            return self.required_train
        return dataclasses.replace(other, name="train", dataset=self.config.data.labeler_train.name)

    def draw_shapes(self, split: str) -> Stage:
        """Procedural images with exact masks."""
        options = self.config.data.shapes
        count = options.train_images if split == "train" else options.val_images
        settings: Json = {"images": count, "size": options.size, "seed": options.seed, "split": split}

        def work(place: Workplace) -> Result:
            shapes.generate(place.folder, **settings)
            return Result(
                {"annotations": len(read_json(place.folder / "annotations.json")["annotations"])}, {"": count}
            )

        return Stage(f"shapes_{split}", 1, settings, work, columns=self._data_columns())

    def boxes(self, split: Split) -> Stage:
        """The box-only view: what phase 1 cannot read, it cannot cheat with."""
        skip = self.config.data.on_bad_image == "skip"

        def work(place: Workplace) -> Result:
            coco = strip(read(split.annotations, masks=False))  # whether its masks will do is the census's matter
            check_images(coco, split.images)
            bad = unreadable(coco, split.images, workers=self.config.train.workers) if skip else []
            write(place.folder / "boxes.json", {**coco, "unreadable_images": bad} if bad else coco)
            places = {"annotations": str(split.annotations.resolve()), "images": str(split.images.resolve())}
            metrics: dict[str, float] = {"boxes": len(coco["annotations"]), "unreadable_images": len(bad)}
            return Result(metrics, {"": len(coco["images"])}, places if split.drawn is None else {})

        sources, settings = dict(split.sources), {"skip_unreadable": skip}
        return Stage(f"boxes_{split.name}", 1, settings, work, split.inputs, sources, self._data_columns(split))

    def _split(self, name: str) -> Split | None:
        if self.config.data.format != "shapes":
            return files_split(name, self.config.data, self.fingerprints)
        drawn = self.draw_shapes(name)
        folder = self.store.folder(drawn.name, drawn.key)
        return Split(name, folder / "annotations.json", folder / "images", has_masks=True, drawn=drawn)

    def _val(self) -> Split:
        if self.val is None:
            raise MalError("there is nothing to score on; set data.val.annotations=FILE and data.val.images=FOLDER")
        return self.val

    def _skipped(self, split: Split) -> dict[str, Stage]:
        """The stage that knows which images cannot be read, as an input of what must do without them."""
        return {"boxes": self.boxes(split)} if self.config.data.on_bad_image == "skip" else {}

    def _readable(self, split: Split, place: Workplace, labels: Path | None = None) -> Path:
        """A split's annotations, or their labels, as a file without the images that `data.on_bad_image=skip` skips: AP
        does not count them. Of human ones, without what tools leave behind: no mask, and a box of no area."""
        annotations = split.annotations if labels is None else labels
        boxes = place.inputs.get("boxes")
        bad = set(read_json(boxes / "boxes.json").get("unreadable_images", ())) if boxes else set()
        empty = labels is None and split.census is not None and split.census.left_over > 0
        if not bad and not empty:
            return annotations
        coco = read(annotations, masks=False)
        images = [image for image in coco["images"] if image["id"] not in bad]
        kept = [a for a in coco["annotations"] if a["image_id"] not in bad and not (empty and is_left_over(a))]
        file = place.folder / "readable.json"
        ranks.on_first(lambda: write(file, {**coco, "images": images, "annotations": kept}))
        return file

    def _data_columns(self, split: Split | None = None) -> Json:
        return {"profile": self.config.profile, "data": (split and split.dataset) or self.config.data.name}

    def _columns(self, split: Split | None = None) -> Json:
        return {**self._data_columns(split), "seed": self.config.seed}
