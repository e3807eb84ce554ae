"""Masks that some other program made: a pseudo-label file in COCO's format, matched by annotation id or by box."""

from pathlib import Path
from typing import Any

from mal.config import Config, LabelerConfig
from mal.context import Context
from mal.data.annotations import CocoDict, read
from mal.data.joins import join_labels
from mal.data.sources import Split, label_join
from mal.errors import ConfigError
from mal.methods.baselines.gt import human_labeler
from mal.methods.labelling import Label, ShardLabeler
from mal.methods.spec import Labels, Method

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


def labels(context: Context, split: Split) -> Labels:
    """What the file named for a split holds."""
    path = path_for(context.config.labeler, split.name)
    assert path is not None  # `has` says so
    # results from before labels were looked at were of other boxes
    by_box = split.drawn is None and not label_join(path, split, context.fingerprints)[0]
    return Labels(
        make=lambda _, coco: file_labeler(path, coco),
        settings={"joined": "by box"} if by_box else {},
        sources={"labels": context.fingerprints.file(path)},
    )


def has(context: Context, split: str) -> bool:
    """Whether a file is named for a split."""
    return path_for(context.config.labeler, split) is not None


def remark(context: Context, split: Split) -> str | None:
    """How the file is joined to the boxes, where not simply by annotation id."""
    path = path_for(context.config.labeler, split.name)
    return None if path is None or split.drawn is not None else label_join(path, split, context.fingerprints)[1]


def check(config: Config) -> None:
    """Which files are needed follows from what is asked of them.

    Raises:
        ConfigError: one is not named.
    """
    labeler = config.labeler
    train_too = config.segmenter.name != "none" or labeler.val_file is None
    if labeler.name == "file" and labeler.file is None and train_too:
        raise ConfigError("labeler=file needs labeler.file=FILE, a COCO file with masks of the training images")
    if "file" in config.compare and labeler.val_file is None:
        raise ConfigError("compare names file: give labeler.val_file=FILE, a COCO file with masks of the val images")


METHOD = Method("file", labels, has=has, remark=remark, check=check)
