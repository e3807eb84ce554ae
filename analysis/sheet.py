"""A contact sheet: image, box or points, pseudo mask, human mask, from the best instance to the worst."""

import json
from pathlib import Path

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from matplotlib.figure import Figure
from PIL import Image

from analysis.drawing import (
    HUMAN,
    PSEUDO,
    compressed,
    draw_box,
    draw_point,
    even_places,
    load_picture,
    overlay,
    sample_mask,
)
from analysis.images import by_id
from analysis.lettering import lettered
from analysis.records import Json

EXAMPLES = 10
SMALLEST = 16  # pixels; in a smaller box there is nothing to see
MARGIN = 0.25  # of the box's longer side, shown around it
CELL, GAP, HEADER, LINE = 206, 4, 22, 16  # pixels of the sheet: width of a picture, and heights of what is around it
FLATTEST, TALLEST = 0.4, 1.6  # height by width of a picture
DPI, BACKGROUND = 110, 224
TITLES = ("image", "pseudo mask", "human mask")
SHOWN = {  # what labels were made from → its title, and what is said where nothing can be drawn
    "boxes": ("box", f"no box of {SMALLEST} × {SMALLEST} pixels\nhas a mask of its own"),
    "points": ("point", f"no object has a mask of its own\nof {SMALLEST} × {SMALLEST} pixels"),
    "expressions": ("box", f"no box of {SMALLEST} × {SMALLEST} pixels\nhas a mask of its own"),
}
LETTERS = 54  # of an expression above a row
Row = tuple[Json, Json | None, float]  # an annotation, the human one, their IoU


def draw_sheet(
    labels: Path, images: Path, *, human: Path | None, out: Path, examples: int = EXAMPLES, shows: str = "boxes"
) -> Path:
    """Draw a PNG of some labelled boxes.

    Which: with human masks, instances at equal steps of the IoU ranking, best to worst; without, at equal steps of
    the file's order. Nothing is picked by hand. Boxes of less than 16 × 16 pixels, crowds and flagged ones are left
    out: there is nothing to see.

    Args:
        labels: pseudo-label file. images: folder of its images. human: the file with human masks, where there is one.
        shows: of `SHOWN`, what is drawn beside a mask: its `bbox`, or all its `points`; its `bbox`, and above the row
            the first of its `expressions`.

    Returns:
        `out`.
    """
    coco = json.loads(labels.read_bytes())
    records = by_id(coco["images"])
    truths = {} if human is None else by_id(json.loads(human.read_bytes())["annotations"])
    rows: list[Row] = []
    for annotation in coco["annotations"]:
        if not can_be_shown(annotation):
            continue
        truth = truths.get(annotation["id"])
        iou = 0.0 if truth is None else _iou(annotation, truth, records[annotation["image_id"]])
        rows.append((annotation, truth, iou))
    rows.sort(key=lambda row: -row[2])
    chosen = [rows[i] for i in even_places(len(rows), examples)]
    columns, drawn = 3 if human is None else 4, {}
    for image_id in dict.fromkeys(annotation["image_id"] for annotation, _, _ in chosen):  # an image is decoded once
        picture = load_picture(records[image_id], images)
        for place, (annotation, truth, _) in enumerate(chosen):
            if annotation["image_id"] == image_id:
                drawn[place] = _draw_row(picture, annotation, truth, records[image_id], columns=columns, shows=shows)
    _save(out, [drawn[place] for place in range(len(chosen))], chosen, columns=columns, shows=shows)
    return out


def can_be_shown(annotation: Json) -> bool:
    """Whether there is something to see: neither a tiny box, nor a crowd, nor a mask that stands for a missing one."""
    return not (min(annotation["bbox"][2:]) < SMALLEST or annotation.get("iscrowd") or annotation.get("flagged"))


