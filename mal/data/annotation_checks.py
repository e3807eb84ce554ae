"""What a COCO or LVIS instance file must be like; every complaint names the file, the entry, the value, the way out.

Plain loops and no mask decoding: the 860,000 annotations of COCO train2017 are checked in seconds.
"""

import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from mal.data.box_checks import BORDER_TOLERANCE, OUTSIDE, box_fault, box_of, is_absent, is_left_over, overhang
from mal.data.image_names import file_name, name_fault
from mal.data.mask_formats import mask_fault
from mal.data.own_points import is_boxless, names_points
from mal.engine.faults import Fault, Problem, describe, show
from mal.errors import AnnotationError

CocoDict = dict[str, Any]
LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}
MANY = 4  # boxes that do not fit their images, from which on they may be written in another way; and a quarter of all
LARGEST_IMAGE = 178_956_970  # pixels: Pillow opens no larger one, and masks are made at the size that is claimed


def check(coco: Any, *, source: str | Path, masks: bool, boxes: bool = True, points: bool = False) -> None:
    """Refuse what is not a usable COCO or LVIS instance file.

    Allowed because real files have it: boxes of no width or height, boxes up to a pixel over the border, crowds, gaps
    in ids, unused categories, images without annotations, unknown keys (never looked at).

    Args:
        coco: the JSON value of a file.
        source: its name, for the errors.
        masks: whether every annotation must have a valid segmentation; else segmentations are not looked at.
        boxes: whether every annotation must have a box; else one with points of its own and no mask needs none.
        points: whether points are what is read: one that has some needs no box, and one with nothing lacks a point.

    Raises:
        AnnotationError: all that is wrong, by kind of fault: how many entries have it, the first few, the way out.
    """
    found = problems(coco, masks=masks, boxes=boxes, points=points)
    if found:
        raise AnnotationError(describe(found, source))


def check_image_list(coco: Any, *, source: str | Path) -> None:
    """Refuse what has no usable list of images, whatever else it has.

    Raises:
        AnnotationError: all that is wrong, as `check` says it.
    """
    if not isinstance(coco, dict) or not isinstance(coco.get("images"), list) or not coco["images"]:
        raise AnnotationError(f"{source} has no list of images; give a COCO file, such as image_info_test-dev2017.json")
    found = _Entries("images", coco["images"], _image_fault).problems
    if found:
        raise AnnotationError(describe(found, source))


def problems(coco: Any, *, masks: bool, boxes: bool = True, points: bool = False) -> list[Problem]:
    """All that is wrong with a COCO or LVIS instance file, in the order of its lists; empty where `check` accepts it.

    Args:
        coco: the JSON value of a file.
        masks, boxes, points: see `check`.
    """
    found = _layout_problem(coco)
    if found is not None:
        return [Problem("layout", "", "", found)]
    categories = _Entries("categories", coco["categories"], _category_fault)
    images = _Entries("images", coco["images"], _image_fault)
    if masks and not any(type(a) is dict and a.get("segmentation") for a in coco["annotations"]):
        text = (
            f"it holds boxes only: none of its {len(coco['annotations'])} annotations has a segmentation, and human "
            "masks are needed here; give the file with the masks (COCO calls it instances_*.json)"
        )
        return [*categories.problems, *images.problems, Problem("boxes only", "", "", text)]
    checks = _Annotations(coco["annotations"], images, categories, masks=masks, boxes=boxes, points=points)
    annotations = _Entries("annotations", coco["annotations"], checks.fault)
    return [*categories.problems, *images.problems, *annotations.problems]


