"""Masks that some other program made: a pseudo-label file in COCO's format, matched by annotation id or by box."""

from pathlib import Path
from typing import Any

from mal.config import LabelerConfig
from mal.data.annotations import CocoDict, read
from mal.data.joins import join_labels
from mal.errors import ConfigError
from mal.methods.baselines.gt import human_labeler
from mal.methods.labelling import Label, ShardLabeler

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
    """Annotations of a pseudo-label file by the id of the box that they label, and under that id.

    Args:
        path: a whole COCO instance file; polygons or RLE.
        coco: the boxes to be labelled.

    Raises:
        AnnotationError: the file is not a COCO instance file, an image has another size there, or boxes have no label
            or no certain one (see `joins.join_labels`).
    """
    joined = join_labels(read(path, masks=True), coco, source=path)
    return {key: {**label, "id": key} for key, label in joined.labels.items()}


def file_labeler(path: Path, coco: CocoDict) -> ShardLabeler:
    """Take the masks, and what else a label may carry, from a pseudo-label file.

    Raises:
        AnnotationError: it does not label the boxes of `coco`; before any is labelled.
    """
    by_id = read_labels(path, coco)
    copy = human_labeler({"annotations": list(by_id.values())})

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        extras = ("score", "quality", "flagged", "flag_reason")
        found = copy(shard, images)
        return {key: mask | {k: by_id[key][k] for k in extras if k in by_id[key]} for key, mask in found.items()}

    return label
