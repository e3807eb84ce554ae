"""Masks for objects that have points, by a trained network: steps 1 to 5, then the mask head on the chosen box."""

from pathlib import Path

import torch
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.mask_windows import MaskWindow
from mal.engine.runtime import seed_for
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import Sample, mask_to_image, objects_of, shown
from mal.methods.attentionshift.maps import instance_maps
from mal.methods.labelling import Label, ShardLabeler, label_of
from mal.segmenters.rcnn.pasting import paste


def labeler(trained: Trained, config: Config, device: torch.device) -> ShardLabeler:
    """Label images one at a time; an object's mask depends on the other points of its image, and on nothing else."""

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        labels, found = trained.categories.labels_of(shard, source="the file"), {}
        scale = config.attentionshift.scale
        for entry, annotations in objects_of(shard, most=config.attentionshift.tokens.count):
            sizes = {"short": scale.test_short_sides[0], "long": scale.test_long_sides[0]}
            sample = shown(entry, annotations, images, labels, **sizes)
            masks = masks_of(trained, sample.to(device), entry, config)
            size = {"height": entry["height"], "width": entry["width"]}
            for annotation, mask in zip(annotations, masks, strict=True):
                found[annotation["id"]] = label_of(mask, **size)
        return found

    return label


@torch.inference_mode()
def masks_of(trained: Trained, sample: Sample, entry: dict[str, int], config: Config) -> list[MaskWindow]:
    """A mask of each object of an image, over the image itself; it may be empty.

    Args:
        entry: id, height and width of the image.
    """
    network, settings = trained.network, config.attentionshift
    seen = network.see([sample.image])
    logits, places = network.token_heads(seen.tokens)
    (tokens,) = network.match(logits, places, [sample.points])
    chosen = network.choose(seen, 0, tokens, sample.points)
    height, width = entry["height"], entry["width"]
    if settings.labelling.source == "head":
        (found,) = network.detector.masks(seen.maps[-1], [chosen.boxes], [sample.points.labels])
        across = height / sample.points.size[0], width / sample.points.size[1]
        boxes = chosen.boxes.cpu() * torch.tensor([across[1], across[0]] * 2)
        masks = torch.as_tensor(
            paste(
                found.cpu(),
                boxes,
                height=height,
                width=width,
                threshold=settings.detector.detection.mask_threshold,
            )
        )
    else:
        generator = torch.Generator().manual_seed(seed_for(config.seed, "attentionshift label", entry["id"]))
        maps = instance_maps(
            seen.maps[-1][0],
            chosen.attention,
            chosen.boxes,
            sample.points.xy,
            patch=network.vit.patch,
            generator=generator,
            config=settings.steps.maps,
        )
        masks = mask_to_image(maps.foreground, sample.points.size, entry).cpu() > settings.labelling.map_threshold
    return [_window(mask) for mask in masks]


def _window(mask: Tensor) -> MaskWindow:
    """(height, width) bool → the smallest rectangle that holds it."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0].tolist(), mask.any(dim=0).nonzero()[:, 0].tolist()
    if not rows:
        return MaskWindow(mask[:0, :0].numpy(), 0, 0)
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return MaskWindow(inside.contiguous().numpy(), columns[0], rows[0])
