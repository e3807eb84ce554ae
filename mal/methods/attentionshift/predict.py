"""The detections of the network's own detector, without any points: what its tables measure."""

from itertools import zip_longest
from pathlib import Path

import torch

from mal.config import Config
from mal.data.annotations import read_images
from mal.data.images import load_for
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.detect import View, as_coco, detect
from mal.segmenters.data import resize
from mal.segmenters.network import Json


@torch.inference_mode()
def predict(trained: Trained, config: Config, *, annotations: Path, images: Path, device: torch.device) -> list[Json]:
    """Detections on every image of a COCO file (its annotations are not looked at), as COCO results.

    Several processes take turns at the images; each returns everything.
    """
    entries = sorted(read_images(annotations), key=lambda image: image["id"])
    mine, found = entries[ranks.rank() :: ranks.size()], []
    with Progress("predict attentionshift", total=len(mine), unit="image") as bar:
        for entry in mine:
            image = load_for(entry, images).to(device)
            size = (int(entry["height"]), int(entry["width"]))
            detections = detect(trained.network.detector, views(trained, image, config), size=size)
            threshold = config.attentionshift.detector.detection.mask_threshold
            found.append(as_coco(entry, detections, categories=trained.categories.ids, threshold=threshold))
            bar.advance()
    turns = zip_longest(*ranks.gather(found), fillvalue=[])
    return [result for turn in turns for results in turn for result in results]


def views(trained: Trained, image: torch.Tensor, config: Config) -> list[View]:
    """An image (3, H, W) uint8 as the test shows it: in one size or several, each perhaps flipped too."""
    scale, network = config.attentionshift.scale, trained.network
    longs = scale.test_long_sides * (len(scale.test_short_sides) if len(scale.test_long_sides) == 1 else 1)
    found = []
    for short, long in zip(scale.test_short_sides, longs, strict=True):
        shown = resize(image, short=short, long=long)
        for flipped in (False, True) if scale.test_flip else (False,):
            seen = network.see([shown.flip(-1) if flipped else shown])
            found.append(View(seen.maps, int(shown.shape[-2]), int(shown.shape[-1]), flipped=flipped))
    return found
