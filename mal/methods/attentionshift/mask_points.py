"""Step 9: the labelled points, or in Table 2 the masks, that teach the mask head."""

import torch
from torch import Tensor

from mal.methods.attentionshift.raw_points import PointPair

LabelledPoints = tuple[Tensor, Tensor]  # (p, 2) x, y in pixels; (p,) 1 on the object, 0 off it


def mask_points(raw: list[PointPair], key_points: list[Tensor], *, fallback: str) -> list[LabelledPoints]:
    """Key-points replace an instance's raw positives; its negatives stay.

    Args:
        raw: per instance, of step 6.
        key_points: per instance (p, 2), of step 8.
        fallback: `instance`: one without key-points keeps its raw positives; `image`: only if no instance of the image
            has a key-point, else it has no positives (released).
    """
    anywhere = any(len(points) for points in key_points)
    found = []
    for (positives, negatives), points in zip(raw, key_points, strict=True):
        replaced = len(points) or (anywhere and fallback == "image")
        found.append(labelled(points if replaced else positives, negatives))
    return found


def labelled(positives: Tensor, negatives: Tensor) -> LabelledPoints:
    """(p, 2) and (q, 2) → (p + q, 2) and (p + q,)."""
    points = torch.cat([positives, negatives.to(positives)])
    return points, (torch.arange(len(points), device=points.device) < len(positives)).long()
