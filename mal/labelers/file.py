"""Masks that some other program made: a pseudo-label file in COCO's format, matched by annotation id."""

from pathlib import Path
from typing import Any

from mal.annotations import CocoDict, read
from mal.config import LabelerConfig
from mal.errors import AnnotationError, ConfigError

KEYS = {"train": "labeler.file", "val": "labeler.val_file"}


def path_for(labeler: LabelerConfig, split: str) -> Path | None:
    """The file with the masks of a split's images; None where none is named.

    Raises:
        ConfigError: it is named and does not exist.
    """
    named = labeler.file if split == "train" else labeler.val_file
    if named is None:
        return None
    if not Path(named).is_file():
        raise ConfigError(f"{KEYS[split]}={named}: there is no such file; give the pseudo-labels of the {split} images")
    return Path(named)


def read_labels(path: Path, coco: CocoDict) -> dict[int, dict[str, Any]]:
    """Annotations of a pseudo-label file by id, once they are known to be labels of these boxes.

    Args:
        path: a whole COCO instance file; polygons or RLE.
        coco: the boxes to be labelled.

    Raises:
        AnnotationError: the file is no such file, an annotation of `coco` is absent or lies on another image there, or
            an image has another size.
    """
    found = read(path, masks=True)
    by_id = {annotation["id"]: annotation for annotation in found["annotations"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in found["images"]}
    missing = [a["id"] for a in coco["annotations"] if a["id"] not in by_id]
    if missing:
        raise AnnotationError(
            f"{path} lacks {len(missing)} of the {len(coco['annotations'])} annotations that are to be labelled: ids "
            f"{_first(missing)}; label the same boxes and keep their ids (a box without a mask needs one too: "
            "fill it)"
        )
    moved = [a["id"] for a in coco["annotations"] if by_id[a["id"]]["image_id"] != a["image_id"]]
    if moved:
        raise AnnotationError(
            f"{path} has {len(moved)} of the annotations on other images: ids {_first(moved)}; "
            "it seems to number another set: label the same file"
        )
    used = {annotation["image_id"] for annotation in coco["annotations"]}
    for image in coco["images"]:
        here = (image["width"], image["height"])
        if image["id"] in used and sizes[image["id"]] != here:
            raise AnnotationError(
                f"{path}: image {image['id']} is {sizes[image['id']][0]} x {sizes[image['id']][1]} pixels there and "
                f"{here[0]} x {here[1]} here (width x height); make the masks at the images' own size"
            )
    return by_id


def _first(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
