"""Pixels and masks as arrays, and one drawn over the other."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from PIL import Image, ImageOps

from analysis.records import Json
from mal.data.image_names import file_name
from mal.data.mask_formats import decode_mask, decode_runs
from mal.data.transparency import on_white

PSEUDO, HUMAN = np.array([0.12, 0.47, 0.96]), np.array([0.98, 0.55, 0.08])
TINT = 0.35  # share of a mask's colour
LIME = (0, 255, 0)
DOT, RING = 3.5, 5.0  # pixels of radius


def overlay(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask and draw its contour as a light line in a dark one: one of them shows on any ground.

    Args:
        picture: (H, W, 3) uint8, as large as it will be seen: the lines are one pixel wide. mask: (H, W) bool.
        colour: three values in [0, 1].
    """
    tinted = np.where(mask[..., None], (1 - TINT) * picture + TINT * 255 * colour, picture).round().astype(np.uint8)
    inner = ~grown(~mask)
    tinted[grown(mask) & ~mask] = 0
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


def draw_point(picture: np.ndarray, x: float, y: float) -> None:
    """Draw a lime dot in a dark ring around a place of a picture (H, W, 3) uint8; pixel i covers [i, i + 1)."""
    rows, columns = (np.arange(length) + 0.5 for length in picture.shape[:2])
    distance = np.hypot(rows[:, None] - y, columns[None, :] - x)
    picture[distance <= RING] = 0
    picture[distance <= DOT] = LIME


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool and the pixels beside it; beyond the picture nothing is known, and nothing grows in."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def sample_mask(segmentation: Any, record: Json, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The mask at these rows and columns of its image: (rows, columns) bool. Only they are decoded."""
    ends = np.cumsum(decode_runs(segmentation, height=record["height"], width=record["width"]))
    places = columns[None, :] * record["height"] + rows[:, None]
    return np.searchsorted(ends, places, side="right") % 2 == 1


def decode(segmentation: Any, record: Json) -> np.ndarray:
    """Polygons or RLE of an image → (H, W) bool."""
    return decode_mask(segmentation, height=record["height"], width=record["width"])


def compressed(segmentation: Any, record: Json) -> Json:
    """Polygons or RLE of either kind → compressed RLE."""
    height, width = record["height"], record["width"]
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)
    return segmentation


def load_pixels(record: Json, images: Path) -> np.ndarray:
    """(H, W, 3) in [0, 1], turned by the EXIF tag only where the annotated size says so (as the labelers see it)."""
    return np.asarray(load_picture(record, images)) / 255


def load_picture(record: Json, images: Path) -> Image.Image:
    """The same in 8 bits a channel: an eighth of the memory, decoded once and cropped after."""
    image = on_white(opened(record, images))
    return image if image.mode == "RGB" else image.convert("RGB")


def in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits stretched to the image's brightest pixel, since it may use twelve of them; others as they are."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    deep = np.asarray(image).clip(min=0)
    return Image.fromarray((deep * np.float32(255 / max(1, int(deep.max())))).astype(np.uint8))


def opened(record: Json, images: Path) -> Image.Image:
    """An annotated image, turned by its EXIF tag only where the annotated size says so (as the labelers see it).

    Grey of 16 bits is stretched to the image's brightest pixel: it may use twelve of them.

    Raises:
        OSError: it cannot be read, or its size is not the annotated one; from the header, before any pixel is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images, which their labeler has read, and odd EXIF tags
        try:
            return _decoded(images / file_name(record), (record["width"], record["height"]))
        except (MemoryError, OSError):
            raise
        except Exception as error:  # Pillow raises a dozen kinds for a broken file
            raise OSError(str(error)) from error


def _decoded(path: Path, annotated: tuple[int, int]) -> Image.Image:
    stored = Image.open(path)
    try:
        fits = stored.size == annotated
        turned = not fits and stored.size[::-1] == annotated and stored.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        if not fits and not turned:
            width, height = stored.size
            raise OSError(f"it has {width} × {height} pixels, and {annotated[0]} × {annotated[1]} were annotated")
        stored.load()
        image = ImageOps.exif_transpose(stored) if turned else stored
        return in_eight_bits(image)
    except BaseException:
        stored.close()
        raise


def even_places(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` ranks at equal steps, the first and the last among them, each once."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist())) if count else []
