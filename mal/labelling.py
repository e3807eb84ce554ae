"""Boxes → masks: label a data set shard by shard, whatever the labeler."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mal import boxes, quality, ranks
from mal.annotations import CocoDict
from mal.config import Config
from mal.errors import MalError
from mal.images import check_size, load_for
from mal.labelers import BASELINES, ImageLabeler
from mal.labelers.file import read_labels
from mal.labelers.mal import halfway, predict
from mal.mask_formats import encode_runs
from mal.mask_windows import MaskWindow, area_inside, decode_edges, encode_window
from mal.outlines import Label, Outlines, outlines
from mal.precision import allow_tf32, network_dtype
from mal.progress import Progress
from mal.rois import RoiBatch, labelling_batches
from mal.shards import read_shard, write_shard

ShardLabeler = Callable[[CocoDict, Path], dict[int, Label]]  # a file of some images, their folder → labels by id


REPLACED = ("segmentation", "area", "score", "quality", "flagged", "flag_reason")  # of an annotation, by its label


def label_dataset(
    coco: CocoDict, images: Path, labeler: ShardLabeler, *, folder: Path, shard_images: int, name: str = "label"
) -> CocoDict:
    """Give every annotation a mask.

    The images are labelled in shards; each finished shard is a file, so an interrupted run goes on where it was.
    Several processes take turns at the shards, and all of them read all of them.

    Args:
        coco: boxes; masks in it are ignored and replaced.
        images: folder of the image files.
        labeler: labels the images of a shard.
        folder: where shards are kept.

    Returns:
        The same file with new segmentations: images, categories, ids and every other field survive. An annotation
        that the labeler gave no mask, or an empty one, is filled with its box and carries `"flagged": true` and
        `"flag_reason"`.
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
    annotations = [_labelled(a, labels.get(a["id"]), sizes[a["image_id"]]) for a in coco["annotations"]]
    return {**{key: value for key, value in coco.items() if key != "unreadable_images"}, "annotations": annotations}


def with_fields_of(original: CocoDict, labels: CocoDict) -> CocoDict:
    """The labels beside everything else that a file's annotations hold, masks under other names included: a labeler
    does not see those, and its user gets them back."""
    ours = {annotation["id"]: annotation for annotation in labels["annotations"]}
    annotations = []
    for annotation in original["annotations"]:
        kept = {key: value for key, value in annotation.items() if key not in REPLACED}
        label = ours[annotation["id"]]
        annotations.append({**kept, **{key: label[key] for key in REPLACED if key in label}})
    return {**labels, "annotations": annotations}


def mal_labeler(networks: list[nn.Module], config: Config, device: torch.device) -> ShardLabeler:
    """Label with trained networks: crops in batches across images, read by `train.workers` processes."""

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        batches = labelling_batches(
            shard,
            images,
            config=config.roi,
            batch=config.label.batch,
            workers=config.train.workers,
            pin=device.type == "cuda",
        )
        around = quality.surroundings(shard["annotations"])
        return dict(label_crops(networks, batches, config, device=device, around=around))

    return label


def label_crops(
    networks: list[nn.Module],
    batches: Iterable[tuple[list[dict[str, Any]], RoiBatch]],
    config: Config,
    *,
    device: torch.device,
    around: quality.Surroundings,
) -> Iterator[tuple[int, Label]]:
    """Annotation ids and labels of batches of crops, in order; a label's `quality` is the IoU predicted for it."""
    for annotations, labels, cues in measured_crops(networks, batches, config, device=device):
        predicted = quality.predicted_iou(quality.features(cues, annotations, around)).round(4).tolist()
        for annotation, label, value in zip(annotations, labels, predicted, strict=True):
            yield annotation["id"], {**label, "quality": value}


