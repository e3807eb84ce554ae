"""The points that a file gives for its objects."""

from typing import Any

from mal.data.box_checks import is_absent
from mal.engine.faults import Fault, show

Point = tuple[float, float]  # x, y in pixels of the image; pixel i covers [i, i + 1)
OWN = ("points", "point", "keypoints")  # keys of an annotation's own points, the first that holds one counts
VISIBLE = 2  # the third number of a keypoint that can be seen (COCO); 1 is hidden, 0 not labelled


def own_points(annotation: dict[str, Any], *, height: int, width: int) -> list[Point] | Fault:
    """The points that a file gives for an object, in its order; empty where it gives none.

    They are `"points": [[x, y], …]`, or `"point": [x, y]`, or of COCO's `"keypoints": [x, y, v, …]` the visible ones.

    Args:
        height, width: of its image. Points are in pixels; pixel i covers [i, i + 1).

    Returns:
        the points, or what is wrong with them.
    """
    key = next((key for key in OWN if _gives(annotation, key)), None)
    if key is None:
        return []
    given = annotation[key]
    listed = [given] if key == "point" else given
    if key == "keypoints":
        if not isinstance(given, list) or len(given) % 3:
            text = f"annotation {annotation['id']} has keypoints={show(given)}; they must be [x, y, v, x, y, v, ...]"
            return Fault("keypoints that are not threes", text)
        listed = [given[at : at + 2] for at in range(0, len(given), 3) if given[at + 2] == VISIBLE]
    entries: list[Any] = listed if isinstance(listed, list) else [None]
    for point in entries:
        numbers = isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)
        if not numbers or not (0 <= point[0] < width and 0 <= point[1] < height):
            each = {"points": "a list of [x, y]", "point": "[x, y]", "keypoints": "x, y, v in turns, x and y"}[key]
            text = f"annotation {annotation['id']} has {key}={show(given)}; it must be {each} in pixels, inside its "
            return Fault("points that are none of their image", f"{text}image of {width} × {height}")
    return [(float(x), float(y)) for x, y in listed]


def is_boxless(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is of points alone: they are named, be they right or wrong, and neither box nor mask is."""
    if annotation.get("bbox") is not None or not is_absent(annotation.get("segmentation")):
        return False
    return names_points(annotation)


def names_points(annotation: dict[str, Any]) -> bool:
    """Whether an annotation has points of its own by name, be they right or wrong."""
    return any(annotation.get(key) is not None for key in OWN)


def _gives(annotation: dict[str, Any], key: str) -> bool:
    """Whether an annotation says something by a key of `OWN`. Keypoints of which none is visible say nothing: COCO
    writes those, all zeros, where nobody has marked any."""
    value = annotation.get(key)
    if key == "keypoints" and isinstance(value, list) and len(value) % 3 == 0:
        return VISIBLE in value[2::3]
    return value is not None and value != []
