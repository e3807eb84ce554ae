"""RoIs to train on: proposals and the targets' own boxes, matched to the targets, some of them drawn at random."""

from dataclasses import dataclass

from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from mal.segmenters.rcnn.roi_heads import Target


@dataclass
class Sampled:
    """RoIs a stage is trained on; a list has one tensor an image."""

    boxes: list[Tensor]  # (r, 4)
    labels: list[Tensor]  # (r,), 0 for the background
    matched: list[Tensor]  # (r,), index of the target; meaningless for the background
    own: list[Tensor]  # (r,) bool: a target's own box, not a proposal

    def positive(self, values: list[Tensor]) -> list[Tensor]:
        return [value[labels > 0] for value, labels in zip(values, self.labels, strict=True)]


def sample_rois(heads: RoIHeads, proposals: list[Tensor], targets: list[Target]) -> Sampled:
    """Match proposals and the targets' own boxes to the targets at the IoU of `heads`; draw as many as these say.

    Args:
        heads: torchvision's, whose matcher and sampler work.
        proposals: (p, 4) an image. targets: their boxes and their labels from 1.
    """
    boxes = [target["boxes"].to(given.dtype) for given, target in zip(proposals, targets, strict=True)]
    candidates = heads.add_gt_proposals(proposals, boxes)
    matched, labels = heads.assign_targets_to_proposals(candidates, boxes, [target["labels"] for target in targets])
    drawn = heads.subsample(labels)
    own = [index >= len(given) for index, given in zip(drawn, proposals, strict=True)]
    rois, labels, matched = (
        [value[index] for value, index in zip(values, drawn, strict=True)] for values in (candidates, labels, matched)
    )
    return Sampled(boxes=rois, labels=labels, matched=matched, own=own)