class _Entries:
    """One list of a file: its usable entries by id, and what is wrong with the others."""

    def __init__(self, name: str, entries: list[Any], fault: Callable[[dict[str, Any]], Fault | None]) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        self.problems: list[Problem] = []
        self.doubtful: set[Any] = set()  # ids of entries with a fault: who refers to one is not at fault himself
        self.name, self._kind = name, LISTS[name]
        for index, entry in enumerate(entries):
            key: Any = entry.get("id") if type(entry) is dict else None
            found = self._id_fault(index, entry, key)
            if found is not None:
                self._add(found, f"entry {index}", found.text, key)
                continue
            found = fault(entry)
            if found is not None:
                self._add(found, str(key), f"{self._kind} {key}: {found.text}", key)
            else:
                self.by_id[key] = entry

    def knows(self, key: Any) -> bool:
        return key in self.by_id if type(key) is int else False

    def doubts(self, key: Any) -> bool:
        return isinstance(key, int | float | str) and key in self.doubtful

    def _add(self, fault: Fault, name: str, text: str, key: Any) -> None:
        self.problems.append(Problem(fault.kind, self.name, name, text))
        if isinstance(key, int | float | str):
            self.doubtful.add(key)

    def _id_fault(self, index: int, entry: Any, key: Any) -> Fault | None:
        kind = self._kind
        if type(entry) is not dict:
            text = f"entry {index} of the {kind} list is {show(entry)}; it must be an object"
            return Fault("no object", text)
        if type(key) is not int or not -(2**63) <= key < 2**63:
            way_out = "it must be a whole number, without quotes"
            if type(key) is int:
                way_out = f"it must be a whole number of at most 63 bits; number the {self.name} anew, from 1"
            elif isinstance(key, str) and not key.isdecimal():
                way_out = f"it must be a whole number; number the {self.name} 1, 2, 3, ..."
            if kind != "annotation" and type(key) in (int, str):
                way_out += f", and write these numbers into {kind}_id of the annotations too"
            return Fault("an id that is no whole number", f"the id of {kind} entry {index} is {show(key)}; {way_out}")
        if key in self.by_id or key in self.doubtful:
            return Fault(
                "an id that is used twice",
                f"{kind} id {key} is used twice, again in entry {index}; number the entries anew "
                "(files joined by hand often collide)",
            )
        return None


class _Annotations:
    """The checks of an annotation, which need the images and categories it refers to."""

    def __init__(
        self, annotations: list[Any], images: _Entries, categories: _Entries, *, masks: bool, boxes: bool, points: bool
    ) -> None:
        self.annotations, self.images, self.categories = annotations, images, categories
        self.masks, self.boxes, self.points = masks, boxes, points

    def fault(self, annotation: dict[str, Any]) -> Fault | None:
        key = annotation.get("image_id")
        image = self.images.by_id.get(key) if type(key) is int else None
        if image is None:
            return None if self.images.doubts(key) else _reference_fault(annotation, "image_id", self.images)
        found = self._fault_in(annotation, image)
        return found and Fault(found.kind, f"image {image['id']} ({file_name(image)}): {found.text}")

    def _fault_in(self, annotation: dict[str, Any], image: dict[str, Any]) -> Fault | None:
        width, height, bbox = image["width"], image["height"], annotation.get("bbox")
        boxless = not self.boxes and is_boxless(annotation)
        if self.points and bbox is None:
            boxless = names_points(annotation)
            if not boxless and is_absent(annotation.get("segmentation")):
                text = 'it has neither a point nor a mask to draw one from; give it "point": [x, y] in pixels'
                return Fault("neither a point nor a mask", text)
        found = None if boxless else box_fault(bbox, width, height)
        if found is not None:
            around = None if bbox else box_of(annotation.get("segmentation"))
            more = "" if around is None else f"its polygons' box is {show(around)}"
            if found.kind == OUTSIDE:
                more = self._boxes[2]
            return Fault(found.kind, f"{found.text}; {more}") if more else found
        if not boxless and overhang(annotation["bbox"], width, height) > BORDER_TOLERANCE:
            return self._overhang_fault(annotation["bbox"], width, height)
        category = annotation.get("category_id")
        if not self.categories.knows(category) and not self.categories.doubts(category):
            return _reference_fault(annotation, "category_id", self.categories)
        if annotation.get("iscrowd", 0) not in (0, 1, None):
            text = f"iscrowd is {show(annotation['iscrowd'])}; it must be 0 or 1"
            return Fault("iscrowd that is neither 0 nor 1", text)
        if self.masks and not is_left_over(annotation):
            return mask_fault(annotation.get("segmentation"), height=height, width=width) or _area_fault(annotation)
        return None

    def _overhang_fault(self, bbox: list[float], width: int, height: int) -> Fault:
        out, total, reading = self._boxes
        advice = reading or "clip the boxes to their images, or correct the image's width and height"
        return Fault(
            "a bbox that sticks out of its image",
            f"bbox {show(bbox)} sticks out of its image of {width} x {height} pixels by "
            f"{overhang(bbox, width, height):g}, more than the {BORDER_TOLERANCE:g} allowed "
            f"({out} of the file's {total} boxes do); {advice}",
        )

    @cached_property
    def _boxes(self) -> tuple[int, int, str]:
        """Of the boxes that are boxes: how many stick out too far, how many there are, and how else all would fit."""
        out = total = corners = centres = thousandths = 0
        for other in self.annotations:
            key = other.get("image_id") if type(other) is dict else None
            image = self.images.by_id.get(key) if type(key) is int else None
            fault = image and box_fault(other.get("bbox"), image["width"], image["height"])
            if image is None or (fault and fault.kind != OUTSIDE):
                continue
            (x, y, w, h), width, height = other["bbox"], image["width"], image["height"]
            total += 1
            out += overhang(other["bbox"], width, height) > BORDER_TOLERANCE
            corners += x <= w <= width + 1 and y <= h <= height + 1
            centres += overhang([x - w / 2, y - h / 2, w, h], width, height) <= BORDER_TOLERANCE
            thousandths += overhang(other["bbox"], 1000, 1000) <= BORDER_TOLERANCE
        way = ""
        if corners == total:
            way = "two corners [x1, y1, x2, y2]: write [x1, y1, x2 - x1, y2 - y1]"
        elif out >= MANY and out >= total / 4 and centres == total:
            way = "centre and size [x, y, width, height]: write [x - width / 2, y - height / 2, width, height]"
        elif out >= MANY and out >= total / 4 and thousandths == total:
            way = (
                "thousandths of the image: multiply x and width by its width / 1000, y and height by its height / 1000"
            )
        return out, total, way and f"every box of the file would fit as {way}"