def _save(out: Path, drawn: list[np.ndarray], chosen: list[Row], *, columns: int, shows: str) -> None:
    """Put the rows below one another, and titles above."""
    told = shows == "expressions"
    line = LINE if columns == 4 or told else 0  # an IoU, or an expression, above each row
    width, height = columns * (CELL + GAP) + GAP, HEADER + sum(GAP + line + len(row) for row in drawn) + GAP
    sheet = np.full((height if drawn else height + CELL, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / DPI, len(sheet) / DPI), dpi=DPI)
    top = HEADER

    def write(text: str, column: float, y: float, *, left: bool = False) -> None:
        x = GAP if left else GAP + (column + 0.5) * (CELL + GAP) - GAP / 2
        place = x / width, 1 - y / len(sheet)
        figure.text(*place, text, fontsize=8, ha="left" if left else "center", va="center", parse_math=False)

    second, nothing = SHOWN[shows]
    for column, title in enumerate((TITLES[0], second, *TITLES[1:])[:columns]):
        write(title, column, HEADER / 2)
    for row, (annotation, truth, iou) in zip(drawn, chosen, strict=True):
        if told:
            write(_expression(annotation), 0, top + line / 2 + GAP / 2, left=True)
        if truth is not None:
            write(f"IoU {iou:.2f}", 2, top + line / 2 + GAP / 2)
        top += line + GAP
        sheet[top : top + len(row), GAP : GAP + row.shape[1]] = row
        top += len(row)
    if not drawn:
        write(nothing, 1, HEADER + CELL / 2)
    figure.figimage(sheet, zorder=-1)
    with lettered(figure):
        figure.savefig(out, dpi=DPI)


def _expression(annotation: Json) -> str:
    """The first that an object has, of at most LETTERS letters, and how many others it has."""
    first, *others = annotation.get("expressions") or [""]
    text = first if len(first) <= LETTERS else first[: LETTERS - 1] + "…"
    return f"“{text}”" + (f" and {len(others)} more" if others else "")


def _draw_row(
    picture: Image.Image, annotation: Json, truth: Json | None, record: Json, *, columns: int, shows: str
) -> np.ndarray:
    """One instance's crops, side by side: (h, w, 3) uint8."""
    points = annotation["points"] if shows == "points" else []
    seen = list(points)
    if points and truth is not None:  # a mask from points may lie beside the human one
        x, y, w, h = truth["bbox"]
        seen += [[x, y], [x + w, y + h]]
    left, top, width, height = window(around(annotation["bbox"], seen), picture.size)
    tall = round(CELL * min(max(height / width, FLATTEST), TALLEST))
    scale = min(CELL / width, tall / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    crop = np.asarray(picture.resize(size, way, box=(left, top, left + width, top + height)))
    x, y, w, h = annotation["bbox"]
    marked = crop.copy()
    if shows != "points":
        edges = ((x - left) * scale, (y - top) * scale, (x + w - left) * scale, (y + h - top) * scale)
        draw_box(marked, *(round(edge) for edge in edges))
    for across, down in points:
        draw_point(marked, (across - left) * scale, (down - top) * scale)
    at = (
        top + ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int),
        left + ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int),
    )
    pictures = [crop, marked, overlay(crop, sample_mask(annotation["segmentation"], record, *at), PSEUDO)]
    if truth is not None:
        pictures.append(overlay(crop, sample_mask(truth["segmentation"], record, *at), HUMAN))
    row = np.full((tall, columns * (CELL + GAP) - GAP, 3), 255, dtype=np.uint8)
    for column, one in enumerate(pictures):
        cell = row[:, column * (CELL + GAP) :][:, :CELL]
        cell[:] = BACKGROUND  # beside an image that is narrower or flatter than a picture may be
        y0, x0 = (tall - size[1]) // 2, (CELL - size[0]) // 2
        cell[y0 : y0 + size[1], x0 : x0 + size[0]] = one
    return row


def around(box: list[float], points: list[list[float]]) -> list[float]:
    """The smallest box (x, y, w, h) around a box and points, which may lie beside it."""
    x, y, w, h = box
    left, top = (min(low, *(point[axis] for point in points), low) for axis, low in enumerate((x, y)))
    right, bottom = (max(high, *(point[axis] for point in points), high) for axis, high in enumerate((x + w, y + h)))
    return [left, top, right - left, bottom - top]


def window(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What is shown around a box (x, y, w, h): a square that lies inside the image, cut where it is larger than that.

    Args:
        size: width and height of the image.

    Returns:
        left, top, width and height, in whole pixels of the image.
    """
    side = int(np.ceil(max(box[2:]) * (1 + 2 * MARGIN)))
    starts, lengths = [], []
    for low, length, limit in zip(box[:2], box[2:], size, strict=True):
        lengths.append(min(side, limit))
        starts.append(min(max(round(low + length / 2 - side / 2), 0), limit - lengths[-1]))
    return starts[0], starts[1], lengths[0], lengths[1]


def _iou(annotation: Json, truth: Json, record: Json) -> float:
    pseudo, human = (compressed(a["segmentation"], record) for a in (annotation, truth))
    return float(rle.iou([pseudo], [human], [0]).item())
