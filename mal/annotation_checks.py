"""What a COCO or LVIS instance file must be like; every complaint names the file, the entry, the value, the way out.

Plain loops and no mask decoding: the 860,000 annotations of COCO train2017 are checked in seconds.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mal.errors import AnnotationError
from mal.mask_formats import mask_problem, show

CocoDict = dict[str, Any]
BORDER_TOLERANCE = 1.0  # pixels a box may stick out of its image: rounding, not a mistake
_LARGEST = 1e9  # coordinates beyond are not pixels; comparing with it also finds NaN and infinities


def check(coco: Any, *, source: str | Path, masks: bool) -> None:
    """Refuse what is not a usable COCO or LVIS instance file.

    Allowed because real files have it: boxes of no width or height, boxes up to a pixel over the border, crowds, gaps
    in ids, unused categories, images without annotations, unknown keys (never looked at).

    Args:
        coco: the JSON value of a file.
        source: its name, for the errors.
        masks: whether every annotation must have a valid segmentation; else segmentations are not looked at.

    Raises:
        AnnotationError: the first thing that is wrong.
    """
    _check_layout(coco, source)
    _check_entries(coco["categories"], "category", source, _category_problem)
    images = _check_entries(coco["images"], "image", source, _image_problem)
    categories = {category["id"] for category in coco["categories"]}
    if masks:
        _require_some_mask(coco, source)

    def problem(annotation: dict[str, Any]) -> str | None:
        image = _image_of(annotation, images)
        if image is None:
            return _reference_problem(annotation, "image_id", images)
        found = box_problem(annotation.get("bbox"), image["width"], image["height"])
        if found is None and overhang(annotation["bbox"], image["width"], image["height"]) > BORDER_TOLERANCE:
            found = _overhang_problem(annotation, images, coco["annotations"])
        category = annotation.get("category_id")
        if found is None and (type(category) is not int or category not in categories):
            found = _reference_problem(annotation, "category_id", categories)
        if found is None and annotation.get("iscrowd", 0) not in (0, 1):
            found = f"iscrowd is {show(annotation['iscrowd'])}; it must be 0 or 1"
        if found is None and masks:
            found = mask_problem(annotation.get("segmentation"), height=image["height"], width=image["width"])
            found = found or _area_problem(annotation)
        return found and f"image {image['id']} ({file_name(image)}): {found}"

    _check_entries(coco["annotations"], "annotation", source, problem)


def check_image_list(coco: Any, *, source: str | Path) -> None:
    """Refuse what has no usable list of images, whatever else it has.

    Raises:
        AnnotationError: the first thing that is wrong.
    """
    if not isinstance(coco, dict) or not isinstance(coco.get("images"), list) or not coco["images"]:
        raise AnnotationError(f"{source} has no list of images; give a COCO file, such as image_info_test-dev2017.json")
    _check_entries(coco["images"], "image", source, _image_problem)


def file_name(image: dict[str, Any]) -> str:
    """Path of an image inside the image folder: `file_name`, or the last two parts of `coco_url` (LVIS v1 has no
    `file_name`, and its val images lie partly in train2017).

    An absolute path is taken as it is (exports that stay on one machine have them); `..` is refused.

    Raises:
        AnnotationError: there is no name, or it leads out of the folder.
    """
    name = image.get("file_name")
    if name is None and isinstance(image.get("coco_url"), str):
        name = "/".join(urlsplit(image["coco_url"]).path.strip("/").split("/")[-2:])
    if not isinstance(name, str) or not name or "\0" in name:
        raise AnnotationError(
            f"image {show(image.get('id'))}: file_name is {show(name)}; "
            "give the image's path inside the image folder, in quotes"
        )
    if ".." in name and ".." in re.split(r"[\\/]", name):
        raise AnnotationError(
            f"image {show(image.get('id'))}: file_name {name!r} leads out of the image folder; "
            "remove the '..' and name the folder that holds all images"
        )
    return name


def box_problem(bbox: Any, width: int, height: int) -> str | None:
    """What is wrong with a box for an image of this size; None where it is [x, y, width, height] and at least partly
    inside. How far it may stick out is `overhang`'s matter."""
    if type(bbox) is not list or len(bbox) != 4:
        return f"bbox is {show(bbox)}; it must be a list of four numbers [x, y, width, height]"
    for value in bbox:
        if type(value) is not float and type(value) is not int:
            return f"bbox {show(bbox)} holds {show(value)}, which is not a number; write numbers without quotes"
        if not -_LARGEST < value < _LARGEST:
            return (
                f"bbox {show(bbox)} holds {show(value)}, which is no pixel position; correct or remove the annotation"
            )
    x, y, w, h = bbox
    if w < 0 or h < 0:
        return (
            f"bbox {show(bbox)} has a negative width or height; a box is [x, y, width, height], so if these are "
            "two corners, perhaps swapped, write [min x, min y, max x - min x, max y - min y]"
        )
    if _misses(x, w, width) or _misses(y, h, height):
        return (
            f"bbox {show(bbox)} lies outside its image of {width} x {height} pixels; remove the annotation, "
            "or correct the image's width and height"
        )
    return None


def _misses(start: float, length: float, limit: int) -> bool:
    """Whether a side has no pixel in the image; one of length 0 may lie on the border."""
    stop = start + length
    return start > limit or stop < 0 or (length > 0 and (start >= limit or stop <= 0))


