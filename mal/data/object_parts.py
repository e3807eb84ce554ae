"""Parts of objects, each with a mask: read beside the file of the objects, or merged to objects."""

from pathlib import Path
from typing import Any

import numpy as np

from mal.data.annotations import CocoDict, annotations_by_image, decode_mask, instance, read
from mal.data.mask_kinds import BLANK, verdicts
from mal.engine.findings import number, some
from mal.errors import AnnotationError


def read_parts(path: Path, objects: Path) -> CocoDict:
    """The parts of a file's objects: a COCO instance file whose annotations say by `object_id` which object each is of.

    Args:
        objects: the file of the objects.

    Returns:
        The file's parts of those objects, without such whose masks show nothing.

    Raises:
        AnnotationError: either cannot be read, a part has no mask or another image than its object, or none is of one
            of the objects.
    """
    parts, whole = _shown(read(path, masks=True)), read(objects, masks=False, boxes=False)
    frames = {image["id"]: (image["id"], image["height"], image["width"]) for image in whole["images"]}
    own = {image["id"]: (image["id"], image["height"], image["width"]) for image in parts["images"]}
    frame_of = {annotation["id"]: frames[annotation["image_id"]] for annotation in whole["annotations"]}
    joined = [part for part in parts["annotations"] if _object_id(part) in frame_of]
    if not joined:
        raise AnnotationError(
            f"{path}: none of its {number(len(parts['annotations']), 'part')} is of an object of {objects}; each needs "
            "`object_id`, the id of its object there (`python -m mal.wholes` writes such a pair of files)"
        )
    elsewhere = [part["id"] for part in joined if own[part["image_id"]] != frame_of[part["object_id"]]]
    if elsewhere:
        raise AnnotationError(
            f"{path}: {number(len(elsewhere), 'part has', 'parts have')} another image, or one of another size, than "
            f"the objects in {objects} that they are of (ids {some(elsewhere)}); give the two files of one split"
        )
    return {**parts, "annotations": joined}


def wholes(coco: CocoDict, category: str, *, source: Path) -> tuple[CocoDict, CocoDict]:
    """Objects of which a file annotates the parts, one an image, and the parts with the `object_id` of theirs.

    Args:
        coco: a file read with its masks. Crowds, and masks that show nothing, are no parts.
        category: the objects' name.
        source: the file, for the error.

    Raises:
        AnnotationError: it has no part.
    """
    inside = annotations_by_image(_shown(coco))
    objects: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for image in coco["images"]:
        own = [annotation for annotation in inside[image["id"]] if not annotation.get("iscrowd")]
        if own:
            size = {"height": image["height"], "width": image["width"]}
            mask = np.logical_or.reduce([decode_mask(part["segmentation"], **size) for part in own])
            identity = len(objects) + 1
            objects.append({"id": identity, "image_id": image["id"], "category_id": 1, **instance(mask)})
            parts += [{**part, "object_id": identity} for part in own]
    if not parts:
        raise AnnotationError(
            f"{source} has no annotation that is not a crowd and whose mask shows something: there are no parts to "
            "merge"
        )
    merged = {**coco, "categories": [{"id": 1, "name": category}], "annotations": objects}
    return merged, {**coco, "annotations": parts}


def _shown(coco: CocoDict) -> CocoDict:
    """Without annotations whose masks show nothing."""
    judged = zip(coco["annotations"], verdicts(coco), strict=True)
    return {**coco, "annotations": [annotation for annotation, verdict in judged if verdict.kind != BLANK]}


def _object_id(part: dict[str, Any]) -> Any:
    """None where it is no id."""
    given = part.get("object_id")
    return given if type(given) is int else None
