"""Expressions made from boxes and categories alone: "the dog", "the leftmost dog", "the largest dog".

For data of which nobody has said anything. Masks are not read, so that methods of few masks may be tried on any COCO
file. An expression is made only where it is true of exactly one object of its image.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mal.data.annotation_checks import CocoDict
from mal.data.wording import words

SIDES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}  # word → axis, sign
APART = 0.05  # least distance of two centres, as a share of the image's side along the axis
LARGER = 1.5  # least ratio of two boxes' areas
SMALLEST = 0.005  # box of what is spoken of, as a share of the image's area


def templated(coco: CocoDict) -> dict[int, list[str]]:
    """The expressions of a file's objects, by annotation id; objects of which none is true alone are absent.

    "the C" is said of the only object of category C on its image; of several, "the leftmost C" and the like of the one
    whose box has its centre beyond those of all others (`extremes`), and "the largest C", "the smallest C" of the one
    whose box is `LARGER` times as large, or as small, as the next. Boxes below `SMALLEST` of their image are not spoken
    of, but do count as others. Of a category that has a crowd on an image nothing is said there. Categories of one name
    are one.

    Args:
        coco: a COCO file with boxes xywh in pixels; its segmentations may be absent, and are not looked at.
    """
    names = {category["id"]: " ".join(words(category["name"])) for category in coco["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in coco["annotations"]:
        groups[annotation["image_id"], names[annotation["category_id"]]].append(annotation)
    found: dict[int, list[str]] = {}
    for (image, name), group in groups.items():
        if not name or any(annotation.get("iscrowd", 0) for annotation in group):
            continue
        width, height = sizes[image]
        boxes = np.array([annotation["bbox"] for annotation in group], dtype=np.float64)
        least = SMALLEST * width * height
        for place, qualifier in _qualifiers(boxes, width, height):
            if boxes[place, 2] * boxes[place, 3] >= least:
                text = f"the {qualifier} {name}" if qualifier else f"the {name}"
                found.setdefault(group[place]["id"], []).append(text)
    return found


def extremes(centres: NDArray[np.float64], size: Sequence[float]) -> dict[str, int]:
    """Which of several objects lies farthest to each side, where it does clearly.

    Args:
        centres: (n, 2) xy, n ≥ 2. size: width and height of the image, in the same unit.

    Returns:
        word of `SIDES` → place among the objects, of sides where that one's centre is beyond all others' by at least
        `APART` of the image's side.
    """
    found = {}
    for word, (axis, sign) in SIDES.items():
        along = sign * centres[:, axis]
        first, second = np.argsort(along, kind="stable")[:2]
        if along[second] - along[first] >= APART * size[axis]:
            found[word] = int(first)
    return found


def _qualifiers(boxes: NDArray[np.float64], width: int, height: int) -> list[tuple[int, str]]:
    """(place, word) of what may be said of one of the boxes xywh of a category; the word is empty for a single one."""
    if len(boxes) == 1:
        return [(0, "")]
    said = [(place, word) for word, place in extremes(boxes[:, :2] + boxes[:, 2:] / 2, (width, height)).items()]
    areas = boxes[:, 2] * boxes[:, 3]
    order = np.argsort(areas, kind="stable")
    if areas[order[-1]] >= LARGER * areas[order[-2]]:
        said.append((int(order[-1]), "largest"))
    if areas[order[1]] >= LARGER * areas[order[0]]:
        said.append((int(order[0]), "smallest"))
    return said
