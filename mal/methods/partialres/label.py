"""Masks of objects that have expressions: what a network makes of the one that suits the box best, cut at the box."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.boxes import pixel_edges
from mal.data.expressions import words
from mal.data.mask_windows import MaskWindow
from mal.methods.labelling import Label, ShardLabeler, label_of
from mal.methods.partialres.checkpoint import Trained
from mal.methods.partialres.infer import Asked, Shown, batches, find
from mal.methods.partialres.projection import distance


def labeler(trained: Trained, config: Config) -> ShardLabeler:
    """Objects without an expression get no label.

    Args:
        trained: its own settings say how it is shown images.
        config: how many expressions are predicted at a time.
    """

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        objects = {a["id"]: a for a in shard["annotations"]}
        shown = Shown(images, trained.config.partialres.image.side)
        found: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
        for some in batches(asked_of(shard), config.partialres.testing.batch):
            for each, answer in zip(some, find(trained, some, shown), strict=True):
                found[each.id].append(answer.mask)
        return {identity: _label(masks, objects[identity]["bbox"]) for identity, masks in found.items()}

    return label


def asked_of(view: CocoDict) -> list[Asked]:
    """Every expression of a view, image by image; none of images that it lists as unreadable."""
    unreadable = set(view.get("unreadable_images", ()))
    entries = {image["id"]: image for image in view["images"] if image["id"] not in unreadable}
    return [
        Asked(entries[annotation["image_id"]], int(annotation["id"]), tuple(words(text)))
        for annotation in sorted(view["annotations"], key=lambda each: (each["image_id"], each["id"]))
        if annotation["image_id"] in entries
        for text in annotation["expressions"]
    ]


def _label(masks: list[NDArray[np.bool_]], box: list[float]) -> Label:
    """Of the mask of least projection distance, the part inside the box; it may be empty."""
    best = min(masks, key=lambda mask: distance(mask, box))
    height, width = best.shape
    left, top, right, bottom = pixel_edges(box, height=height, width=width)
    return label_of(MaskWindow(best[top:bottom, left:right], left, top), height=height, width=width)
