"""Table 1's rival of key-point shift: K-Means by cosine among the patches of the box."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.methods.attentionshift.boxes import cells_inside
from mal.methods.attentionshift.config.steps import ShiftConfig
from mal.methods.attentionshift.shift import seeds
from mal.methods.attentionshift.similarity import cosines, patch_rows, unit


def kmeans(features: Tensor, core: Tensor, boxes: Tensor, *, patch: int, config: ShiftConfig) -> Tensor:
    """Seeds of step 7, then rounds of hard assignment; a prototype is the mean of its patches' unit features.

    One that owns nothing stays what it was. Arguments and result as in `shift.key_point_shift`; the paper does not say
    how it ran K-Means (I).
    """
    units = unit(patch_rows(features))
    boxed = cells_inside(boxes, features.shape[1:], patch=patch).flatten(1)[:, None]
    prototypes = units[seeds(core, boxes, patch=patch, config=config)]
    for _ in range(config.rounds):
        own = F.one_hot(cosines(prototypes, units).max(1).indices, config.prototypes).transpose(1, 2).bool() & boxed
        owned = own.sum(2, keepdim=True)
        prototypes = torch.where(owned > 0, own.to(units) @ units / owned.clamp(min=1), prototypes)
    return prototypes
