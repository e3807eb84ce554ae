"""A disc around each point: what a method that learns from points must leave behind."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mal.context import Context
from mal.data.annotations import CocoDict
from mal.data.mask_windows import MaskWindow
from mal.data.sources import Split
from mal.methods.labelling import Label, label_of
from mal.methods.spec import Labels, Method

FALLBACK_RADIUS = 0.0  # of an object whose image cannot be read: the pixel of each of its points


def disc(annotation: dict[str, Any], image_size: tuple[int, int], *, radius: float) -> MaskWindow:
    """The pixels whose centres lie in a disc around any of an object's points, and the pixels of the points themselves.

    Args:
        annotation: of the points view: `points` in pixels.
        image_size: height and width, where the discs are cut.
        radius: a share of the image's shorter side.
    """
    height, width = image_size
    points, reach = np.array(annotation["points"]), radius * min(height, width)
    left, top = np.maximum(np.floor(points.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.minimum(np.floor(points.max(axis=0) + reach) + 1, (width, height)).astype(int)
    rows, columns = np.mgrid[top:bottom, left:right] + 0.5
    mask = np.zeros(rows.shape, dtype=bool)
    for x, y in points:
        mask |= (columns - x) ** 2 + (rows - y) ** 2 <= reach**2
        mask[int(y) - top, int(x) - left] = True
    return MaskWindow(mask, int(left), int(top))


def label(shard: CocoDict, _: Path, *, radius: float) -> dict[int, Label]:
    """Discs for every annotation of some images."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in shard["images"]}
    found = {}
    for annotation in shard["annotations"]:
        height, width = sizes[annotation["image_id"]]
        found[annotation["id"]] = label_of(disc(annotation, (height, width), radius=radius), height=height, width=width)
    return found


def labels(context: Context, _: Split) -> Labels:
    """Discs of the radius that the config names."""
    radius = context.config.labeler.radius
    return Labels(make=lambda *_: partial(label, radius=radius), settings={"radius": radius})


METHOD = Method("disc", labels, view="points", fallback=partial(disc, radius=FALLBACK_RADIUS))
