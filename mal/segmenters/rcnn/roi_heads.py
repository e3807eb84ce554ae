"""RoI heads of Mask R-CNN (He et al., 2017): torchvision's, but for mask targets, the box loss and divisors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import roi_align

from mal.engine import ranks

Target = dict[str, Tensor]  # boxes (n, 4), labels (n,) from 1, masks (n, h, w)


class MaskHeads(RoIHeads):
    """torchvision's heads with `mask_loss`, and with losses that several processes divide by what all of them sampled.

    Args:
        aligned: see `mask_targets`.
        binary: see `mask_targets`.
        box_beta: where the box loss turns from square to linear; 0: it is L1.
        arguments: those of `RoIHeads`.
    """

    def __init__(self, *arguments: Any, aligned: bool, binary: bool, box_beta: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.aligned, self.binary, self.box_beta = aligned, binary, box_beta

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections (evaluation) and losses (training), the other one empty."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        assert targets is not None
        rois, matched, labels, wanted = self.select_training_samples(proposals, targets)
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, rois, image_shapes)))
        weight = ranks.weight(len(logits), device=logits.device)
        classes, boxes = box_losses(logits, deltas, torch.cat(labels), torch.cat(wanted), beta=self.box_beta)
        losses = {"loss_classifier": weight * classes, "loss_box_reg": weight * boxes}
        if not self.has_mask():
            return [], losses
        positive = [label > 0 for label in labels]
        rois, matched = (
            [value[kept] for value, kept in zip(values, positive, strict=True)] for values in (rois, matched)
        )
        mask_logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, rois, image_shapes)))
        masks = mask_loss(mask_logits, rois, matched, targets, aligned=self.aligned, binary=self.binary)
        return [], losses | {"loss_mask": masks}


def box_losses(logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the RoIs, and the smooth L1 loss of the positives' own boxes over the number of all RoIs.

    Args:
        logits: (r, classes + 1). deltas: (r, 4 · (classes + 1)), encoded. labels: (r,), 0 for the background.
        wanted: (r, 4), encoded.
        beta: where it turns from square to linear; 0: it is L1.
    """
    positive = (labels > 0).nonzero()[:, 0]
    own = deltas.view(len(deltas), -1, 4)[positive, labels[positive]]
    boxes = F.smooth_l1_loss(own, wanted[positive], beta=beta, reduction="sum") / len(labels)
    return F.cross_entropy(logits, labels), boxes


def mask_targets(
    masks: Tensor, boxes: Tensor, matched: Tensor, *, cells: int, aligned: bool, binary: bool = False
) -> Tensor:
    """What a mask head should draw in each box: (r, cells, cells) in [0, 1], the mask's share of each cell.

    Args:
        masks: (n, h, w) of 0 and 1. boxes: (r, 4) xyxy in pixels. matched: (r,), index of each box's mask.
        aligned: a mask's pixel i covers i to i + 1, as in MMDetection and detectron2. torchvision has its middle at i,
            so that every mask is learned half a pixel too far to the left and the top: targets themselves, pasted, have
            a mask AP of .75 instead of .90 on procedural images of 144 pixels.
        binary: 1 where the share is at least half, else 0, as MMDetection and detectron2 have it.
    """
    rois = torch.cat([matched[:, None].to(boxes), boxes], dim=1)
    shares = roi_align(masks[:, None].to(boxes), rois, cells, aligned=aligned)[:, 0]
    return (shares >= 0.5).to(shares) if binary else shares


def mask_loss(
    logits: Tensor,
    boxes: list[Tensor],
    matched: list[Tensor],
    targets: list[Target],
    *,
    aligned: bool,
    binary: bool = False,
) -> Tensor:
    """Mean binary cross-entropy over the cells of the masks of the RoIs' own classes; 0 without RoIs.

    Of several processes each divides by the mean number of RoIs.

    Args:
        logits: (Σr, classes + 1, m, m). boxes: (r, 4) positive RoIs, an image. matched: (r,) index of their targets.
    """
    weight = ranks.weight(len(logits), device=logits.device)
    if not len(logits):
        return logits.sum() * 0
    labels = torch.cat([target["labels"][index] for target, index in zip(targets, matched, strict=True)])
    wanted = [
        mask_targets(target["masks"], own, index, cells=logits.shape[-1], aligned=aligned, binary=binary)
        for target, own, index in zip(targets, boxes, matched, strict=True)
    ]
    chosen = logits[torch.arange(len(labels), device=labels.device), labels]
    return weight * F.binary_cross_entropy_with_logits(chosen, torch.cat(wanted))
