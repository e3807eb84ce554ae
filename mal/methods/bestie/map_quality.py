"""How good class maps from points are, where human masks tell."""

from pathlib import Path

import numpy as np

from mal.config import Config
from mal.data.annotations import CocoDict, annotations_by_image, decode_mask
from mal.data.images import load_for
from mal.engine.progress import Progress
from mal.methods.bestie.checkpoint import Trained
from mal.methods.bestie.data import known_of, objects_of, present_in
from mal.methods.bestie.looking import class_map
from mal.methods.bestie.network import ClassNetwork


def map_quality(
    trained: Trained[ClassNetwork], points: CocoDict, human: CocoDict, images: Path, config: Config
) -> dict[str, float]:
    """Figures of the class maps of all images with points. Pixels of several objects count as the last one's.

    Args:
        points: a points view; as in training, classes without a point of an image are left out there.
        human: the same file with masks.

    Returns:
        `map_miou`: mean IoU of the classes that the images show, the background not among them; `map_iou`: of objects
        of whatever class; `map_share` and `map_share_human`: of the pixels that are an object's.
    """
    labels, masks = trained.categories.labels_of(points, source="the file"), annotations_by_image(human)
    count = len(trained.categories.ids) + 1
    present = present_in(points, labels, classes=count - 1)
    both, found, true, either, common = (np.zeros(count, dtype=np.int64) for _ in range(5))
    with Progress("class maps val", total=len(objects := objects_of(points)), unit="image") as bar:
        for entry, annotations in objects:
            known = known_of(entry, annotations, present[entry["id"]], labels)
            classes = class_map(trained, load_for(entry, images), known, config, entry).cpu().numpy()
            truth = np.zeros_like(classes)
            for annotation in masks[entry["id"]]:
                if not annotation.get("iscrowd") and int(annotation["category_id"]) in labels:
                    mask = decode_mask(annotation["segmentation"], height=entry["height"], width=entry["width"])
                    truth[mask.astype(bool)] = labels[int(annotation["category_id"])] + 1
            both += np.bincount(truth[truth == classes], minlength=count)
            found += np.bincount(classes.ravel(), minlength=count)
            true += np.bincount(truth.ravel(), minlength=count)
            either += int(((truth > 0) | (classes > 0)).sum())
            common += int(((truth > 0) & (classes > 0)).sum())
            bar.advance()
    there = true[1:] > 0
    union = (found + true - both)[1:][there]
    return {
        "map_miou": float((both[1:][there] / union).mean()) if there.any() else 0.0,
        "map_iou": float(common[0] / max(1, either[0])),
        "map_share": float(found[1:].sum() / found.sum()),
        "map_share_human": float(true[1:].sum() / true.sum()),
    }
