"""The box-supervised losses (§3.3)."""

import torch
from torch import Tensor

from mal.losses import dice


def mil_loss(masks: Tensor, rows: Tensor, columns: Tensor, *, form: str, smooth: float) -> Tensor:
    """Multiple-instance loss: every row and column of pixels is a bag, its score its largest pixel (Eq. 2).

    The square that Eq. 2 prints inside the numerator's max is a slip: a dice needs the plain product.

    Args:
        masks: (B, H, W) student masks in [0, 1]; pixels that do not count are 0.
        rows: (B, H) bool or in [0, 1], is this row crossed by the box. columns: (B, W) likewise.
        form: `joint`, one dice over all bags (paper), or `separate`, dice of rows + dice of columns (released).

    Returns:
        (B,): in [0, 1] for `joint`, [0, 2] for `separate`.
    """
    row_scores, column_scores = masks.amax(dim=2), masks.amax(dim=1)
    if form == "joint":
        return dice(torch.cat([row_scores, column_scores], 1), torch.cat([rows, columns], 1), smooth=smooth)
    return dice(row_scores, rows, smooth=smooth) + dice(column_scores, columns, smooth=smooth)


def crf_loss(masks: Tensor, refined: Tensor, *, smooth: float) -> Tensor:
    """Self-training loss: dice between the student's mask and the mean field's labels (Eq. 5).

    Args:
        masks: (B, H, W) student masks in [0, 1]. refined: (B, H, W) bool, carries no gradient.

    Returns:
        (B,) in [0, 1].
    """
    return dice(masks.flatten(1), refined.flatten(1), smooth=smooth)
