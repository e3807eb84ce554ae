"""Boxes → masks: label a data set shard by shard, whatever the labeler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mal.data.annotations import CocoDict
from mal.data.boxes import pixel_edges
from mal.data.flags import EMPTY
from mal.data.images import load_for
from mal.data.mask_windows import MaskWindow, decode_window, encode_window
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.engine.shards import read_shard, write_shard
from mal.errors import MalError

Label = dict[str, Any]  # segmentation, area and what else an annotation gains
Fallback = Callable[[dict[str, Any], tuple[int, int]], MaskWindow]  # an annotation, its image's (H, W) → its mask
ImageLabeler = Callable[[np.ndarray, np.ndarray], list[MaskWindow]]  # (H, W, 3) uint8, (N, 4) xywh → N masks
ShardLabeler = Callable[[CocoDict, Path], dict[int, Label]]  # a file of some images, their folder → labels by id


REPLACED = ("segmentation", "area", "score", "quality", "flagged", "flag_reason")  # of an annotation, by its label


def label_dataset(
    coco: CocoDict,
    images: Path,
    labeler: ShardLabeler,
    *,
    folder: Path,
    shard_images: int,
    fallback: Fallback | None = None,
    name: str = "label",
) -> CocoDict:
    """Give every annotation a mask.

    The images are labelled in shards; each finished shard is a file, so an interrupted run goes on where it was.
    Several processes take turns at the shards, and all of them read all of them.

    Args:
        coco: a view of a file; masks in it are ignored and replaced.
        images: folder of the image files.
        labeler: labels the images of a shard.
        folder: where shards are kept.
        fallback: the mask of an annotation that the labeler gave none, or an empty one; `filled_box` by default.

    Returns:
        The same file with new segmentations: images, categories, ids and every other field survive. Where the view has
        no boxes, each annotation gets that of its mask. An annotation with the fallback's mask carries
        `"flagged": true` and `"flag_reason"`.
    """
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    unreadable = set(coco.get("unreadable_images", ()))
    records = [image for image in coco["images"] if image["id"] in by_image and image["id"] not in unreadable]
    labels: dict[int, Label] = {}
    shards = {}
    for start in range(0, len(records), shard_images):
        shard = records[start : start + shard_images]
        shards[folder / "shards" / f"{start:08}-{start + len(shard):08}.json"] = (
            shard  # another shard size: other files
        )
    with Progress(name, total=len(records), unit="image") as progress:
        for number, (path, shard) in enumerate(shards.items()):
            if number % ranks.size() == ranks.rank() and read_shard(path) is None:
                annotations = [a for image in shard for a in by_image[image["id"]]]
                found = labeler({**coco, "images": shard, "annotations": annotations}, images)
                write_shard(path, found)
            progress.advance(len(shard))
    ranks.wait()
    for path in shards:
        if (part := read_shard(path)) is None:
            raise MalError(
                f"{path} was finished and is gone or damaged now; run the same command again, and have nothing else "
                "write there"
            )
        labels.update(part)
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations = [
        _labelled(
            a,
            labels.get(a["id"]),
            sizes[a["image_id"]],
            fallback or filled_box,
            unseen="its image cannot be read" if a["image_id"] in unreadable else _why(a),
        )
        for a in coco["annotations"]
    ]
    return {**{key: value for key, value in coco.items() if key != "unreadable_images"}, "annotations": annotations}


def with_fields_of(original: CocoDict, labels: CocoDict) -> CocoDict:
    """The labels beside everything else that a file holds, masks under other names included: a labeler does not see
    those, and its user gets them back. An annotation without a box of its own gets its label's."""
    ours = {annotation["id"]: annotation for annotation in labels["annotations"]}
    annotations = []
    for annotation in original["annotations"]:
        kept = {key: value for key, value in annotation.items() if key not in REPLACED}
        label = ours[annotation["id"]]
        if kept.get("bbox") is None:
            kept["bbox"] = label["bbox"]
        annotations.append({**kept, **{key: label[key] for key in REPLACED if key in label}})
    return {**original, "annotations": annotations}


def image_labeler(masks_of: ImageLabeler) -> ShardLabeler:
    """Label with a method that looks at one image and its boxes at a time."""

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        labels = {}
        for image in shard["images"]:
            annotations = [a for a in shard["annotations"] if a["image_id"] == image["id"]]
            pixels = np.ascontiguousarray(load_for(image, images).permute(1, 2, 0).numpy())
            masks = masks_of(pixels, np.array([a["bbox"] for a in annotations], dtype=np.float64))
            size = {"height": image["height"], "width": image["width"]}
            labels.update({a["id"]: label_of(mask, **size) for a, mask in zip(annotations, masks, strict=True)})
        return labels

    return label


def label_of(mask: MaskWindow, *, height: int, width: int) -> Label:
    """A mask as what a file says of it.

    Args:
        height, width: of the image.
    """
    return {"segmentation": encode_window(mask, height=height, width=width), "area": mask.area}


def filled_box(annotation: dict[str, Any], image_size: tuple[int, int]) -> MaskWindow:
    """The box of an annotation as its mask; at least a pixel of the image.

    Args:
        image_size: height and width.
    """
    height, width = image_size
    left, top, right, bottom = pixel_edges(annotation["bbox"], height=height, width=width)
    left, top = min(left, width - 1), min(top, height - 1)
    return MaskWindow(np.ones((max(bottom - top, 1), max(right - left, 1)), dtype=bool), left, top)


def at_points(annotation: dict[str, Any], _image_size: tuple[int, int]) -> MaskWindow:
    """The pixels that an annotation's points lie on as its mask."""
    columns, rows = np.floor(np.array(annotation["points"])).astype(int).T
    left, top = int(columns.min()), int(rows.min())
    mask = np.zeros((rows.max() - top + 1, columns.max() - left + 1), dtype=bool)
    mask[rows - top, columns - left] = True
    return MaskWindow(mask, left, top)


def _why(annotation: dict[str, Any]) -> str:
    """Why a labeler that saw its image gave an annotation no label."""
    if not annotation.get("expressions", True):
        return "it is a crowd" if annotation.get("iscrowd") else "it has no expression"
    if "bbox" in annotation:
        return "the box is too small"
    return "it is a crowd" if annotation.get("iscrowd") else "the labeler gave none"


def _labelled(
    annotation: dict[str, Any], label: Label | None, image_size: tuple[int, int], fallback: Fallback, *, unseen: str
) -> dict[str, Any]:
    """An annotation with its new mask; where it has none, with the fallback's and a flag.

    Args:
        unseen: why it has no label, if it has none.
    """
    kept = {key: value for key, value in annotation.items() if key not in REPLACED}
    height, width = image_size
    if label is not None and label["area"] > 0:
        return _with_box({**kept, **label}, height=height, width=width)
    reason = unseen if label is None else EMPTY
    filled = label_of(fallback(annotation, image_size), height=height, width=width)
    return _with_box({**kept, **filled, "flagged": True, "flag_reason": reason}, height=height, width=width)


def _with_box(annotation: dict[str, Any], *, height: int, width: int) -> dict[str, Any]:
    """An annotation with a box: its own, or else the extent of its mask, xywh in whole pixels."""
    if "bbox" in annotation:
        return annotation
    window = decode_window(annotation["segmentation"], height=height, width=width)
    return {**annotation, "bbox": [window.left, window.top, window.mask.shape[1], window.mask.shape[0]]}
