"""How good is a mask? A predicted IoU, from what shows without a human mask.

Seven numbers and a logistic curve. Its coefficients stand in predicted.json, with what they were fitted to;
experiments/fit_quality.py fits and checks them. Whether the mirrored crop, the teacher beside the student, or a wider
crop gives the same mask is not asked: it would cost another pass, and raised the rank correlation with the IoU by no
more than .003 (five-fold, coco_mini's even-placed images).
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mal.data import boxes
from mal.data.rois import RoiBatch

OFFSET = 2.0  # logits by which the threshold is moved up and down
CUES = ("stability", "leak", "gap", "roughness")  # of the probabilities
FEATURES = (*CUES, "area", "covered", "overlap")  # and of the boxes
Surroundings = dict[int, tuple[float, float]]  # annotation id → covered, overlap


def cues(probabilities: Tensor, inside: Tensor, rois: RoiBatch, thresholds: Sequence[float]) -> Tensor:
    """What the probabilities of B crops say about their masks. Nothing waits for the device.

    - stability: pixels of the mask that a threshold `OFFSET` logits higher gives, per pixel of a lower one's; 1 where
      the mask's edge is sharp (Segment Anything's stability score, Kirillov et al. 2023, §4).
    - leak: share of the probability that lies beyond the box, in the image.
    - gap: the farthest that the mask stays from a side of its box, in box sides; a tight box is touched by its object.
    - roughness: logarithm of the mask's perimeter over the root of its area, both on the crop's grid.

    Args:
        probabilities: (B, S, S) in [0, 1], not cut at the boxes.
        inside: (B, S, S) bool, the boxes on the grid.
        rois: their windows, on the device of the two; `sizes` on the CPU.
        thresholds: for boxes of sizes S, M and L, each in [0, 1).

    Returns:
        (B, 4) float64, in the order of `CUES`.
    """
    side, device = probabilities.shape[-1], probabilities.device
    logits = torch.tensor(thresholds, dtype=torch.float64).logit(eps=1e-6)[rois.sizes]
    limits = torch.stack([logits, logits + OFFSET, logits - OFFSET]).sigmoid().float().to(device, non_blocking=True)
    mask, strict, loose = ((probabilities > limit[:, None, None]) & inside for limit in limits)
    area = _sum(mask)
    rows, columns = boxes.grid_inside(rois.windows, rois.images, side)
    beyond = probabilities * (rows[:, :, None] & columns[:, None, :] & ~inside)
    across = _sum(mask[:, :, 1:] != mask[:, :, :-1]) + _sum(mask[:, :, :: side - 1])
    down = _sum(mask[:, 1:] != mask[:, :-1]) + _sum(mask[:, :: side - 1])
    gaps = [_gap(mask.any(axis), inside.any(axis)) for axis in (1, 2)]
    return torch.stack(
        [
            _sum(strict) / _sum(loose).clamp(min=1),
            _sum(beyond) / (_sum(beyond) + _sum(probabilities * inside)).clamp(min=1e-6),
            torch.maximum(*gaps),
            ((across + down).clamp(min=1) / area.clamp(min=1).sqrt()).log(),
        ],
        dim=1,
    )


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2), dtype=torch.float64)


def _gap(hit: Tensor, box: Tensor) -> Tensor:
    """(B,) the larger of the gaps at the two ends of lines that a mask hits, of those that a box crosses: (B, S)."""
    place = torch.arange(hit.shape[1], device=hit.device)
    (first, last), (start, stop) = (
        (torch.where(lines, place, hit.shape[1]).amin(1), torch.where(lines, place, -1).amax(1)) for lines in (hit, box)
    )
    return (torch.maximum(first - start, stop - last) / (stop - start + 1).clamp(min=1)).double().clamp(0, 1)


def surroundings(annotations: Iterable[dict[str, Any]]) -> Surroundings:
    """What other boxes of its image do to each box, by annotation id: two numbers in [0, 1].

    The largest share of the box that one smaller box covers (it often lies in front), and the largest IoU with
    another box.
    """
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    found: Surroundings = {}
    for group in by_image.values():
        xywh = np.array([annotation["bbox"] for annotation in group], dtype=np.float64)
        start, stop, areas = xywh[:, :2], xywh[:, :2] + xywh[:, 2:], xywh[:, 2:].prod(axis=1).clip(min=1e-9)
        for row, annotation in enumerate(group):  # box by box: an aerial image has tens of thousands
            common = (np.minimum(stop, stop[row]) - np.maximum(start, start[row])).clip(min=0).prod(axis=1)
            common[row] = 0
            covered = common[areas < areas[row]].max(initial=0) / areas[row]
            found[annotation["id"]] = (float(covered), float((common / (areas + areas[row] - common)).max()))
    return found


def features(measured: np.ndarray, annotations: Sequence[dict[str, Any]], around: Surroundings) -> np.ndarray:
    """(B, 7) in the order of `FEATURES`, from (B, 4) cues; the area is the logarithm of the box's, in pixels."""
    areas = [np.log(max(annotation["bbox"][2] * annotation["bbox"][3], 1.0)) for annotation in annotations]
    return np.column_stack([measured, areas, [around[annotation["id"]] for annotation in annotations]])


def predicted_iou(values: np.ndarray, fitted: tuple[float, dict[str, float]] | None = None) -> np.ndarray:
    """(B,) in [0, 1], from (B, 7) features: 1 / (1 + exp(−b − w·x)).

    Args:
        fitted: b, and w by feature; those in predicted.json by default.
    """
    bias, weights = fitted or coefficients()
    return 1 / (1 + np.exp(-(bias + values @ np.array([weights[name] for name in FEATURES]))))


@lru_cache(maxsize=1)
def coefficients() -> tuple[float, dict[str, float]]:
    """Bias, and weights by feature, that predicted.json holds."""
    fitted = json.loads((files("mal.metrics") / "predicted.json").read_text(encoding="utf-8"))
    return fitted["bias"], fitted["weights"]
