"""The instance network's losses. Each is a mean over images or pixels of the whole batch, whoever holds them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.engine import ranks

UNKNOWN = -1  # of a class map: padding


def hardest_pixels(logits: Tensor, class_map: Tensor, *, share: float) -> Tensor:
    """Cross-entropy of each image's hardest pixels, their mean, and the images' mean.

    Args:
        logits: (B, K + 1, H, W).
        class_map: (B, H, W) int64; pixels that are UNKNOWN count nowhere.
        share: of an image's known pixels, rounded down but at least one.
    """
    losses = F.cross_entropy(logits, class_map, ignore_index=UNKNOWN, reduction="none").flatten(1)
    counts = (class_map != UNKNOWN).flatten(1).sum(dim=1)
    means = [
        each.topk(min(max(1, int(share * count)), each.numel())).values.mean()
        for each, count in zip(losses, counts.tolist(), strict=True)
    ]
    return torch.stack(means).mean()


def centre_loss(found: Tensor, wanted: Tensor, certain: Tensor) -> Tensor:
    """Squared errors, summed over the classes; their mean over the certain pixels of the batch, 0 without any.

    Args:
        found, wanted: (B, K, H, W).
        certain: (B, H, W) bool.
    """
    return _mean((found - wanted).square().sum(dim=1), certain)


def offset_loss(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """|Δx| + |Δy| in pixels; the mean over the batch's pixels whose offset is known, 0 without any.

    Args:
        found, wanted: (B, 2, H, W).
        known: (B, H, W) bool.
    """
    return _mean((found - wanted).abs().sum(dim=1), known)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    count = where.sum()
    weight = ranks.weight(count, device=values.device)
    return torch.where(where, values, 0).sum() / count.clamp(min=1) * weight