def overhang(bbox: list[float], width: int, height: int) -> float:
    """Pixels by which an xywh box sticks out of its image at its worst side; negative inside."""
    x, y, w, h = bbox
    return max(-x, -y, x + w - width, y + h - height)


def _check_layout(coco: Any, source: str | Path) -> None:
    if isinstance(coco, list):
        raise AnnotationError(
            f"{source} holds a list, as a file of detection results does; give a COCO instance file: "
            "an object with images, annotations and categories"
        )
    if not isinstance(coco, dict):
        raise AnnotationError(f"{source} holds {show(coco)}; give a COCO instance file")
    missing = [key for key in ("images", "annotations", "categories") if key not in coco]
    if missing:
        raise AnnotationError(
            f"{source} has no {' and no '.join(missing)} (it has {', '.join(map(show, coco)) or 'nothing'}); "
            "give a COCO instance file with images, annotations and categories"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco[key], list):
            raise AnnotationError(f"{source}: {key} is {show(coco[key])}; it must be a list")
        if not coco[key]:
            raise AnnotationError(f"{source}: the list of {key} is empty, so there is nothing to do; give another file")


def _check_entries(
    entries: list[Any], kind: str, source: str | Path, problem: Callable[[dict[str, Any]], str | None]
) -> dict[int, dict[str, Any]]:
    """Entries by id, once each has an id of its own and no problem."""
    by_id: dict[int, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            raise AnnotationError(f"{source}: entry {index} of the {kind} list is {show(entry)}; it must be an object")
        key = entry.get("id")
        if type(key) is not int or not -(2**63) <= key < 2**63:
            raise AnnotationError(
                f"{source}: the id of {kind} entry {index} is {show(key)}; it must be a whole number, without quotes"
            )
        if key in by_id:
            raise AnnotationError(
                f"{source}: {kind} id {key} is used twice, again in entry {index}; number the entries anew "
                "(files joined by hand often collide)"
            )
        found = problem(entry)
        if found is not None:
            raise AnnotationError(f"{source}: {kind} {key}: {found}")
        by_id[key] = entry
    return by_id


def _category_problem(category: dict[str, Any]) -> str | None:
    name = category.get("name")
    if not isinstance(name, str) or not name:
        return f"its name is {show(name)}; give it a name in quotes"
    return None


def _image_problem(image: dict[str, Any]) -> str | None:
    for key in ("width", "height"):
        value = image.get(key)
        if type(value) is not int or value <= 0:
            fault = "is missing" if key not in image else f"is {show(value)}"
            return f"{key} {fault}; give the image file's {key} in pixels, a whole number > 0"
    try:
        file_name(image)
    except AnnotationError as error:
        return str(error).partition(": ")[2]
    return None


def _image_of(annotation: dict[str, Any], images: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    key = annotation.get("image_id")
    return images.get(key) if type(key) is int else None


def _reference_problem(annotation: dict[str, Any], key: str, known: Any) -> str:
    value = annotation.get(key)
    what = "images" if key == "image_id" else "categories"
    if type(value) is not int:
        return f"{key} is {show(value)}; it must be a whole number, without quotes: the id of one of the {what}"
    return (
        f"{key} is {value}, and none of the {len(known)} {what} has that id (they run from {min(known)} to "
        f"{max(known)}); correct it, or add the entry to {what}"
    )


def _area_problem(annotation: dict[str, Any]) -> str | None:
    area = annotation.get("area", 0)
    if type(area) not in (int, float) or not 0 <= area < float("inf"):
        return f"area is {show(area)}; it must be a number of pixels >= 0, or be left out"
    return None


def _overhang_problem(annotation: dict[str, Any], images: dict[int, dict[str, Any]], annotations: list[Any]) -> str:
    """A box that sticks out too far, and what all boxes of the file say about the reason."""
    out = total = corners = 0
    for other in annotations:
        image = _image_of(other, images) if type(other) is dict else None
        if image is None or box_problem(other.get("bbox"), image["width"], image["height"]):
            continue
        x, y, right, bottom = other["bbox"]
        total += 1
        out += overhang(other["bbox"], image["width"], image["height"]) > BORDER_TOLERANCE
        corners += x <= right <= image["width"] + 1 and y <= bottom <= image["height"] + 1
    image = images[annotation["image_id"]]
    width, height = image["width"], image["height"]
    advice = "clip the boxes to their images, or correct the image's width and height"
    if corners == total:
        advice = "every box of the file would fit as two corners [x1, y1, x2, y2]: write [x1, y1, x2 - x1, y2 - y1]"
    return (
        f"bbox {show(annotation['bbox'])} sticks out of its image of {width} x {height} pixels by "
        f"{overhang(annotation['bbox'], width, height):g}, more than the {BORDER_TOLERANCE:g} allowed "
        f"({out} of the file's {total} boxes do); {advice}"
    )


def _require_some_mask(coco: CocoDict, source: str | Path) -> None:
    annotations = coco["annotations"]
    if not any(type(annotation) is dict and annotation.get("segmentation") for annotation in annotations):
        raise AnnotationError(
            f"{source} holds boxes only: none of its {len(annotations)} annotations has a segmentation, and human "
            "masks are needed here; give the file with the masks (COCO calls it instances_*.json)"
        )
