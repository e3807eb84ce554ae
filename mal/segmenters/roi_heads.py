"""RoI heads of Mask R-CNN (He et al., 2017): torchvision's, but for where a mask's target is read and for divisors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import roi_align

from mal import ranks

Target = dict[str, Tensor]  # boxes (n, 4), labels (n,) from 1, masks (n, h, w)


class MaskHeads(RoIHeads):
    """torchvision's heads with `mask_loss`, and with losses that several processes divide by what all of them sampled.

    Args:
        aligned: see `mask_targets`.
        arguments: those of `RoIHeads`.
    """

    def __init__(self, *arguments: Any, aligned: bool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.aligned = aligned

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
        classes, boxes = (weight * loss for loss in fastrcnn_loss(logits, deltas, labels, wanted))
        losses = {"loss_classifier": classes, "loss_box_reg": boxes}
        if not self.has_mask():
            return [], losses
        positive = [label > 0 for label in labels]
        rois, matched = (
            [value[kept] for value, kept in zip(values, positive, strict=True)] for values in (rois, matched)
        )
        mask_logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, rois, image_shapes)))
        masks = mask_loss(mask_logits, rois, matched, targets, aligned=self.aligned)
        return [], losses | {"loss_mask": masks}


def mask_targets(masks: Tensor, boxes: Tensor, matched: Tensor, *, cells: int, aligned: bool) -> Tensor:
    """What a mask head should draw in each box: (r, cells, cells) in [0, 1], the mask's share of each cell.

    Args:
        masks: (n, h, w) of 0 and 1. boxes: (r, 4) xyxy in pixels. matched: (r,), index of each box's mask.
        aligned: a mask's pixel i covers i to i + 1, as in MMDetection and detectron2. torchvision has its middle at i,
            so that every mask is learned half a pixel too far to the left and the top: targets themselves, pasted, have
            a mask AP of .75 instead of .90 on procedural images of 144 pixels.
    """
    rois = torch.cat([matched[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), rois, cells, aligned=aligned)[:, 0]


def mask_loss(
    logits: Tensor, boxes: list[Tensor], matched: list[Tensor], targets: list[Target], *, aligned: bool
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
        mask_targets(target["masks"], own, index, cells=logits.shape[-1], aligned=aligned)
        for target, own, index in zip(targets, boxes, matched, strict=True)
    ]
    chosen = logits[torch.arange(len(labels), device=labels.device), labels]
    return weight * F.binary_cross_entropy_with_logits(chosen, torch.cat(wanted))