def measured_crops(
    networks: list[nn.Module],
    batches: Iterable[tuple[list[dict[str, Any]], RoiBatch]],
    config: Config,
    *,
    device: torch.device,
) -> Iterator[tuple[list[dict[str, Any]], list[Label], np.ndarray]]:
    """Annotations, labels and cues (B, 4) of batches of crops, in order.

    A batch's labels are made while the device works on the next batch.
    """
    dtype = network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    before: tuple[list[dict[str, Any]], Outlines] | None = None
    for annotations, rois in batches:
        moved = rois.to(device)
        # a compiled network is compiled anew for another size of batch, such as the last one's
        whole = moved.filled_up(config.label.batch) if config.train.compile and device.type == "cuda" else moved
        probabilities = predict(networks, whole, flip=config.label.flip, through=halfway(config), dtype=dtype)
        probabilities = probabilities[: len(moved)]
        inside = box_masks(moved)
        cues = quality.cues(probabilities, inside, moved, config.label.threshold)
        launched = (annotations, outlines(probabilities * inside, rois, config.label, cues))
        yield from _finished(before)
        before = launched
    yield from _finished(before)


def _finished(
    batch: tuple[list[dict[str, Any]], Outlines] | None,
) -> Iterator[tuple[list[dict[str, Any]], list[Label], np.ndarray]]:
    if batch is not None:
        annotations, found = batch
        yield annotations, found.labels(), found.cues()


def baseline_labeler(name: str) -> ShardLabeler:
    """Label with box, ellipse or grabcut."""
    return image_labeler(BASELINES[name])


def image_labeler(masks_of: ImageLabeler) -> ShardLabeler:
    """Label with a method that looks at one image and its boxes at a time."""

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        labels = {}
        for image in shard["images"]:
            annotations = [a for a in shard["annotations"] if a["image_id"] == image["id"]]
            pixels = np.ascontiguousarray(load_for(image, images).permute(1, 2, 0).numpy())
            masks = masks_of(pixels, np.array([a["bbox"] for a in annotations], dtype=np.float64))
            size = {"height": image["height"], "width": image["width"]}
            labels.update({a["id"]: _label(mask, **size) for a, mask in zip(annotations, masks, strict=True)})
        return labels

    return label


def human_labeler(human: CocoDict) -> ShardLabeler:
    """Copy the human masks there are: the upper bound of mask quality."""
    by_id = {annotation["id"]: annotation for annotation in human["annotations"]}

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        for image in shard["images"]:
            check_size(image, images)  # before masks of that size are made
        sizes = {image["id"]: (image["height"], image["width"]) for image in shard["images"]}
        labels = {}
        for annotation in [a for a in shard["annotations"] if a["id"] in by_id]:
            height, width = sizes[annotation["image_id"]]
            edges = decode_edges(by_id[annotation["id"]]["segmentation"], height=height, width=width)
            labels[annotation["id"]] = {
                "segmentation": encode_runs(edges, height=height, width=width),
                "area": area_inside(edges),
            }
        return labels

    return label


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


def box_masks(rois: RoiBatch) -> Tensor:
    """The boxes on the grid of the crops: (B, S, S) bool."""
    rows, columns = rois.box_lines(rois.pixels.shape[-1])
    return rows[:, :, None] & columns[:, None, :]


def _label(mask: MaskWindow, *, height: int, width: int) -> Label:
    return {"segmentation": encode_window(mask, height=height, width=width), "area": mask.area}


def _labelled(annotation: dict[str, Any], label: Label | None, image_size: tuple[int, int]) -> dict[str, Any]:
    """An annotation with its new mask; with its box and a flag where it has none."""
    kept = {key: value for key, value in annotation.items() if key not in REPLACED}
    if label is not None and label["area"] > 0:
        return {**kept, **label}
    reason = "the box is too small, or its image cannot be read" if label is None else "the mask is empty"
    box = torch.tensor([annotation["bbox"]], dtype=torch.float64)
    left, top, right, bottom = boxes.spans(box, torch.tensor([image_size]))[0].tolist()
    mask = MaskWindow(np.ones((bottom - top, right - left), dtype=bool), left, top)
    height, width = image_size
    return {**kept, **_label(mask, height=height, width=width), "flagged": True, "flag_reason": reason}
