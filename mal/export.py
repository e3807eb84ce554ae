"""Pseudo-labels in the formats that other tools read."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mal.annotations import CocoDict, annotations_by_image, decode_mask, file_name, write
from mal.errors import AnnotationError
from mal.files import atomic_write

Annotation = dict[str, Any]
Size = dict[str, int]  # height, width
FOLDERS = {"png": ".png", "yolo": ".txt"}  # formats whose output is a folder, and the suffix of its files
CLASSES = "classes.txt"


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a mask: one flat x, y, x, y, … list a part, in pixels; pixel i covers [i, i + 1).

    An outline runs along pixel edges and holds only its corners, so COCO's rasteriser gives back exactly the mask with
    its holes filled (COCO's polygons cannot express holes). Pixels that touch at a corner belong to one part.

    Args:
        mask: (H, W) bool.

    Returns:
        Nothing where the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    left, top = columns[0], rows[0]
    filled = fill_holes(np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1))
    nw, ne, sw, se = filled[:-1, :-1], filled[:-1, 1:], filled[1:, :-1], filled[1:, 1:]  # pixels around a grid point
    y, x = np.nonzero(nw ^ ne ^ sw ^ se)
    # where two pixels meet diagonally four edges do, which makes two corners: the left edge's and the right edge's
    pinch_y, pinch_x = np.nonzero((nw == se) & (ne == sw) & (nw != ne))
    falling = nw[pinch_y, pinch_x]  # the outline passes through \ : left and lower edge, right and upper edge
    none, ones = np.zeros(len(y), dtype=bool), np.ones(len(pinch_y), dtype=bool)
    x, y = np.concatenate([x, pinch_x, pinch_x]), np.concatenate([y, pinch_y, pinch_y])
    right = np.concatenate([none, ~ones, ones])
    lower = np.concatenate([none, falling, ~falling])
    # corners of a grid line, in order, are joined in pairs
    across, down = _partners(np.lexsort((right, x, y))), _partners(np.lexsort((lower, y, x)))
    corners, new = np.stack([x + left, y + top], axis=1).tolist(), [True] * len(x)
    outlines: list[list[float]] = []
    for start in range(len(corners)):
        outline, at = [], start
        while new[at]:
            for partner in (across, down):
                new[at] = False
                outline += corners[at]
                at = partner[at]
        if outline:
            outlines.append(outline)
    return outlines


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool and the background that it encloses (from which no way along pixel edges leads out)."""
    canvas = np.pad(mask, 1).astype(np.uint8, order="C")  # OpenCV takes no other order
    cv2.floodFill(canvas, None, (0, 0), 2)
    return canvas[1:-1, 1:-1] != 2


def write_rle(coco: CocoDict, out: Path) -> None:
    """A COCO file with compressed RLE masks. Annotation tools want `iscrowd`, so it is added where it is absent."""
    write(out, {**coco, "annotations": [{"iscrowd": 0, **annotation} for annotation in coco["annotations"]]})


def write_polygons(coco: CocoDict, out: Path) -> None:
    """A COCO file with polygons, which annotation tools edit. Holes are filled, and `area` is the polygons'.

    Crowds keep their RLE, as COCO has it. An empty mask becomes its box, flagged.
    """
    sizes, annotations = _sizes(coco), []
    for annotation in coco["annotations"]:
        entry = {"iscrowd": 0, **annotation}
        if not entry["iscrowd"]:
            entry |= _outlined(annotation, sizes[annotation["image_id"]])
        annotations.append(entry)
    write(out, {**coco, "annotations": annotations})


