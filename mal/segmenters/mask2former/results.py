"""Class and mask logits of queries → detections in the pixels of the original image."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.data.annotations import encode_mask

CHUNK = 1 << 25  # pixels of masks that are resized at a time: 128 MiB


def detections(
    class_logits: Tensor,
    mask_logits: Tensor,
    *,
    padded: tuple[int, int],
    size: tuple[int, int],
    original: tuple[int, int],
    limit: int,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """One image's detections, as the authors of Mask2Former read them.

    The `limit` best pairs of query and class by the class's probability; a pair's score is that times the mean
    probability of the pixels of its mask. Masks are resized to the padded input, cut to the image, resized to the
    original, both times bilinearly, and thresholded last; the library resizes to 384 × 384 and thresholds first.

    Args:
        class_logits: (Q, K + 1), the last one "nothing".
        mask_logits: (Q, h, w).
        padded, size, original: (height, width) of the network's input, of the image in it (at its top left), and of
            the image as stored.
        threshold: probability from which a pixel belongs to an object, not included.

    Returns:
        label (from 0), score, bbox (xywh, the mask's extent, pixels) and segmentation (compressed RLE); by falling
        score; without those whose mask is empty.
    """
    probabilities = class_logits.softmax(dim=-1)[:, :-1]
    classes = probabilities.shape[1]
    scores, pairs = probabilities.flatten().topk(min(limit, probabilities.numel()))
    queries, row = torch.unique(pairs // classes, return_inverse=True)
    masks = _masks(mask_logits[queries], padded=padded, size=size, original=original, threshold=threshold)
    found = []
    for score, pair, index in zip(scores.tolist(), pairs.tolist(), row.tolist(), strict=True):
        if (mask := masks[index]) is not None:
            found.append({"label": pair % classes, **mask, "score": score * mask["score"]})
    return sorted(found, key=lambda item: -item["score"])


def _masks(
    logits: Tensor,
    *,
    padded: tuple[int, int],
    size: tuple[int, int],
    original: tuple[int, int],
    threshold: float,
) -> list[dict[str, Any] | None]:
    """Each query's mask, its extent and its mean probability as score; None for an empty one. logits: (n, h, w)."""
    found: list[dict[str, Any] | None] = []
    cut = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.copysign(math.inf, threshold - 0.5)
    step = max(1, CHUNK // max(math.prod(padded), math.prod(original)))
    for start in range(0, len(logits), step):
        large = F.interpolate(logits[None, start : start + step], padded, mode="bilinear")[..., : size[0], : size[1]]
        large = F.interpolate(large, original, mode="bilinear")[0]
        inside = large > cut
        sums = (large.sigmoid() * inside).flatten(1).sum(dim=1) / (inside.flatten(1).sum(dim=1) + 1e-6)
        found += [
            {"score": score, "bbox": _extent(mask), "segmentation": encode_mask(mask)} if mask.any() else None
            for score, mask in zip(sums.tolist(), np.asarray(inside.cpu().numpy()), strict=True)
        ]
    return found


def _extent(mask: np.ndarray) -> list[float]:
    """xywh of a mask (H, W) that is not empty, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [float(x), float(y), float(int(columns[-1]) + 1 - x), float(int(rows[-1]) + 1 - y)]
