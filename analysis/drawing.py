"""Pixels and masks as arrays, and one drawn over the other."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from PIL import Image, ImageOps

PSEUDO, HUMAN = np.array([0.12, 0.47, 0.96]), np.array([0.98, 0.55, 0.08])
Json = dict[str, Any]


def overlay(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask and draw its contour. pixels (H, W, 3) in [0, 1], mask (H, W) bool."""
    tinted = np.where(mask[..., None], 0.5 * pixels + 0.5 * colour, pixels)
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], colour, tinted)


def decode(segmentation: Any, record: Json) -> np.ndarray:
    """Polygons or RLE → (H, W) bool."""
    return rle.decode(compressed(segmentation, record)).astype(bool)


def compressed(segmentation: Any, record: Json) -> Json:
    """Polygons or RLE of either kind → compressed RLE."""
    height, width = record["height"], record["width"]
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)
    return segmentation


def file_name(record: Json) -> str:
    """Where an image lies below the folder of images; LVIS v1 names it by the last two parts of its address."""
    return record.get("file_name") or "/".join(urlsplit(record["coco_url"]).path.split("/")[-2:])


def load_pixels(record: Json, images: Path) -> np.ndarray:
    """(H, W, 3) in [0, 1], turned by the EXIF tag only where the annotated size says so (as the labelers see it)."""
    with Image.open(images / file_name(record)) as stored:
        fits = stored.size == (record["width"], record["height"])
        image: Image.Image = stored if fits else ImageOps.exif_transpose(stored)
        if image.mode.startswith("I;16"):  # Pillow would cut it at 255
            return np.repeat(np.asarray(image)[..., None] / 65535, 3, axis=2)
        return np.asarray(image.convert("RGB")) / 255
