"""Losses of masks that more than one model learns by."""

import torch
from torch import Tensor


def dice(predictions: Tensor, targets: Tensor, *, smooth: float) -> Tensor:
    """1 − 2Σpt / (Σp² + Σt²), Eq. 5's form, over the last dimension.

    Args:
        predictions: (..., N) in [0, 1].
        targets: (..., N) in [0, 1].
        smooth: added to each of the two squared sums (the released program's .001; 0 in the paper).

    Returns:
        (...,) in [0, 1].
    """
    targets = targets.to(predictions.dtype)
    overlap = (predictions * targets).sum(-1)
    squares = predictions.square().sum(-1) + targets.square().sum(-1) + 2 * smooth
    return 1 - 2 * overlap / squares.clamp_min(torch.finfo(squares.dtype).tiny)
