"""Step 10: a mask head learns from a few labelled points of each object."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.engine import ranks

OUTSIDE = -1.0  # a place in an RoI, in shares of its sides, that is farther from it than any cell reaches


def point_mask_loss(
    logits: Tensor,
    rois: Tensor,
    labels: Tensor,
    matched: Tensor,
    points: list[Tensor],
    wanted: list[Tensor],
    *,
    ignored: str = "skip",
) -> Tensor:
    """Binary cross-entropy at the points within each positive RoI; 0 where there is none. Of several processes each
    divides by the mean number of points.

    Args:
        logits: (r, K, m, m), a mask of each class over each RoI.
        rois: (r, 4) xyxy in pixels.
        labels: (r,) class of each RoI's object, from 0.
        matched: (r,) index of each RoI's object.
        points: (p, 2) xy in pixels, an object. wanted: (p,), 1 on it and 0 beside it.
        ignored: skip leaves points outside an RoI out, and is the mean of the others. positive does as the released
            program, which marks them as 2 in a tensor of booleans: they, and what fills the objects' lists up to the
            longest, count as positive. Outside, the mask reads 0, so each adds a constant ln 2 (with a gradient within
            half a cell of the edge) and dilutes the mean.

    Returns:
        A scalar, in the precision of the RoIs.
    """
    logits = logits.to(rois.dtype)
    if not len(rois):
        ranks.weight(0, device=logits.device)
        return logits.sum() * 0
    xy, targets, filler = (value[matched] for value in _padded(points, wanted, like=rois))
    sizes = (rois[:, 2:] - rois[:, :2]).clamp(min=1e-6)
    places = torch.where(filler[..., None], OUTSIDE, (xy - rois[:, None, :2]) / sizes[:, None])
    outside = ((places < 0) | (places > 1)).any(dim=-1)
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    found = sampled(own, places)
    if ignored == "positive":
        targets, counted = targets.masked_fill(outside, 1.0), torch.ones_like(outside)
    else:
        counted = ~outside
    count = counted.sum()
    weight = ranks.weight(count, device=logits.device)
    losses = F.binary_cross_entropy_with_logits(found, targets, reduction="none")
    return weight * losses[counted].sum() / count.clamp(min=1)


def sampled(masks: Tensor, places: Tensor) -> Tensor:
    """Masks read bilinearly; the middle of cell i lies at (i + ½) / m, and beyond the outermost cells' middles a mask
    falls to 0 within a cell.

    Args:
        masks: (r, m, m). places: (r, p, 2) x and y in shares of the sides, 0 to 1 inside.

    Returns:
        (r, p).
    """
    grid = (2 * places - 1)[:, None]
    return F.grid_sample(masks[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0, 0]


def _padded(points: list[Tensor], wanted: list[Tensor], *, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Objects' points (n, p, 2) and labels (n, p), filled up to the longest list, and what only fills (n, p)."""
    shape = (len(points), max([1, *map(len, points)]))
    xy, labels = like.new_zeros(*shape, 2), like.new_zeros(shape)
    filler = torch.ones(shape, dtype=torch.bool, device=like.device)
    for index, (place, label) in enumerate(zip(points, wanted, strict=True)):
        xy[index, : len(place)], labels[index, : len(place)] = place.to(like), label.to(like)
        filler[index, : len(place)] = False
    return xy, labels, filler