def _layout_problem(coco: Any) -> str | None:
    if isinstance(coco, list):
        return (
            "it holds a list, as a file of detection results does; give a COCO instance file: "
            "an object with images, annotations and categories"
        )
    if not isinstance(coco, dict):
        return f"it holds {show(coco)}; give a COCO instance file"
    missing = [key for key in LISTS if key not in coco]
    if missing:
        return (
            f"it has no {' and no '.join(missing)} (it has {', '.join(map(show, coco)) or 'nothing'}); "
            "give a COCO instance file with images, annotations and categories"
        )
    for key in LISTS:
        if not isinstance(coco[key], list):
            return f"{key} is {show(coco[key])}; it must be a list"
        if not coco[key]:
            way_out = "so there is nothing to do; give another file"
            if key == "categories":
                way_out = 'and every annotation needs one; add one, such as {"id": 1, "name": "object"}'
            return f"the list of {key} is empty, {way_out}"
    return None


def _category_fault(category: dict[str, Any]) -> Fault | None:
    name = category.get("name")
    if not isinstance(name, str) or not name:
        return Fault("no name", f"its name is {show(name)}; give it a name in quotes")
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return Fault("a broken name", f"its name {show(name)} holds half a character; write it again")
    return None


def _image_fault(image: dict[str, Any]) -> Fault | None:
    for key in ("width", "height"):
        value = image.get(key)
        if type(value) is not int or value <= 0:
            fault = "is missing" if key not in image else f"is {show(value)}"
            text = f"{key} {fault}; give the image file's {key} in pixels, a whole number > 0"
            return Fault(f"no {key}", text)
    if image["width"] * image["height"] > LARGEST_IMAGE:
        return Fault(
            "a size that no image can have",
            f"width {show(image['width'])} and height {show(image['height'])} make more than {LARGEST_IMAGE:,} pixels, "
            "too many to work on; give the image file's own size, or cut the image into tiles",
        )
    return name_fault(image)


def _reference_fault(annotation: dict[str, Any], key: str, known: _Entries) -> Fault:
    value, what = annotation.get(key), known.name
    if type(value) is not int:
        text = f"{key} is {show(value)}; it must be a whole number, without quotes: the id of one of the {what}"
        return Fault(f"{key} that is no whole number", text)
    ids = known.by_id or {0: {}}
    return Fault(
        f"{key} of no entry",
        f"{key} is {show(value)}, and none of the {len(known.by_id)} {what} has that id (they run from {min(ids)} to "
        f"{max(ids)}); correct it, or add the entry to {what}",
    )


def _area_fault(annotation: dict[str, Any]) -> Fault | None:
    area = annotation.get("area", 0)
    if type(area) not in (int, float) or not 0 <= area < float("inf"):
        text = f"area is {show(area)}; it must be a number of pixels >= 0, or be left out"
        return Fault("area that is no number", text)
    return None
