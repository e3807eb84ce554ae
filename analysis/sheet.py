"""A contact sheet: image, box, pseudo mask, human mask, from the best instance to the worst."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from pycocotools import mask as rle

EXAMPLES = 10
MARGIN = 0.25  # of the box's size, shown around it
PSEUDO, HUMAN = np.array([0.12, 0.47, 0.96]), np.array([0.98, 0.55, 0.08])
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
    coco = json.loads(labels.read_text())
    records = {image["id"]: image for image in coco["images"]}
    truths = {} if human is None else {a["id"]: a for a in json.loads(human.read_text())["annotations"]}
    rows = []
    for annotation in coco["annotations"]:
        if min(annotation["bbox"][2:]) < 16 or annotation.get("iscrowd") or annotation.get("flagged"):
            continue
        record = records[annotation["image_id"]]
        truth = truths.get(annotation["id"])
        rows.append((annotation, truth, None if truth is None else _iou(annotation, truth, record)))
    if truths:
        rows.sort(key=lambda row: -(row[2] or 0))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(examples, len(rows))).round().astype(int)]
    columns = 4 if truths else 3
    figure, grid = plt.subplots(
        max(1, len(chosen)), columns, figsize=(1.9 * columns, 1.95 * max(1, len(chosen))), squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (annotation, truth, iou) in zip(grid, chosen, strict=False):
        _row(axes, annotation, truth, iou, records[annotation["image_id"]], images)
    for axes, title in zip(grid[0], ("image", "box", "pseudo mask", "human mask"), strict=False):
        axes.set_title(f"{title}\n{axes.get_title()}".strip(), fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _row(axes: np.ndarray, annotation: Json, truth: Json | None, iou: float | None, record: Json, images: Path) -> None:
    pixels = np.asarray(Image.open(images / record["file_name"]).convert("RGB")) / 255
    x, y, width, height = annotation["bbox"]
    left, top = max(0, int(x - MARGIN * width)), max(0, int(y - MARGIN * height))
    right, bottom = int(x + (1 + MARGIN) * width) + 1, int(y + (1 + MARGIN) * height) + 1
    view = (slice(top, bottom), slice(left, right))
    _show(axes[0], pixels[view])
    _show(axes[1], pixels[view])
    axes[1].add_patch(Rectangle((x - left - 0.5, y - top - 0.5), width, height, fill=False, color="lime", linewidth=1.5))
    _show(axes[2], overlay(pixels, decode(annotation["segmentation"], record), PSEUDO)[view])
    axes[2].set_title("" if iou is None else f"IoU {iou:.2f}", fontsize=8)
    if truth is not None:
        _show(axes[3], overlay(pixels, decode(truth["segmentation"], record), HUMAN)[view])


def overlay(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask and draw its contour. pixels (H, W, 3) in [0, 1], mask (H, W) bool."""
    tinted = np.where(mask[..., None], 0.5 * pixels + 0.5 * colour, pixels)
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], colour, tinted)


def decode(segmentation: Any, record: Json) -> np.ndarray:
    """Polygons or RLE → (H, W) bool."""
    height, width = record["height"], record["width"]
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, height, width)
    return rle.decode(segmentation).astype(bool)


def _iou(annotation: Json, truth: Json, record: Json) -> float:
    pseudo, human = decode(annotation["segmentation"], record), decode(truth["segmentation"], record)
    return float((pseudo & human).sum() / max(1, (pseudo | human).sum()))


def _show(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, interpolation="nearest")
