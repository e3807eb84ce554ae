"""A contact sheet: image, box, pseudo mask, human mask, from the best instance to the worst."""

import json
from pathlib import Path

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.drawing import HUMAN, PSEUDO, Json, compressed, decode, load_pixels, overlay

EXAMPLES = 10
SMALLEST = 16  # pixels; in a smaller box there is nothing to see
MARGIN = 0.25  # of the box's size, shown around it
TITLES = ("image", "box", "pseudo mask", "human mask")


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
    coco = json.loads(labels.read_bytes())
    records = {image["id"]: image for image in coco["images"]}
    truths = {} if human is None else {a["id"]: a for a in json.loads(human.read_bytes())["annotations"]}
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
    pixels = load_pixels(record, images)
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


def _iou(annotation: Json, truth: Json, record: Json) -> float:
    pseudo, human = (compressed(a["segmentation"], record) for a in (annotation, truth))
    return float(rle.iou([pseudo], [human], [0]).item())
