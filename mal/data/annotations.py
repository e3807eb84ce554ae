"""COCO and LVIS instance files: read, check, strip to boxes, write."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from mal.data.annotation_checks import CocoDict, check, check_image_list
from mal.data.annotation_text import parse, without_garbage_collection
from mal.data.box_checks import is_left_over
from mal.data.image_folder import check_images
from mal.data.image_names import file_name
from mal.data.mask_formats import decode_mask, encode_mask
from mal.data.strip import strip
from mal.engine.files import atomic_write
from mal.engine.not_finite import DEEPEST, TooDeep, not_finite_place
from mal.errors import AnnotationError

__all__ = [
    "CocoDict",
    "annotations_by_image",
    "check_images",
    "decode_mask",
    "encode_mask",
    "file_name",
    "instance",
    "parse",
    "read",
    "read_images",
    "strip",
    "write",
]


def read(path: str | Path, *, masks: bool, boxes: bool = True, points: bool = False) -> CocoDict:
    """Read and check a COCO or LVIS instance file. Unknown keys and their order survive; nothing is corrected but what
    `annotation_text.parse` makes whole.

    Args:
        path: the JSON file.
        masks: whether every annotation must have a valid segmentation; else segmentations are not looked at.
        boxes: whether every annotation must have a box; else one with points of its own and no mask needs none.
        points: whether points are what is read: one that has some needs no box, and one with nothing lacks a point.

    Returns:
        The dict of the JSON. Boxes are xywh in pixels. With `masks`, annotations that a tool left over (a box
        without area, no mask) are not in it; without, they are, because every box that is labelled comes back.

    Raises:
        AnnotationError: the file cannot be read or trusted; names the file, the entries, the values and the way out
            (what is checked: `annotation_checks.check`).
    """
    coco, not_finite = parse(path)
    with without_garbage_collection():
        check(coco, source=path, masks=masks, boxes=boxes and not points, points=points)
        _check_values(coco, path, everywhere=not_finite)
    if masks and any(is_left_over(annotation) for annotation in coco["annotations"]):
        coco["annotations"] = [annotation for annotation in coco["annotations"] if not is_left_over(annotation)]
    return coco


def read_images(path: str | Path) -> list[dict[str, Any]]:
    """The images of a COCO or LVIS file, in its order. It may be one without annotations, as test sets have
    (image_info_test-dev2017.json); where there are some they are not looked at.

    Raises:
        AnnotationError: the file cannot be read, or an image lacks its id, size or name.
    """
    coco = parse(path).value
    check_image_list(coco, source=path)
    return coco["images"]


def write(path: str | Path, coco: CocoDict) -> None:
    """Write a COCO file; the name appears once the file is whole.

    Raises:
        AnnotationError: a value is not JSON's (NaN).
        MalError: the disk is full or the folder cannot be written.
    """
    try:
        text = json.dumps(coco, allow_nan=False)  # json.dump, which writes as it goes, takes almost three times as long
    except ValueError as error:
        place = not_finite_place(coco, everywhere=True) or "a value is NaN or infinite"
        raise AnnotationError(f"{path} is not written: {place}, which JSON does not have; correct the value") from error
    with atomic_write(path) as file:
        file.write(text)


def only_images(coco: CocoDict, kept: Container[int]) -> CocoDict:
    """The part of a file that concerns some of its images, by their ids; the file is left as it is."""
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in kept],
        "annotations": [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept],
    }


def annotations_by_image(coco: CocoDict) -> dict[int, list[dict[str, Any]]]:
    """Image id → its annotations, for every image in the file's order; an image without any has an empty list."""
    groups: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        groups[annotation["image_id"]].append(annotation)
    return groups


def instance(mask: np.ndarray) -> dict[str, Any]:
    """What a COCO file says of a mask (height, width), which is not empty: its tight box, its area, its run lengths."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(np.count_nonzero(mask)),
        "iscrowd": 0,
        "segmentation": encode_mask(mask),
    }


def _check_values(coco: CocoDict, path: str | Path, *, everywhere: bool) -> None:
    """Refuse what cannot be written again."""
    try:
        place = not_finite_place(coco, everywhere=everywhere)
    except TooDeep:
        raise AnnotationError(
            f"{path} holds lists or objects more than {DEEPEST} deep inside each other; leave them out"
        ) from None
    if place is not None:
        raise AnnotationError(f"{path}: {place}, which JSON does not have; write null or leave the key out")