def write_png(coco: CocoDict, out: Path) -> None:
    """A folder of 16-bit PNGs, one an image: 0 is background, k the annotation of that `value` in out/instances.json.

    Where masks overlap the smaller one is on top. instances.json is the COCO file without its segmentations; an
    image's `mask_file` names its PNG.
    """
    sizes, names = _sizes(coco), file_names(coco, "png")
    values: dict[int, int] = {}
    for image_id, annotations in annotations_by_image(coco).items():
        canvas = np.zeros((sizes[image_id]["height"], sizes[image_id]["width"]), dtype=np.uint16)
        values |= {annotation["id"]: value for value, annotation in enumerate(annotations, start=1)}
        for annotation in sorted(annotations, key=lambda a: -a["area"]):
            canvas[decode_mask(annotation["segmentation"], **sizes[image_id])] = values[annotation["id"]]
        buffer = BytesIO()
        Image.fromarray(canvas).save(buffer, "PNG")
        with atomic_write(out / names[image_id], "wb") as file:
            file.write(buffer.getvalue())
    images = [{**image, "mask_file": str(names[image["id"]])} for image in coco["images"]]
    annotations = [{**a, "value": values[a["id"]]} for a in coco["annotations"]]
    for annotation in annotations:
        del annotation["segmentation"]
    write(out / "instances.json", {**coco, "images": images, "annotations": annotations})


def write_yolo(coco: CocoDict, out: Path) -> None:
    """A folder of YOLO segmentation files: a line an annotation, its class and its largest outline, x and y in [0, 1].

    Classes are numbered from 0 in the order of category ids; classes.txt names them. An image without annotations
    has an empty file. An empty mask becomes its box.
    """
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    classes = {category["id"]: index for index, category in enumerate(categories)}
    sizes, names = _sizes(coco), file_names(coco, "yolo")
    for image_id, annotations in annotations_by_image(coco).items():
        lines, size = [], sizes[image_id]
        for annotation in annotations:
            largest = max(_outlined(annotation, size)["segmentation"], key=_area)
            points = np.array(largest).reshape(-1, 2) / (size["width"], size["height"])
            numbers = " ".join(f"{value:.6f}" for value in points.clip(0, 1).flatten())
            lines.append(f"{classes[annotation['category_id']]} {numbers}\n")
        with atomic_write(out / names[image_id]) as file:
            file.writelines(lines)
    with atomic_write(out / CLASSES) as file:
        file.writelines(f"{category['name']}\n" for category in categories)


FORMATS: dict[str, Callable[[CocoDict, Path], None]] = {
    "rle": write_rle,
    "polygon": write_polygons,
    "png": write_png,
    "yolo": write_yolo,
}


def file_names(coco: CocoDict, kind: str) -> dict[int, Path]:
    """Image id → its file inside the output folder of a format in FOLDERS: its own name with another suffix.

    Raises:
        AnnotationError: two images would share a file.
    """
    names: dict[int, Path] = {}
    taken = {Path(CLASSES): f"the list of classes ({CLASSES})"}
    for image in coco["images"]:
        path = Path(file_name(image))
        names[image["id"]] = name = path.relative_to(path.anchor).with_suffix(FOLDERS[kind])
        if name in taken:
            raise AnnotationError(
                f"image {image['id']} ({path}) and {taken[name]} would both be written to {name}; rename the image, "
                "or choose rle or polygon, which write one file for all"
            )
        taken[name] = f"image {image['id']} ({path})"
    return names


def _partners(order: np.ndarray) -> list[int]:
    """Each corner's other end of its edge, where neighbours in `order` are joined in pairs."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner.tolist()


def _outlined(annotation: Annotation, size: Size) -> Annotation:
    """What changes in an annotation whose mask becomes polygons."""
    outlines = polygons(decode_mask(annotation["segmentation"], **size))
    if outlines:
        return {"segmentation": outlines, "area": round(sum(map(_area, outlines)))}
    x, y, w, h = annotation["bbox"]
    box = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"segmentation": [box], "area": w * h, "flagged": True, "flag_reason": "the mask is empty"}


def _area(outline: list[float]) -> float:
    """Shoelace formula; px²."""
    x, y = np.array(outline, dtype=np.float64).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _sizes(coco: CocoDict) -> dict[int, Size]:
    return {image["id"]: {"height": image["height"], "width": image["width"]} for image in coco["images"]}
