"""Step 7, key-point shift: prototypes of an object's parts by mean shift among its patches' features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.methods.attentionshift.boxes import cells_inside
from mal.methods.attentionshift.config.steps import ShiftConfig
from mal.methods.attentionshift.scaling import eroded
from mal.methods.attentionshift.similarity import cosines, patch_rows, unit

FLOOR = 1e-10  # of τ (R)


def key_point_shift(features: Tensor, core: Tensor, boxes: Tensor, *, patch: int, config: ShiftConfig) -> Tensor:
    """Prototypes after `config.rounds` rounds; 0 rounds give the seeds.

    In a round each prototype weighs the patches by a softmax of its cosines, sharper the tighter its own patches lie; a
    patch belongs to the prototype that weighs it most (the first of equals); a prototype becomes the weighted sum of
    its own. One that owns nothing becomes zero, weighs all patches alike and gathers later what is left over.

    Args:
        features: (C, h, w).
        core: (n, h, w) of `core_of`.
        boxes: (n, 4) xyxy in pixels.

    Returns:
        (n, prototypes, C); their lengths carry no meaning but in step 8's averages.
    """
    size = features.shape[1:]
    rows = patch_rows(features)
    units = unit(rows)
    boxed = cells_inside(boxes, size, patch=patch).flatten(1)[:, None].to(rows)
    prototypes = rows[seeds(core, boxes, patch=patch, config=config)]
    tau = prototypes.new_full((*prototypes.shape[:2], 1), config.tau)
    cosine = boxed * cosines(prototypes, units)
    for _ in range(config.rounds):
        logits = cosine / (config.temperature * tau)
        if config.outside == "exclude":
            logits = logits.masked_fill(boxed == 0, -torch.inf)
        # owners are compared as logarithms, for small weights round to 0; exponentials of all would be half the cost
        highest, owner = logits.log_softmax(2).max(1, keepdim=True)
        counted = boxed if config.outside == "exclude" else torch.ones_like(boxed)
        own = torch.zeros_like(logits).scatter_(1, owner, counted)
        prototypes = (own * (boxed * highest.exp())) @ rows
        cosine = boxed * cosines(prototypes, units)
        owned = own.sum(2, keepdim=True)
        tau = (1 - (own * cosine).sum(2, keepdim=True) / owned.clamp(min=1)).clamp(min=FLOOR)
    return prototypes


def core_of(foreground: Tensor, size: Sequence[int], *, patch: int, config: ShiftConfig) -> Tensor:
    """E: the eroded foreground, sampled at the patches' centres.

    Args:
        foreground: (n, H, W), its maximum 1.
        size: h, w.

    Returns:
        (n, h, w) in 0…1.
    """
    if not len(foreground):
        return foreground.new_zeros(0, *size)
    kept = eroded(foreground > config.threshold, config.erosion, patch=patch).to(foreground.dtype)
    return F.interpolate(kept[None], size=list(size), mode="bilinear", align_corners=False)[0]


def seeds(core: Tensor, boxes: Tensor, *, patch: int, config: ShiftConfig) -> Tensor:
    """(n, prototypes) patch indices: of the core's m patches in raster order each ⌊m / prototypes⌋-th, from the first.

    If there are fewer than prototypes they are repeated in turn; if there is none, all are the box's central patch.
    """
    height, width = core.shape[1:]
    found = []
    steps = torch.arange(config.prototypes, device=core.device)
    for each, box in zip(core, boxes.tolist(), strict=True):
        inside = (each > config.threshold).flatten().nonzero()[:, 0]
        if not len(inside):
            row = min(int((box[1] + box[3]) / 2) // patch, height - 1)
            column = min(int((box[0] + box[2]) / 2) // patch, width - 1)
            inside = inside.new_tensor([row * width + column])
        if len(inside) < config.prototypes:
            found.append(inside[steps % len(inside)])
        else:
            found.append(inside[steps * (len(inside) // config.prototypes)])
    return torch.stack(found) if found else steps.new_zeros(0, config.prototypes)
