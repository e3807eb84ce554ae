"""Steps 2 to 9 for one image in training: from attention maps and points to what teaches the detector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mal.methods.attentionshift.boxes import candidate_boxes
from mal.methods.attentionshift.config.steps import StepsConfig
from mal.methods.attentionshift.kmeans import kmeans
from mal.methods.attentionshift.maps import InstanceMaps, instance_maps
from mal.methods.attentionshift.mask_points import LabelledPoints, labelled, mask_points
from mal.methods.attentionshift.mil import mil_loss
from mal.methods.attentionshift.parts import Parts, find_parts
from mal.methods.attentionshift.raw_points import attention_points, raw_points
from mal.methods.attentionshift.rollout import rolled_out
from mal.methods.attentionshift.scaling import in_full, min_max, upsample
from mal.methods.attentionshift.shift import core_of, key_point_shift

Scorer = Callable[[Tensor], tuple[Tensor, Tensor]]  # boxes (n, D, 4) xyxy → class and box logits, (n, D, K) each


@dataclass
class Chosen:
    """Steps 2 to 4: per instance the box that the network believes, and the map that it came from."""

    loss: Tensor  # of step 4, with gradient through the scorer
    candidates: Tensor  # (n, D, 4) xyxy in pixels
    index: Tensor  # (n,) of the chosen candidate
    boxes: Tensor  # (n, 4)
    attention: Tensor  # (n, H, W) in 0…1


@dataclass
class Taught:
    """What one image teaches. Without steps 5, 7 and 8 (`mask_points.source=attention`) maps and parts are None."""

    chosen: Chosen
    maps: InstanceMaps | None
    parts: list[Parts] | None
    points: list[LabelledPoints] | None  # `mask_points.supervision=points`
    masks: Tensor | None  # (n, H, W) bool, `mask_points.supervision=mask`


def choose_boxes(
    attention: Sequence[Tensor],
    rows: Tensor,
    points: Tensor,
    labels: Tensor,
    scorer: Scorer,
    *,
    size: tuple[int, int],
    own: tuple[int, int],
    patch: int,
    config: StepsConfig,
) -> Chosen:
    """Steps 2 to 4 for the n instances of an image, in the order of its points.

    All but the scorer computes in full precision, under autocast too.

    Args:
        attention: (N, N) of each block; tokens are class, h·w patches, point tokens.
        rows: (n,) indices among the N of the tokens matched to the instances.
        points: (n, 2) x, y in pixels.
        labels: (n,) classes.
        size: h, w of the patches.
        own: h, w of those that are the image's, the others being what the batch was padded by.
    """
    device = points.device.type
    with torch.no_grad(), torch.autocast(device, enabled=False):
        count = size[0] * size[1]
        blocks = [in_full(block) for block in attention[-config.rollout.depth :]]
        rolled = rolled_out(blocks, rows, depth=config.rollout.depth)[..., 1 : 1 + count].unflatten(2, size)
        rolled = rolled[..., : own[0], : own[1]]
        boxes = torch.cat(  # depth by depth: all maps in pixels at once would be gigabytes
            [candidate_boxes(upsample(each, patch)[None], points, patch=patch, config=config.box) for each in rolled]
        ).transpose(0, 1)
    loss, index = mil_loss(*scorer(boxes), labels)
    with torch.no_grad(), torch.autocast(device, enabled=False):
        instances = torch.arange(len(rows), device=index.device)
        maps = min_max(upsample(rolled[index, instances], patch))
    return Chosen(loss, boxes, index, boxes[instances, index], maps)


def teach(
    chosen: Chosen, features: Tensor, points: Tensor, *, patch: int, generator: Generator, config: StepsConfig
) -> Taught:
    """Steps 5 to 9 in full precision; nothing here carries gradient.

    Args:
        features: (C, h, w); h·patch and w·patch are the chosen maps' height and width.
        points: (n, 2) x, y in pixels.
        patch: side in pixels of a feature.
        generator: on the CPU; all draws follow it.
    """
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        if config.mask_points.source == "attention":
            return _taught_by_attention(chosen, patch, generator, config)
        boxes, features = chosen.boxes, in_full(features)
        maps = instance_maps(
            features, chosen.attention, boxes, points, patch=patch, generator=generator, config=config.maps
        )
        parts = parts_of(maps.foreground, features, boxes, patch=patch, config=config)
        if config.mask_points.supervision == "mask":
            return Taught(chosen, maps, parts, None, maps.foreground > config.mask_points.mask)
        raw = raw_points(maps, boxes, patch=patch, generator=generator, config=config.raw_points)
        key_points = [each.key_points for each in parts]
        labels = mask_points(raw, key_points, fallback=config.mask_points.fallback)
        return Taught(chosen, maps, parts, labels, None)


def parts_of(foreground: Tensor, features: Tensor, boxes: Tensor, *, patch: int, config: StepsConfig) -> list[Parts]:
    """Steps 7 and 8, or Table 1's K-Means instead: parts of each instance from its foreground (n, H, W)."""
    core = core_of(foreground, features.shape[1:], patch=patch, config=config.shift)
    method = key_point_shift if config.shift.method == "shift" else kmeans
    prototypes = method(features, core, boxes, patch=patch, config=config.shift)
    filtered = config.shift.method != "kmeans"
    return find_parts(features, prototypes, core, boxes, patch=patch, config=config.parts, filtered=filtered)


def _taught_by_attention(chosen: Chosen, patch: int, generator: Generator, config: StepsConfig) -> Taught:
    """Table 2's baselines."""
    settings = config.mask_points
    if settings.supervision == "mask":
        return Taught(chosen, None, None, None, chosen.attention >= settings.attention_positive)
    raw = attention_points(
        chosen.attention,
        chosen.boxes,
        patch=patch,
        generator=generator,
        erosion=config.raw_points.erosion,
        config=settings,
    )
    return Taught(chosen, None, None, [labelled(*pair) for pair in raw], None)
