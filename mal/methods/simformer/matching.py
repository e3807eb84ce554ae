"""Which query finds which target: one assignment over all of an image's targets, base and novel (Hungarian)."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mal.engine.runtime import sent
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.losses import focal_by_pixel
from mal.methods.simformer.targets import Targets, shrunk


@torch.no_grad()
def matching_costs(classes: Tensor, masks: Tensor, targets: Targets, config: LossesConfig) -> Tensor:
    """−p_q(c), and for base targets 20·F + D besides, at the logits' stride; in float32 (double stays double).

    Args:
        classes: (..., Q, C + 1) logits.
        masks: (..., Q, h, w) logits.

    Returns:
        (..., Q, n).
    """
    device, base = classes.device, targets.base
    with torch.autocast(device.type, enabled=False):
        costs = -config.classes * _wide(classes).softmax(-1)[..., sent(targets.labels, device)]
        if not base:
            return costs
        logits = _wide(masks).flatten(-2)
        wanted = shrunk(targets.masks[:base], (masks.shape[-2], masks.shape[-1])).flatten(1).to(logits).T
        of_pixels = _focal(logits, wanted, config) / len(wanted)
        shares = logits.sigmoid()
        sums = shares.sum(-1, keepdim=True) + wanted.sum(0)
        of_overlap = 1 - (2 * shares @ wanted + 1) / (sums + 1)
        costs[..., :base] += config.focal * of_pixels + config.dice * of_overlap
        return costs


def assign(costs: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest assignment of a (Q, n) matrix on the CPU: rows and columns, (min(Q, n),) each, sorted by row."""
    # a diverged network's costs are no numbers: its loss then says so, in the trainer's sentence
    rows, columns = linear_sum_assignment(costs.nan_to_num().numpy())
    return torch.from_numpy(rows), torch.from_numpy(columns)


def _focal(logits: Tensor, wanted: Tensor, config: LossesConfig) -> Tensor:
    """Sums of the focal loss of each query against each mask: (..., Q, P), (P, n) of 0 and 1 → (..., Q, n)."""
    off, on = (focal_by_pixel(logits, it, alpha=config.alpha, gamma=config.gamma) for it in (0.0, 1.0))
    return off.sum(-1, keepdim=True) + (on - off) @ wanted


def _wide(values: Tensor) -> Tensor:
    """In float32 what a network gave in half precision; anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
