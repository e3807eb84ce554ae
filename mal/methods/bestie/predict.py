"""Instances of whole images, without any points: what the table of BESTIE measures."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes

from mal.config import Config
from mal.context import Json
from mal.data.annotations import read_images
from mal.data.images import load_for
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.methods.bestie.checkpoint import Trained
from mal.methods.bestie.grouping import Instances, instances
from mal.methods.bestie.looking import see, shown
from mal.methods.bestie.network import InstanceNetwork
from mal.segmenters.rcnn.parts import as_results


def predict(trained: Trained[InstanceNetwork], config: Config, *, annotations: Path, images: Path) -> list[Json]:
    """Instances in every image of a COCO file (its annotations are not looked at), as COCO results.

    Several processes take turns at the images; each returns everything.
    """
    entries = sorted(read_images(annotations), key=lambda image: image["id"])
    mine, found = entries[ranks.rank() :: ranks.size()], []
    with Progress("predict bestie", total=len(mine), unit="image") as bar:
        for entry in mine:
            seen = see(trained, shown(load_for(entry, images), config), config)
            found.append(as_coco(entry, instances(seen, config.bestie.detection), trained.categories.ids))
            bar.advance()
    turns = zip_longest(*ranks.gather(found), fillvalue=[])
    return [result for turn in turns for results in turn for result in results]


def as_coco(entry: dict[str, Any], found: Instances, categories: list[int]) -> list[Json]:
    """COCO results of an image; masks that are nothing in its own size are left out.

    Args:
        entry: its id, height and width.
        categories: ids, by label.
    """
    masks = to_image(found.masks, entry).cpu()
    kept = masks.flatten(1).any(dim=1)
    masks, labels, scores = masks[kept], found.labels.cpu()[kept], found.scores.cpu()[kept]
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1]) if len(masks) else torch.zeros(0, 4)
    return as_results(int(entry["id"]), boxes, scores, labels, masks=masks.numpy(), categories=categories)


def to_image(masks: Tensor, entry: dict[str, Any]) -> Tensor:
    """Masks (n, h, w) bool of a resized image → (n, height, width) of the image itself; disjoint ones stay so."""
    size = (int(entry["height"]), int(entry["width"]))
    if masks.shape[-2:] == size or not len(masks):
        return masks if len(masks) else masks.new_zeros(0, *size)
    return F.interpolate(masks[None].float(), size=size, mode="nearest-exact")[0] > 0
