"""What the class network learns from: points, classes that an image lacks, and pixels that look like no object (I)."""

import math

import torch
from torch import Tensor

from mal.engine import ranks
from mal.methods.bestie.config import ClassMapsConfig
from mal.methods.bestie.data import Sample
from mal.methods.bestie.network import BACKGROUND

NONE = -1e9  # a logit of no probability
MOST = 0.9  # of an image's pixels that may be spared


def class_losses(logits: Tensor, batch: list[Sample], config: ClassMapsConfig) -> dict[str, Tensor]:
    """Weighted losses of a batch, by name.

    - points: cross-entropy at the pixels that points lie on, mean over the batch's points.
    - absent: −log of what the background and the classes that the image has points of share; mean over its pixels.
    - background: −log of the background's probability, mean over the pixels that look least like objects.

    The last two are means over the images. Classes are those of the whole image, points those that a sample shows.

    Args:
        logits: (B, K + 1, S, S), the background first.
        batch: B samples.
    """
    chances = logits.log_softmax(dim=1)
    at_points, absent, background = [], [], []
    for each, sample in zip(chances, batch, strict=True):
        seen = (sample.xy >= 0).all(dim=1) & (sample.xy < each.shape[-1]).all(dim=1)
        columns, rows = sample.xy[seen].long().unbind(dim=1)
        at_points.append(-each[sample.labels[seen] + 1, rows, columns])
        there = torch.cat([sample.present.new_ones(1), sample.present])
        absent.append(-each.masked_fill(~there[:, None, None], NONE).logsumexp(dim=0)[sample.inside].mean())
        spared = config.spared * disc_share(int((seen & sample.first).sum()), sample.inside, radius=config.radius)
        background.append(easiest(-each[BACKGROUND][sample.inside], share=1 - min(spared, MOST)))
    points = torch.cat(at_points)
    weight = ranks.weight(len(points), device=points.device)
    return {
        "points": points.sum() / max(1, len(points)) * weight,
        "absent": config.absent * torch.stack(absent).mean(),
        "background": config.background * torch.stack(background).mean(),
    }


def easiest(costs: Tensor, *, share: float) -> Tensor:
    """The mean of the smallest costs (m,): a share of them, rounded down but at least one."""
    return costs.topk(max(1, int(share * len(costs))), largest=False).values.mean()


def disc_share(objects: int, inside: Tensor, *, radius: float) -> float:
    """The share of an image's pixels that so many disjoint discs fill.

    Args:
        inside: (S, S) bool, the image. radius: a share of its shorter side, as that of labeler=disc.
    """
    height, width = int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum())
    return objects * math.pi * (radius * min(height, width)) ** 2 / (height * width)
