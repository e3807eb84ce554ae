"""A contact sheet: image, box, pseudo mask, human mask, from the best instance to the worst."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

EXAMPLES = 10
SMALLEST = 16  # pixels; in a smaller box there is nothing to see
MARGIN = 0.25  # of the box's size, shown around it
PSEUDO, HUMAN = np.array([0.12, 0.47, 0.96]), np.array([0.98, 0.55, 0.08])
TITLES = ("image", "box", "pseudo mask", "human mask")
Json = dict[str, Any]


def draw_sheet(labels: Path, images: Path, *, human: Path | None, out: Path, examples: int = EXAMPLES) -> Path:
    """Draw a PNG of some labelled boxes.

    Which: with human masks, instances at equal steps of the IoU ranking, best to worst; without, at equal steps of
    the file's order. Nothing is picked by hand. Boxes of less than 16 × 16 pixels, crowds and flagged ones are left
    out: there is nothing to see.

    Args:
        labels: pseudo-label file. images: folder of its images. human: the file with human masks, where there is one.

    Returns:
        `out`.
    """
    coco = json.loads(labels.read_text(encoding="utf-8"))
    records = {image["id"]: image for image in coco["images"]}
    truths = {} if human is None else {a["id"]: a for a in json.loads(human.read_text(encoding="utf-8"))["annotations"]}
    rows: list[tuple[Json, Json | None, float]] = []
    for annotation in coco["annotations"]:
        if min(annotation["bbox"][2:]) < SMALLEST or annotation.get("iscrowd") or annotation.get("flagged"):
            continue
        truth = truths.get(annotation["id"])
        iou = 0.0 if truth is None else _iou(annotation, truth, records[annotation["image_id"]])
        rows.append((annotation, truth, iou))
    rows.sort(key=lambda row: -row[2])
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(examples, len(rows))).round().astype(int)]
    columns, lines = 3 if human is None else 4, max(1, len(chosen))
    figure = Figure(figsize=(1.9 * columns, 1.95 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (annotation, truth, iou) in zip(grid, chosen, strict=False):
        _draw_row(line, annotation, truth, iou, records[annotation["image_id"]], images)
    for axes, title in zip(grid[0], TITLES, strict=False):
        axes.set_title(f"{title}\n{axes.get_title()}".strip(), fontsize=8)
    if not chosen:
        grid[0, 1].text(0.5, 0.5, f"no box of {SMALLEST} × {SMALLEST} pixels\nhas a mask of its own", ha="center")
    figure.savefig(out, dpi=110)
    return out


def _draw_row(line: np.ndarray, annotation: Json, truth: Json | None, iou: float, record: Json, images: Path) -> None:
    """Fill a row of axes with one instance's crops."""
    pixels = _pixels(record, images)
    x, y, width, height = annotation["bbox"]
    left, top = max(0, int(x - MARGIN * width)), max(0, int(y - MARGIN * height))
    right, bottom = int(x + (1 + MARGIN) * width) + 1, int(y + (1 + MARGIN) * height) + 1
    pictures = [pixels, pixels, overlay(pixels, decode(annotation["segmentation"], record), PSEUDO)]
    if truth is not None:
        pictures.append(overlay(pixels, decode(truth["segmentation"], record), HUMAN))
        line[2].set_title(f"IoU {iou:.2f}", fontsize=8)
    for axes, picture in zip(line, pictures, strict=False):
        axes.imshow(picture[top:bottom, left:right], interpolation="nearest")
    corner = (x - left - 0.5, y - top - 0.5)
    line[1].add_patch(Rectangle(corner, width, height, fill=False, color="lime", linewidth=1.5))


def overlay(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask and draw its contour. pixels (H, W, 3) in [0, 1], mask (H, W) bool."""
    tinted = np.where(mask[..., None], 0.5 * pixels + 0.5 * colour, pixels)
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], colour, tinted)


def decode(segmentation: Any, record: Json) -> np.ndarray:
    """Polygons or RLE → (H, W) bool."""
    return rle.decode(_compressed(segmentation, record)).astype(bool)


def _compressed(segmentation: Any, record: Json) -> Json:
    """Polygons or RLE of either kind → compressed RLE."""
    height, width = record["height"], record["width"]
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)
    return segmentation


def _iou(annotation: Json, truth: Json, record: Json) -> float:
    pseudo, human = (_compressed(a["segmentation"], record) for a in (annotation, truth))
    return float(rle.iou([pseudo], [human], [0]).item())


def _pixels(record: Json, images: Path) -> np.ndarray:
    """(H, W, 3) in [0, 1], turned by the EXIF tag only where the annotated size says so (as the labelers see it)."""
    # LVIS v1 names an image by the last two parts of its address
    name = record.get("file_name") or "/".join(urlsplit(record["coco_url"]).path.split("/")[-2:])
    with Image.open(images / name) as stored:
        fits = stored.size == (record["width"], record["height"])
        image: Image.Image = stored if fits else ImageOps.exif_transpose(stored)
        if image.mode.startswith("I;16"):  # Pillow would cut it at 255
            return np.repeat(np.asarray(image)[..., None] / 65535, 3, axis=2)
        return np.asarray(image.convert("RGB")) / 255
