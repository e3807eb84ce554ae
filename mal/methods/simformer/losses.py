"""The losses of one decoder layer: classes, base masks, and the complement that novel masks share. All in float32."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.encoders.bilinear import line_weights, resize
from mal.methods.simformer.config.losses import LossesConfig


def focal(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Binary focal loss, averaged over the last two dimensions: (..., H, W) each → (...,); see `focal_by_pixel`."""
    return focal_by_pixel(logits, targets, alpha=alpha, gamma=gamma).mean((-2, -1))


def focal_by_pixel(logits: Tensor, targets: Tensor | float, *, alpha: float, gamma: float) -> Tensor:
    """Binary focal loss (Lin et al., 2017).

    Args:
        logits: (...,).
        targets: (...,) in {0, 1}, of the logits' type, or one for all.

    Returns:
        (...,).
    """
    sign = 1 - 2 * targets
    wrong = torch.sigmoid(logits * sign)  # how far the probability is from the target
    weight = (1 - alpha) + (2 * alpha - 1) * targets
    return weight * wrong.pow(gamma) * F.softplus(logits * sign)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 − (2Σσt + 1) / (Σσ + Σt + 1) over the last two dimensions: (..., H, W) each → (...,)."""
    shares = logits.sigmoid()
    overlap = (shares * targets).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (shares.sum((-2, -1)) + targets.sum((-2, -1)) + 1)


def cls_loss(logits: Tensor, classes: Tensor, *, nothing: float) -> Tensor:
    """ClsLoss: the weighted mean cross-entropy of all queries of a batch.

    Args:
        logits: (B, Q, C + 1), the last class "nothing".
        classes: (B, Q) in 0 … C.
        nothing: weight of the queries of class C; the others have 1.
    """
    weight = logits.new_ones(logits.shape[-1])
    weight[-1:].fill_(nothing)  # to set one number may be to wait for a GPU
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight=weight)


def mask_loss(logits: Tensor, masks: Tensor, config: LossesConfig, *, count: int) -> Tensor:
    """MaskLoss: (focal weight · ΣF + dice weight · ΣD) / n over the matched base masks of a batch.

    Args:
        logits: (n, h, w), resized bilinearly to the masks' size.
        masks: (n, H, W) bool; padding and unlabelled pixels are 0.
        count: n of the divisor, at least 1: base targets, matched or not.

    Returns:
        A scalar; 0, with a gradient of 0, where there is none.
    """
    if not len(logits):
        return logits.sum()
    return _both(_resized(logits, masks), masks.to(logits.dtype), config).sum() / max(1, count)


def complement_loss(logits: Tensor, others: Tensor, inside: Tensor, config: LossesConfig) -> Tensor:
    """CompLoss of one image: what is of no base class belongs to its novel ones, unlabelled pixels too.

    The union of the novel masks is their pixelwise maximum, at least `config.background`, and gradients reach only
    where the maximum is attained: nowhere in pixels in which the constant wins.

    Args:
        logits: (n, h, w) of the queries that its n ≥ 1 novel targets have, resized bilinearly to the image's size.
        others: (n_base, H, W) bool, the base masks.
        inside: (H, W) bool, false on padding, which is no part of the complement.
    """
    least = logits.new_full((1, *inside.shape), config.background)
    union = torch.cat([_resized(logits, inside), least]).max(dim=0).values
    wanted = inside & ~others.any(dim=0)
    return _both(union, wanted.to(logits.dtype), config)


def _both(logits: Tensor, targets: Tensor, config: LossesConfig) -> Tensor:
    of_pixels = focal(logits, targets, alpha=config.alpha, gamma=config.gamma)
    return config.focal * of_pixels + config.dice * dice(logits, targets)


def _resized(logits: Tensor, like: Tensor) -> Tensor:
    """(n, h, w) → (n, H, W), bilinear, corners not aligned; on a CPU by two matrix products, in a fraction of the
    time."""
    new = (int(like.shape[-2]), int(like.shape[-1]))
    if logits.is_cuda:
        return resize(logits[:, None], new)[:, 0]
    rows, columns = (
        line_weights(old, side, logits.device, logits.dtype) for old, side in zip(logits.shape[1:], new, strict=True)
    )
    return rows @ logits @ columns.T
