"""Masks that tests of Partial-RES's sequences are made from."""

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mal.data.annotations import decode_mask
from mal.data.polygons import fill_holes


def disc(size: int, radius: float) -> NDArray[np.bool_]:
    """A disc in the middle of a square image."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return x**2 + y**2 <= radius**2


def blob(seed: int, height: int = 40, width: int = 50) -> NDArray[np.bool_]:
    """One connected, mostly concave part without holes, away from the border."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth[[0, 1, -2, -1]] = smooth[:, [0, 1, -2, -1]] = 0
    count, parts = cv2.connectedComponents((smooth > 0.49).astype(np.uint8), connectivity=8)
    sizes = [int((parts == part).sum()) for part in range(1, count)]
    return fill_holes(parts == 1 + int(np.argmax(sizes)))


def photographed_masks(coco_mini: Path) -> list[tuple[NDArray[np.bool_], list[float]]]:
    """Masks of at least 400 pixels of coco_mini's val images with their boxes, crowds left out: 1,339."""
    coco = json.loads((coco_mini / "annotations" / "instances_val2017_mini.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    found = []
    for annotation in coco["annotations"]:
        height, width = sizes[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], height=height, width=width)
        if not annotation["iscrowd"] and mask.sum() >= 400:
            found.append((mask, annotation["bbox"]))
    return found
