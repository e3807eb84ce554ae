"""Boxes → masks with trained networks: crops in batches across images."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.rois import RoiBatch, labelling_batches
from mal.engine.precision import allow_tf32, network_dtype
from mal.methods.labelling import Label, ShardLabeler
from mal.methods.mal.network import halfway, predict
from mal.methods.mal.outlines import Outlines, outlines
from mal.metrics import predicted as quality


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


def box_masks(rois: RoiBatch) -> Tensor:
    """The boxes on the grid of the crops: (B, S, S) bool."""
    rows, columns = rois.box_lines(rois.pixels.shape[-1])
    return rows[:, :, None] & columns[:, None, :]
