"""A point for each object: as a file gives it, or drawn from the human mask by a named protocol."""

from typing import Any

import numpy as np

from mal.data.mask_windows import decode_window
from mal.errors import AnnotationError

Point = tuple[float, float]  # x, y in pixels of the image; pixel i covers [i, i + 1)


def point_of(annotation: dict[str, Any], *, height: int, width: int) -> Point:
    """An annotation's own `point`, [x, y]; without one, `inside_point` of its mask.

    Args:
        height, width: of its image.

    Raises:
        AnnotationError: the point is no point of the image, or there is neither a point nor a mask.
    """
    given = annotation.get("point")
    if given is None:
        if not annotation.get("segmentation"):
            raise AnnotationError(
                f"annotation {annotation['id']} has neither a point nor a mask to draw one from; give it "
                '"point": [x, y] in pixels'
            )
        return inside_point(annotation["segmentation"], annotation["bbox"], height=height, width=width)
    numbers = isinstance(given, list) and len(given) == 2 and all(type(value) in (int, float) for value in given)
    if not numbers or not (0 <= given[0] < width and 0 <= given[1] < height):
        raise AnnotationError(
            f"annotation {annotation['id']} has point={given}; it must be [x, y] in pixels, inside its image of "
            f"{width} × {height}"
        )
    return float(given[0]), float(given[1])


def inside_point(segmentation: Any, bbox: list[float], *, height: int, width: int) -> Point:
    """The centre of the box, or where the mask does not cover it the centre of the nearest pixel of the mask.

    Args:
        segmentation: polygons or RLE. bbox: xywh.

    Raises:
        AnnotationError: the mask is empty or cannot be read.
    """
    x, y = bbox[0] + bbox[2] / 2, bbox[1] + bbox[3] / 2
    window = decode_window(segmentation, height=height, width=width)
    rows, columns = np.nonzero(window.mask)
    if not len(rows):
        raise AnnotationError("no point can be drawn from an empty mask; correct it, or give the point")
    rows, columns = rows + window.top, columns + window.left
    if ((rows == int(y)) & (columns == int(x))).any():
        return x, y
    nearest = int(np.argmin((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2))
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def points_only(coco: dict[str, Any]) -> dict[str, Any]:
    """The points view: of each annotation its id, image, category, whether it is a crowd, and its point.

    Args:
        coco: a COCO file that `annotations.read` gave, with points or masks.

    Raises:
        AnnotationError: see `point_of`.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations = []
    for annotation in coco["annotations"]:
        height, width = sizes[annotation["image_id"]]
        kept = {key: annotation[key] for key in ("id", "image_id", "category_id", "iscrowd") if key in annotation}
        annotations.append({**kept, "point": list(point_of(annotation, height=height, width=width))})
    return {key: coco[key] for key in ("info", "licenses", "images", "categories") if key in coco} | {
        "annotations": annotations
    }
