"""Masks of objects that have expressions: what a network makes of the one that suits the box best, within the box."""

from collections import defaultdict
from pathlib import Path

import cv2
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

STRETCH = 4  # a prediction's side is fitted to one of the box at most so many times as long, or as short


def labeler(trained: Trained, config: Config) -> ShardLabeler:
    """Objects without an expression get no label.

    Args:
        trained: its own settings say how it is shown images.
        config: how a prediction gets into its box, and how many expressions are predicted at a time.
    """
    testing = config.partialres.testing

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        objects = {a["id"]: a for a in shard["annotations"]}
        shown = Shown(images, trained.config.partialres.image.side)
        found: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
        for some in batches(asked_of(shard), testing.batch):
            for each, answer in zip(some, find(trained, some, shown), strict=True):
                found[each.id].append(answer.mask)
        return {
            identity: _label(masks, objects[identity]["bbox"], in_box=testing.in_box)
            for identity, masks in found.items()
        }

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


def fitted(mask: NDArray[np.bool_], *, height: int, width: int) -> NDArray[np.bool_] | None:
    """A mask whose extent is resized to a box of height × width pixels: moved and stretched, (height, width) bool.

    Args:
        mask: not empty.

    Returns:
        None where a side of its extent is more than STRETCH times as long or as short as the box's, since then it says
        nothing of a shape in the box; or where nothing is left of it, as of thin lines in a much smaller box.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    if any(max(a, b) > STRETCH * min(a, b) for a, b in zip(part.shape, (height, width), strict=True)):
        return None
    found = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5)
    return found if found.any() else None


def _label(masks: list[NDArray[np.bool_]], box: list[float], *, in_box: str) -> Label:
    """Of the mask of least projection distance, what is made of it in the box; empty where it does not meet the box."""
    best = min(masks, key=lambda mask: distance(mask, box))
    height, width = best.shape
    left, top, right, bottom = pixel_edges(box, height=height, width=width)
    inside = best[top:bottom, left:right]
    if in_box == "fit" and inside.any():
        stretched = fitted(best, height=bottom - top, width=right - left)
        inside = inside if stretched is None else stretched
    return label_of(MaskWindow(inside, left, top), height=height, width=width)
