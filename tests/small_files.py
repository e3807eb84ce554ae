"""Small COCO files and images to write to disk: coloured ellipses on grey, their boxes, their outlines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mal.data.annotations import encode_mask

Json = dict[str, Any]
WIDTH, HEIGHT = 160, 120


def coco_file(
    folder: Path, name: str = "boxes", *, images: int = 4, first: int = 1, step: int = 1, per_image: int = 2
) -> Path:
    """Write folder/<name>.json and folder/images: `per_image` ellipses on each image, with diamonds for masks.

    Args:
        first: the lowest image id; annotation ids begin at 100 times it. step: between image ids.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    coco: Json = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "plum"}, {"id": 2, "name": "pear"}]}
    for n in range(images):
        picture = Image.new("RGB", (WIDTH, HEIGHT), (80, 100, 80))
        image_id = first + step * n
        for k in range(per_image):
            x, y, w, h = 6 + 150 // per_image * k, 14 + 3 * n, 130 // per_image, 70 + n
            ImageDraw.Draw(picture).ellipse((x, y, x + w - 1, y + h - 1), fill=("orange", "purple")[k % 2])
            coco["annotations"].append(
                {
                    "id": 100 * first + len(coco["annotations"]),
                    "image_id": image_id,
                    "category_id": 1 + k % 2,
                    "bbox": [x, y, w, h],
                    "segmentation": diamond([x, y, w, h]),
                    "area": w * h / 2,
                    "iscrowd": 0,
                }
            )
        picture.save(folder / "images" / f"{name}_{n}.png")
        coco["images"].append({"id": image_id, "file_name": f"{name}_{n}.png", "width": WIDTH, "height": HEIGHT})
    return save(folder / f"{name}.json", coco)


def diamond(bbox: list[float]) -> list[list[float]]:
    x, y, w, h = bbox
    return [[x, y + h / 2, x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h]]


def rectangle(bbox: list[float]) -> list[list[float]]:
    x, y, w, h = bbox
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def run_lengths_of(bbox: list[float], *, text: bool, filled: bool = False) -> Json:
    """An RLE of the diamond, or of the whole box, as text or as a list."""
    x, y, w, h = (round(side) for side in bbox)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = abs(columns + 0.5 - x - w / 2) / w + abs(rows + 0.5 - y - h / 2) / h < 0.5
    if filled:
        mask = (columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h)
    if text:
        return encode_mask(mask)
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *counts] if flat[0] else counts}


def save(path: Path, coco: Json) -> Path:
    path.write_text(json.dumps(coco))
    return path


def edit(path: Path, change: Any) -> Path:
    """Rewrite a file as `change` leaves its value."""
    coco = json.loads(path.read_text())
    change(coco)
    return save(path, coco)


def each(**values: Any) -> Any:
    """A change of every annotation; a value that is a function gets the annotation."""

    def change(coco: Json) -> None:
        for annotation in coco["annotations"]:
            annotation.update({key: v(annotation) if callable(v) else v for key, v in values.items()})

    return change
