"""Pseudo-labels in the formats that other tools read."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal.data.annotations import CocoDict, annotations_by_image, file_name, write
from mal.data.mask_windows import decode_window
from mal.data.polygons import area, joined, polygons
from mal.engine.files import atomic_write
from mal.errors import AnnotationError

Annotation = dict[str, Any]
Size = dict[str, int]  # height, width
FOLDERS = {"png": ".png", "yolo": ".txt"}  # formats whose output is a folder, and the suffix of its files
CLASSES = "classes.txt"  # beside YOLO's
INDEX = "instances.json"  # beside the PNGs
MOST_VALUES = 2**16 - 1


def write_rle(coco: CocoDict, out: Path) -> list[str]:
    """A COCO file with compressed RLE masks. Annotation tools want `iscrowd`, so it is added where it is absent.

    Returns:
        What the format cannot hold, in sentences, as every writer does: nothing here.
    """
    write(out, {**coco, "annotations": [{"iscrowd": 0, **annotation} for annotation in coco["annotations"]]})
    return []


def write_polygons(coco: CocoDict, out: Path) -> list[str]:
    """A COCO file with polygons, which annotation tools edit. Holes are filled, and `area` is the polygons'.

    Crowds keep their RLE, as COCO has it. An empty mask becomes its box, flagged.
    """
    sizes, annotations, holes = _sizes(coco), [], 0
    for annotation in coco["annotations"]:
        entry = {"iscrowd": 0, **annotation}
        if not entry["iscrowd"]:
            changed, filled = _outlined(annotation, sizes[annotation["image_id"]])
            entry |= changed
            holes += filled
        annotations.append(entry)
    write(out, {**coco, "annotations": annotations})
    return _holes(holes)


def write_png(coco: CocoDict, out: Path) -> list[str]:
    """A folder of 16-bit PNGs, one per image: 0 is background, k the annotation of that `value` in out/instances.json.

    Where masks overlap the smaller one is on top. instances.json is the COCO file without its segmentations; an
    image's `mask_file` names its PNG.
    """
    sizes, names = _sizes(coco), file_names(coco, "png")
    values: dict[int, int] = {}
    covered = lost = 0
    for image_id, annotations in annotations_by_image(coco).items():
        canvas = np.zeros((sizes[image_id]["height"], sizes[image_id]["width"]), dtype=np.uint16)
        values |= {annotation["id"]: value for value, annotation in enumerate(annotations, start=1)}
        painted = []
        for annotation in sorted(annotations, key=lambda a: -a["area"]):
            window = decode_window(annotation["segmentation"], **sizes[image_id])
            canvas[window.place][window.mask] = values[annotation["id"]]
            painted.append((window, values[annotation["id"]]))
        for window, value in painted:
            seen = int(np.count_nonzero(canvas[window.place][window.mask] == value))
            covered += 0 < seen < window.area
            lost += seen == 0 < window.area
        with atomic_write(out / names[image_id], "wb") as file:
            Image.fromarray(canvas).save(file, "PNG")
    images = [{**image, "mask_file": str(names[image["id"]])} for image in coco["images"]]
    annotations = [{**a, "value": values[a["id"]]} for a in coco["annotations"]]
    for annotation in annotations:
        del annotation["segmentation"]
    write(out / INDEX, {**coco, "images": images, "annotations": annotations})
    hidden = f"PNG holds one mask per pixel: {covered} masks are partly and {lost} wholly hidden by smaller ones"
    return [hidden] if covered or lost else []


def write_yolo(coco: CocoDict, out: Path) -> list[str]:
    """A folder of YOLO segmentation files: one line per annotation, its class and its polygon, x and y in [0, 1].

    Classes are numbered from 0 in the order of category ids; classes.txt names them. An image without annotations
    has an empty file. The parts of an object are joined (`polygons.joined`), its holes are filled, and an empty mask
    becomes its box. Crowds are left out, as ultralytics does: YOLO knows single objects only.
    """
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    classes = {category["id"]: index for index, category in enumerate(categories)}
    sizes, names = _sizes(coco), file_names(coco, "yolo")
    crowds = parts = holes = 0
    for image_id, annotations in annotations_by_image(coco).items():
        lines, size = [], sizes[image_id]
        for annotation in annotations:
            if annotation.get("iscrowd"):
                crowds += 1
                continue
            changed, filled = _outlined(annotation, size)
            outlines = changed["segmentation"]
            parts += len(outlines) > 1
            holes += filled
            points = np.array(joined(outlines)).reshape(-1, 2) / (size["width"], size["height"])
            numbers = " ".join(f"{value:.6f}" for value in points.clip(0, 1).flatten())
            lines.append(f"{classes[annotation['category_id']]} {numbers}\n")
        with atomic_write(out / names[image_id]) as file:
            file.writelines(lines)
    with atomic_write(out / CLASSES) as file:
        file.writelines(f"{category['name']}\n" for category in categories)
    messages = [f"{crowds} crowds are left out: YOLO holds single objects only"] if crowds else []
    messages += [f"{parts} objects of several parts are one polygon each, joined by lines of no width"] if parts else []
    return messages + _holes(holes)


FORMATS: dict[str, Callable[[CocoDict, Path], list[str]]] = {
    "rle": write_rle,
    "polygon": write_polygons,
    "png": write_png,
    "yolo": write_yolo,
}


def planned_files(coco: CocoDict, kind: str, out: Path) -> list[Path]:
    """All files that a format writes.

    Raises:
        AnnotationError: they cannot hold these annotations.
    """
    if kind not in FOLDERS:
        return [out]
    names = [out / name for name in file_names(coco, kind).values()]
    if kind == "png":
        counts = Counter(annotation["image_id"] for annotation in coco["annotations"])
        image_id, most = counts.most_common(1)[0] if counts else (0, 0)
        if most > MOST_VALUES:
            raise AnnotationError(
                f"image {image_id} has {most} annotations, and a 16-bit PNG tells {MOST_VALUES} apart; choose rle or "
                "polygon"
            )
        return [*names, out / INDEX]
    for category in coco["categories"]:
        if len(str(category["name"]).splitlines()) > 1:
            raise AnnotationError(
                f"category {category['id']} is called {category['name']!r}, and {CLASSES} has one name per line; "
                "rename it, or choose another format"
            )
    return [*names, out / CLASSES]


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


def _outlined(annotation: Annotation, size: Size) -> tuple[Annotation, bool]:
    """What changes in an annotation whose mask becomes polygons, and whether holes are filled."""
    window = decode_window(annotation["segmentation"], **size)
    outlines = polygons(window.mask, left=window.left, top=window.top)
    if outlines:
        pixels = round(sum(map(area, outlines)))
        return {"segmentation": outlines, "area": pixels}, pixels > window.area
    x, y, w, h = annotation["bbox"]
    box = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"segmentation": [box], "area": w * h, "flagged": True, "flag_reason": "the mask is empty"}, False


def _holes(count: int) -> list[str]:
    return [f"the holes of {count} masks are filled: polygons have none"] if count else []


def _sizes(coco: CocoDict) -> dict[int, Size]:
    return {image["id"]: {"height": image["height"], "width": image["width"]} for image in coco["images"]}
