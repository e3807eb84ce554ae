"""Masks for objects that have points, by a trained network: steps 1 to 5, then the mask head on the chosen box."""

from pathlib import Path

import torch
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.mask_windows import MaskWindow
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import mask_to_image
from mal.methods.attentionshift.known import Known, look_at, maps_of, samples
from mal.methods.labelling import Label, ShardLabeler, label_of
from mal.segmenters.rcnn.pasting import paste


def labeler(trained: Trained, config: Config, device: torch.device) -> ShardLabeler:
    """Label images one at a time; an object's mask depends on the other points of its image, and on nothing else."""

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        found = {}
        for entry, annotations, sample in samples(trained, config, shard, images, device):
            size = {"height": entry["height"], "width": entry["width"]}
            masks = masks_of(trained, look_at(trained, sample, entry), config)
            for annotation, mask in zip(annotations, masks, strict=True):
                found[annotation["id"]] = label_of(mask, **size)
        return found

    return label


@torch.inference_mode()
def masks_of(trained: Trained, known: Known, config: Config) -> list[MaskWindow]:
    """A mask of each object of an image, over the image itself; it may be empty."""
    settings, entry, points = config.attentionshift, known.entry, known.sample.points
    if settings.labelling.source == "head":
        (found,) = trained.network.detector.masks(known.seen.maps[-1], [known.chosen.boxes], [points.labels])
        masks = torch.as_tensor(
            paste(
                found.cpu(),
                known.chosen.boxes.cpu() * known.across.float(),
                height=entry["height"],
                width=entry["width"],
                threshold=settings.detector.detection.mask_threshold,
            )
        )
    else:
        foreground = maps_of(trained, known, config).foreground
        masks = mask_to_image(foreground, points.size, entry).cpu() > settings.labelling.map_threshold
    return [_window(mask) for mask in masks]


def _window(mask: Tensor) -> MaskWindow:
    """(height, width) bool → the smallest rectangle that holds it."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0].tolist(), mask.any(dim=0).nonzero()[:, 0].tolist()
    if not rows:
        return MaskWindow(mask[:0, :0].numpy(), 0, 0)
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return MaskWindow(inside.contiguous().numpy(), columns[0], rows[0])
