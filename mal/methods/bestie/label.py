"""Masks for objects that have points: the pixels of each one's class that point to it."""

from pathlib import Path

import numpy as np

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.images import load_for
from mal.data.mask_windows import MaskWindow
from mal.methods.bestie.checkpoint import Trained
from mal.methods.bestie.data import objects_of, points_of
from mal.methods.bestie.grouping import of_points
from mal.methods.bestie.looking import reach_in, see, shown
from mal.methods.bestie.network import InstanceNetwork
from mal.methods.bestie.predict import to_image
from mal.methods.labelling import Label, ShardLabeler, label_of


def labeler(trained: Trained[InstanceNetwork], config: Config) -> ShardLabeler:
    """Label images one at a time; an object's mask depends on the other points of its image, and on nothing else.

    Of an object's points the first is read. An object that no pixel points to has an empty mask.
    """

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        found, labels = {}, trained.categories.labels_of(shard, source="the file")
        for entry, annotations in objects_of(shard):
            image = shown(load_for(entry, images), config)
            size = (int(image.shape[-2]), int(image.shape[-1]))
            xy, numbers, first = (each.to(trained.device) for each in points_of(annotations, labels, entry, size))
            seen = see(trained, image, config)
            own = of_points(seen, xy[first], numbers[first], reach=reach_in(seen.classes, config))
            masks = to_image(own, entry).cpu().numpy()
            for annotation, mask in zip(annotations, masks, strict=True):
                found[annotation["id"]] = label_of(_window(mask), height=entry["height"], width=entry["width"])
        return found

    return label


def _window(mask: np.ndarray) -> MaskWindow:
    """(height, width) bool → the smallest rectangle that holds it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return MaskWindow(mask[:0, :0], 0, 0)
    return MaskWindow(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(columns[0]), int(rows[0]))
