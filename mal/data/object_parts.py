"""Parts of objects, each with a mask: read beside the file of the objects, or merged to objects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mal.data.annotations import CocoDict, annotations_by_image, decode_mask, instance, read
from mal.data.census import images_of
from mal.data.joins import same_file
from mal.data.mask_kinds import GIVEN, verdicts
from mal.engine.findings import number, some
from mal.errors import AnnotationError

FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")  # of LVIS's images: ids of the parts' categories


@dataclass(frozen=True)
class ObjectParts:
    """The parts of a file's objects.

    Attributes:
        coco: a COCO instance file of them, in which `object_id` is the id of a part's object.
        remark: what must be said of them.
    """

    coco: CocoDict
    remark: str | None


def read_parts(path: Path, objects: Path, *, which: str = "all") -> ObjectParts:
    """The parts of those objects of a file that have a mask; crowds and masks that show nothing are left out of both.

    Args:
        path: a COCO instance file, whose annotations say by `object_id` which object each is of.
        objects: the file of the objects.
        which: `all`, `even` or `odd`: the images that scores are measured on, some of which must have parts.

    Raises:
        AnnotationError: either cannot be read; a part has no mask, no `object_id`, or another image than its object;
            none is of an object with a mask, or none of these is on the images that scores are measured on.
    """
    given, whole = read(path, masks=True), read(objects, masks=False, boxes=False)
    parts = _single(given)
    every, masked = {a["id"]: a for a in whole["annotations"]}, {a["id"] for a in _single(whole)}
    of = f"the id of its object in {objects} (`python -m mal.wholes` writes such a pair of files)"
    if unnamed := [part["id"] for part in parts if type(part.get("object_id")) is not int]:
        raise AnnotationError(
            f"{path}: {number(len(unnamed), 'part')} of {len(parts)} without a whole number for `object_id` (ids "
            f"{some(unnamed)}); give each {of}"
        )
    known = [part for part in parts if part["object_id"] in every]
    images, own = ({image["id"]: image for image in coco["images"]} for coco in (whole, given))
    elsewhere = [
        part["id"] for part in known if not _alike(own[part["image_id"]], images[every[part["object_id"]]["image_id"]])
    ]
    if elsewhere:
        raise AnnotationError(
            f"{path}: {number(len(elsewhere), 'part has', 'parts have')} another image, or one of another size, than "
            f"the objects in {objects} that they are of (ids {some(elsewhere)}); give the two files of one split"
        )
    kept = [part for part in known if part["object_id"] in masked]
    if not kept:
        raise AnnotationError(
            f"{path}: none of its {number(len(parts), 'part')} is of an object of {objects} that has a mask and is no "
            f"crowd; `object_id` must be {of}"
        )
    measured = images_of(whole, which)
    if not any(part["image_id"] in measured for part in kept):
        raise AnnotationError(
            f"{path}: its parts are of objects on other than the {which}-placed images (data.val_images={which}), so "
            "that none can be measured; set data.val_images=all, or give the parts of more objects"
        )
    left = len(parts) - len(kept)
    said = f"{number(left, 'part is', 'parts are')} of objects that {objects} does not have, or has without a mask"
    return ObjectParts({"images": whole["images"], "annotations": kept}, f"{path}: {said}" if left else None)


def wholes(coco: CocoDict, category: str, *, source: Path) -> tuple[CocoDict, CocoDict]:
    """Objects of which a file annotates the parts, one an image, and the parts, each with its object's `object_id`.

    Args:
        coco: a file read with its masks. Crowds, and masks that show nothing, are no parts.
        category: the objects' name.
        source: the file, for the error.

    Raises:
        AnnotationError: it has no part.
    """
    inside = annotations_by_image({**coco, "annotations": _single(coco)})
    objects: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for image in coco["images"]:
        if own := inside[image["id"]]:
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
    images = [{key: value for key, value in image.items() if key not in FEDERATED} for image in coco["images"]]
    merged = {**coco, "images": images, "categories": [{"id": 1, "name": category}], "annotations": objects}
    return merged, {**coco, "annotations": parts}


def _single(coco: CocoDict) -> list[dict[str, Any]]:
    """The annotations that are no crowd and whose mask shows something."""
    judged = zip(coco["annotations"], verdicts(coco), strict=True)
    return [a for a, verdict in judged if verdict.kind in GIVEN and not a.get("iscrowd")]


def _alike(image: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two entries are of one image, of one size."""
    return same_file(image, other) and all(image[key] == other[key] for key in ("id", "height", "width"))
