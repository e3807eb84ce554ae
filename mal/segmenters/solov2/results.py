"""From cells and kernels to detections in the pixels of the image."""

from dataclasses import dataclass
from typing import Any

import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import functional as F

from mal.data.annotations import encode_mask
from mal.segmenters.config import TestConfig
from mal.segmenters.solov2.head import STRIDES, dynamic_masks
from mal.segmenters.solov2.matrix_nms import matrix_nms, points_nms
from mal.segmenters.solov2.targets import MASK_STRIDE

DRAWN, ENLARGED = 256, 16  # masks at a time: bounds on memory


@dataclass
class Found:
    """An image's detections, by falling score."""

    masks: Tensor  # (n, h, w) in [0, 1], at stride 4 of the padded image
    labels: Tensor  # (n,) from 1
    scores: Tensor  # (n,)


def best_masks(kernels: Tensor, logits: Tensor, features: Tensor, *, cells: list[int], test: TestConfig) -> Found:
    """One image's detections.

    A cell and category that score over `test.score`, and over their neighbours (points NMS), are a candidate. Its
    mask must cover more pixels of the mask features than its level's stride; its score is multiplied by maskness,
    the mean of the mask's probabilities where they exceed `test.mask_threshold`; then come matrix NMS and the limits.

    Args:
        kernels: (Σ S², E). logits: (Σ S², categories). features: (E, h, w) at stride 4. cells: S of each level.
    """
    scores = _cell_scores(logits, cells)
    cell, category = (scores > test.score).nonzero(as_tuple=True)
    area, maskness = _areas(kernels[cell], features, threshold=test.mask_threshold)
    stride = torch.cat([torch.full((side**2,), step) for side, step in zip(cells, STRIDES, strict=True)])
    large = area > stride.to(area.device)[cell]
    cell, category = cell[large], category[large]
    candidate, order = (scores[cell, category] * maskness[large]).sort(descending=True, stable=True)
    candidate, order = candidate[: test.before_nms], order[: test.before_nms]
    cell, category = cell[order], category[order]
    masks = dynamic_masks(kernels[cell], features).sigmoid()
    decayed = matrix_nms(masks > test.mask_threshold, category, candidate, sigma=test.sigma)
    final, order = decayed.sort(descending=True, stable=True)
    order = order[final >= test.decayed_score][: test.max_detections]
    return Found(masks[order], category[order] + 1, decayed[order])


def _cell_scores(logits: Tensor, cells: list[int]) -> Tensor:
    """(Σ S², K) probabilities after points NMS."""
    levels = []
    for level, side in zip(logits.sigmoid().split([side**2 for side in cells]), cells, strict=True):
        kept = points_nms(level.T.reshape(1, -1, side, side))
        levels.append(kept.flatten(2)[0].T)
    return torch.cat(levels)


def _areas(kernels: Tensor, features: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Pixels over the threshold, and the mean probability of those (0 without any), of each kernel's mask; (n,) both.

    Drawn piece by piece and thrown away: an untrained network has tens of thousands of candidates.
    """
    areas, means = [kernels.new_zeros(0)], [kernels.new_zeros(0)]
    for piece in kernels.split(DRAWN):
        masks = dynamic_masks(piece, features).sigmoid().flatten(1)
        inside = masks > threshold
        areas.append(inside.sum(dim=1, dtype=torch.float32))
        means.append((masks * inside).sum(dim=1) / areas[-1].clamp(min=1))
    return torch.cat(areas), torch.cat(means)


def to_results(
    found: Found, entry: dict[str, Any], *, size: tuple[int, ...], categories: list[int], test: TestConfig
) -> list[dict[str, Any]]:
    """COCO results of one image; a detection none of whose pixels lies in the image is dropped.

    Args:
        entry: the image in the COCO file. size: (height, width) of the resized image, before padding.
        categories: the category id of each label, from label 1.
    """
    results = []
    for start in range(0, len(found.scores), ENLARGED):
        piece = slice(start, start + ENLARGED)
        masks = enlarged(found.masks[piece], size=size, original=(entry["height"], entry["width"]))
        pixels = (masks > test.mask_threshold).cpu().numpy()
        for mask, label, score in zip(pixels, found.labels[piece].tolist(), found.scores[piece].tolist(), strict=True):
            if mask.any():
                coded = encode_mask(mask)
                result = {"image_id": int(entry["id"]), "category_id": categories[label - 1], "score": score}
                results.append(result | {"bbox": extent(coded), "segmentation": coded})
    return results


def enlarged(masks: Tensor, *, size: tuple[int, ...], original: tuple[int, int]) -> Tensor:
    """(n, h, w) at stride 4 of the padded image → (n, *original), bilinear, without the padding."""
    full = F.interpolate(masks[:, None], scale_factor=MASK_STRIDE, mode="bilinear")[..., : size[0], : size[1]]
    return F.interpolate(full, size=original, mode="bilinear")[:, 0]


def extent(coded: dict[str, Any]) -> list[float]:
    """The box around a mask that is not empty: compressed RLE → xywh, whole pixels."""
    return [float(side) for side in rle.toBbox(coded)]
