"""What a box of a COCO file must be like."""

from typing import Any

from mal.engine.faults import Fault, show

BORDER_TOLERANCE = 1.0  # pixels a box may stick out of its image: rounding, not a mistake
_LARGEST = 1e9  # coordinates beyond are not pixels; comparing with it also finds NaN and infinities
OUTSIDE = "a bbox outside its image"  # a fault's kind
_LAYOUT = "[x, y, width, height]"


def box_fault(bbox: Any, width: int, height: int) -> Fault | None:
    """What is wrong with a box for an image of this size; None where it is [x, y, width, height] and at least partly
    inside. How far it may stick out is `overhang`'s matter."""
    if type(bbox) is not list or len(bbox) != 4:
        five = ""
        if type(bbox) is list and len(bbox) == 5:
            five = ", so if the fifth is an angle or a score, write the upright box around the object without it"
        return Fault(
            "no box of four numbers", f"bbox is {show(bbox)}; it must be a list of four numbers {_LAYOUT}{five}"
        )
    for value in bbox:
        if type(value) is not float and type(value) is not int:
            text = f"bbox {show(bbox)} holds {show(value)}, which is not a number; write numbers without quotes"
            return Fault("a bbox of other things than numbers", text)
        if not -_LARGEST < value < _LARGEST:
            return Fault(
                "a bbox of what is no pixel position",
                f"bbox {show(bbox)} holds {show(value)}, which is no pixel position; correct or remove the annotation",
            )
    x, y, w, h = bbox
    if w < 0 or h < 0:
        return Fault(
            "a bbox of negative size",
            f"bbox {show(bbox)} has a negative width or height; a box is {_LAYOUT}, so if these are "
            "two corners, perhaps swapped, write [min x, min y, max x - min x, max y - min y]",
        )
    if _misses(x, w, width) or _misses(y, h, height):
        return Fault(
            OUTSIDE,
            f"bbox {show(bbox)} lies outside its image of {width} x {height} pixels; remove the annotation, "
            "or correct the image's width and height",
        )
    return None


def overhang(bbox: list[float], width: int, height: int) -> float:
    """Pixels by which an xywh box sticks out of its image at its worst side; negative inside."""
    x, y, w, h = bbox
    return max(-x, -y, x + w - width, y + h - height)


def is_left_over(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is what tools leave behind where an object was begun or deleted: a box without area and no
    mask."""
    bbox = annotation.get("bbox")
    if type(bbox) is not list or len(bbox) != 4 or (bbox[2] != 0 and bbox[3] != 0):
        return False
    return is_absent(annotation.get("segmentation"))


def is_absent(segmentation: Any) -> bool:
    """Whether a value of `segmentation` says that there is none: null, "", [], [[]], {}, run lengths without a run."""
    if isinstance(segmentation, list):
        return all(map(is_absent, segmentation))
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        return not segmentation or ("counts" in segmentation and (is_absent(counts) or counts == [0]))
    return segmentation is None or segmentation is False or segmentation == ""


def box_of(segmentation: Any) -> list[float] | None:
    """The box [x, y, width, height] around polygons; None where there are none."""
    if not isinstance(segmentation, list):
        return None
    polygons = segmentation if segmentation and isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(p, list) and all(type(value) in (int, float) for value in p) for p in polygons):
        return None
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    if len(xs) < 3 or len(xs) != len(ys):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _misses(start: float, length: float, limit: int) -> bool:
    """Whether a side has no pixel in the image; one of length 0 may lie on the border."""
    stop = start + length
    return start > limit or stop < 0 or (length > 0 and (start >= limit or stop <= 0))
