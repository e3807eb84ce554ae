"""Pixels and masks as arrays, and one drawn over the other."""

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from PIL import Image, ImageOps

PSEUDO, HUMAN = np.array([0.12, 0.47, 0.96]), np.array([0.98, 0.55, 0.08])
TINT = 0.35  # share of a mask's colour
LIME = (0, 255, 0)
Json = dict[str, Any]


def overlay(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask and draw its contour as a light line in a dark one: one of them shows on any ground.

    Args:
        picture: (H, W, 3) uint8, as large as it will be seen: the lines are one pixel wide. mask: (H, W) bool.
        colour: three values in [0, 1].
    """
    tinted = np.where(mask[..., None], (1 - TINT) * picture + TINT * 255 * colour, picture).round().astype(np.uint8)
    inner = ~_grown(~mask)
    tinted[_grown(mask) & ~mask] = 0
    tinted[mask & ~inner] = 255
    return tinted


def draw_box(picture: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    """Draw a lime rectangle in a dark one on a picture (H, W, 3) uint8; it runs just inside these edges,
    and along the picture's border where the rectangle reaches beyond."""
    height, width = picture.shape[:2]
    for inset, colour in ((0, 0), (3, 0), (1, LIME), (2, LIME)):
        x0, y0 = max(0, left + inset), max(0, top + inset)
        x1, y1 = min(width, right - inset) - 1, min(height, bottom - inset) - 1
        if x0 <= x1 and y0 <= y1:
            picture[y0 : y1 + 1, [x0, x1]] = colour
            picture[[y0, y1], x0 : x1 + 1] = colour


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool and the pixels beside it; beyond the picture nothing is known, and nothing grows in."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def sample_mask(segmentation: Any, record: Json, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The mask at these rows and columns of its image: (rows, columns) bool. Only they are decoded."""
    ends = np.cumsum(run_lengths(compressed(segmentation, record)["counts"]))
    places = columns[None, :] * record["height"] + rows[:, None]
    return np.searchsorted(ends, places, side="right") % 2 == 1


def run_lengths(counts: str | bytes) -> np.ndarray:
    """Run lengths of a compressed RLE, background first: five bits a character, from the fourth number on differences
    (maskApi.c, rleFrString)."""
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    stops = np.flatnonzero((codes & 32) == 0)
    codes = codes[: stops[-1] + 1] if len(stops) else codes[:0]
    starts = np.concatenate([[0], stops[:-1] + 1]) if len(stops) else stops
    place = np.arange(len(codes)) - np.repeat(starts, stops - starts + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), starts) if len(stops) else np.zeros(0, dtype=np.int64)
    values -= ((codes[stops] & 16) > 0) * (np.int64(1) << (5 * (place[stops] + 1)))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


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
    return np.asarray(load_picture(record, images)) / 255


def load_picture(record: Json, images: Path) -> Image.Image:
    """The same in 8 bits a channel: an eighth of the memory, decoded once and cropped after."""
    image = in_eight_bits(_load(record, images))
    return image if image.mode == "RGB" else image.convert("RGB")


def in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits stretched to the image's brightest pixel, since it may use twelve of them; others as they are."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    deep = np.asarray(image).clip(min=0)
    return Image.fromarray((deep * np.float32(255 / max(1, int(deep.max())))).astype(np.uint8))


def _load(record: Json, images: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # aerial images are as large as that
        with Image.open(images / file_name(record)) as stored:
            stored.load()
            fits = stored.size == (record["width"], record["height"])
            return stored if fits else ImageOps.exif_transpose(stored)
