"""Whether tokens look at their objects: rolled-out maps and candidate boxes against human masks, depth by depth.

Right classes and places of tokens prove nothing about where they look, and all later steps start from that.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from mal.config import Config
from mal.data.annotations import CocoDict, decode_mask
from mal.engine.precision import full_precision
from mal.engine.progress import Progress
from mal.methods.attentionshift.boxes import candidate_boxes
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import objects_of
from mal.methods.attentionshift.known import Known, as_shown, look_at, samples
from mal.methods.attentionshift.rollout import rolled_out
from mal.methods.attentionshift.scaling import upsample
from mal.metrics.auc import auc

MODES = ("expand", "min_max")


def map_quality(
    trained: Trained, config: Config, points: CocoDict, human: CocoDict, images: Path, device: torch.device
) -> dict[str, float]:
    """Means over the objects.

    Args:
        points: a points view. human: the same file with its masks.
        images: folder of the image files.

    Returns:
        Pixels are those of the image as the network is shown it; an object that has none there is left out. For each
        depth k of the rollout auc_K, the chance that a pixel of the object has more attention than one beside
        it; peak_K, the share of maps whose maximum lies on the object; box_iou_MODE_K of the candidate boxes with the
        human box. Besides, peak_chance, the mean share of the image that an object has; box_iou_chosen, of the boxes of
        step 4; box_iou_constant, of boxes of the mean human size around the points, which no method gets to know.
    """
    masks = {a["id"]: a["segmentation"] for a in human["annotations"] if a.get("segmentation")}
    boxes = {a["id"]: a["bbox"] for a in human["annotations"]}
    entries = objects_of(points, most=config.attentionshift.tokens.count)
    sizes = np.array([boxes[a["id"]][2:] for _, annotations in entries for a in annotations if a["id"] in masks])
    rows: list[dict[str, NDArray[np.float64]]] = []
    with Progress("attention maps", total=len(entries), unit="image") as bar:
        for entry, annotations, sample in samples(trained, config, points, images, device):
            bar.advance()
            size = {"height": entry["height"], "width": entry["width"]}
            decoded = {a["id"]: decode_mask(masks[a["id"]], **size) for a in annotations if a["id"] in masks}
            masked = {identity: as_shown(mask, sample.points.size) for identity, mask in decoded.items()}
            kept = [i for i, a in enumerate(annotations) if a["id"] in masked and 0 < masked[a["id"]].mean() < 1]
            if not kept:
                continue
            compared = [annotations[i] for i in kept]
            truth = np.stack([masked[a["id"]] for a in compared])
            own = torch.tensor([boxes[a["id"]] for a in compared], dtype=torch.float64)
            own[:, 2:] += own[:, :2]
            found = _of_image(trained, look_at(trained, sample, entry), kept, truth, own, config)
            rows.append(found | {"constant": _constant(compared, own, sizes)})
    return _means(rows)


@torch.inference_mode()
def _of_image(
    trained: Trained,
    known: Known,
    kept: list[int],
    truth: NDArray[np.bool_],
    own: Tensor,
    config: Config,
) -> dict[str, NDArray[np.float64]]:
    """name → (n,) or, by depth, (D, n).

    Args:
        kept: the n objects that are compared, by their place among the image's points.
        truth: (n, h, w) over the image as it is shown, neither empty nor full.
        own: (n, 4) xyxy, the human boxes in pixels of the image.
    """
    steps, patch, seen, points = config.attentionshift.steps, trained.network.vit.patch, known.seen, known.sample.points
    size = seen.maps[-1].shape[-2:]
    count = size[0] * size[1]
    attention = [block[0] for block in seen.attention]
    with full_precision():
        rolled = rolled_out(attention, 1 + count + known.tokens[kept], depth=steps.rollout.depth)
    rolled = rolled[..., 1 : 1 + count].unflatten(2, size)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for each in rolled:
        maps = upsample(each, patch)
        for mode in MODES:
            box = candidate_boxes(maps[None], points.xy[kept], patch=patch, config=replace(steps.box, mode=mode))[0]
            found.setdefault(f"box_iou_{mode}", []).append(_paired_iou(box.double().cpu() * known.across, own))
        whole = maps[:, : truth.shape[1], : truth.shape[2]].cpu().numpy()
        ranked = [_auc_and_peak(one, mask) for one, mask in zip(whole, truth, strict=True)]
        for name, values in zip(("auc", "peak"), zip(*ranked, strict=True), strict=True):
            found.setdefault(name, []).append(np.array(values, dtype=np.float64))
    chosen = known.chosen.boxes[kept].double().cpu() * known.across
    by_depth = {name: np.stack(values) for name, values in found.items()}
    return by_depth | {"chosen": _paired_iou(chosen, own), "chance": truth.mean(axis=(1, 2))}


def _auc_and_peak(attention: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(height, width) each."""
    inside = mask.ravel()
    return auc(attention.ravel(), inside), float(inside[attention.argmax()])


def _constant(annotations: list[dict[str, Any]], own: Tensor, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) IoU of boxes of the mean size around the points."""
    half = torch.as_tensor(sizes.mean(axis=0)) / 2
    middle = torch.tensor([a["point"] for a in annotations], dtype=torch.float64)
    return _paired_iou(torch.cat([middle - half, middle + half], dim=1), own)


def _paired_iou(boxes: Tensor, others: Tensor) -> NDArray[np.float64]:
    return box_iou(boxes, others).diagonal().numpy()


def _means(rows: list[dict[str, NDArray[np.float64]]]) -> dict[str, float]:
    if not rows:
        return {}
    found: dict[str, float] = {}
    for name in rows[0]:
        means = np.mean(np.concatenate([row[name] for row in rows], axis=-1), axis=-1)
        if means.ndim:
            found |= {f"{name}_{depth}": float(value) for depth, value in enumerate(means, start=1)}
        else:
            found[{"chance": "peak_chance"}.get(name, f"box_iou_{name}")] = float(means)
    return found
