"""Matrix NMS (SOLOv2, "Matrix NMS") and points NMS: suppression without a loop over detections."""

import torch
from torch import Tensor
from torch.nn import functional as F


def points_nms(scores: Tensor) -> Tensor:
    """Keep a cell's score where no cell above, to the left, or above to the left has a higher one; else 0.

    Neighbouring cells fire for the same object. The window is 2 × 2 and looks one way, as in the released program;
    the paper has no such step.

    Args:
        scores: (B, K, S, S), not negative.

    Returns:
        (B, K, S, S).
    """
    highest = F.max_pool2d(F.pad(scores, (1, 0, 1, 0)), kernel_size=2, stride=1)
    return scores * (scores == highest)


def mask_ious(masks: Tensor) -> Tensor:
    """Pairwise IoU of binary masks: (n, ...) bool → (n, n) float32; that of two empty masks is 0."""
    flat = masks.flatten(1).float()
    overlap = flat @ flat.T
    area = flat.sum(dim=1)
    return overlap / (area[:, None] + area[None] - overlap).clamp(min=1)


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, *, sigma: float) -> Tensor:
    """Scores after each detection was decayed by the better ones of its class.

    s_j ← s_j · min over i with s_i > s_j of f(IoU_ij) / f(IoU_·i), where IoU_·i is the largest overlap of i with a
    better one: a detection that is itself suppressed suppresses less. f(x) = exp(−σx²); the paper's listing divides
    by its σ of .5, which is the released program's σ = 2.

    Args:
        masks: (n, h, w) bool, by falling score. labels: (n,). scores: (n,), falling.
        sigma: of the Gaussian.

    Returns:
        (n,), in the same order, no longer falling.
    """
    if not len(scores):
        return scores
    same = labels[:, None] == labels[None]
    ious = (mask_ious(masks) * same).triu(diagonal=1)  # [i, j], i better than j
    own = ious.amax(dim=0)
    decay = torch.exp(sigma * (own[:, None].square() - ious.square()))
    return scores * decay.amin(dim=0)  # a row that does not compete holds at least 1, the first row at most 1
