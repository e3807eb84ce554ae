"""Detections of an image from one view of it, or from several: sizes, each also flipped.

Several views are averaged as MMDetection's test-time augmentation does. The proposals of all views are pooled by
non-maximum suppression; each view's box head classifies and refines all of them, and class probabilities and boxes,
mapped back to the image, are averaged before the final suppression; the masks of what remains are averaged as
probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from mal.engine.precision import autocast
from mal.methods.attentionshift.config.detector import DetectionConfig
from mal.methods.attentionshift.detector import Detector
from mal.segmenters.network import Json
from mal.segmenters.rcnn.parts import as_results
from mal.segmenters.rcnn.pasting import paste


@dataclass
class View:
    """An image as the ViT was shown it."""

    maps: list[Tensor]  # (1, C, h, w) of four blocks, float32
    height: int  # in pixels, before padding
    width: int
    flipped: bool = False  # left to right, after resizing

    def shown(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) boxes in the image of `size` (height, width) → in this view."""
        return self._mirrored(boxes * self._scale(boxes, size))

    def back(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(…, 4) boxes in this view → in the image of `size` (height, width)."""
        return self._mirrored(boxes) / self._scale(boxes, size)

    def _scale(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return boxes.new_tensor([self.width / size[1], self.height / size[0]] * 2)

    def _mirrored(self, boxes: Tensor) -> Tensor:
        if not self.flipped:
            return boxes
        left, top, right, bottom = boxes.unbind(dim=-1)
        return torch.stack([self.width - right, top, self.width - left, bottom], dim=-1)


@dataclass
class Detections:
    """What was found in an image, by falling score; boxes are xyxy in its own pixels."""

    boxes: Tensor  # (d, 4)
    scores: Tensor  # (d,)
    labels: Tensor  # (d,) from 0
    masks: Tensor  # (d, m, m) probabilities, each over its box


@torch.no_grad()
def detect(detector: Detector, views: Sequence[View], *, size: tuple[int, int]) -> Detections:
    """Detections of one image.

    Args:
        detector: in evaluation mode.
        views: at least one.
        size: (height, width) of the image itself.
    """
    with autocast(views[0].maps[-1].device, torch.float32):
        proposals = _proposals(detector, views, size)
        probabilities, boxes = _classified(detector, views, proposals, size)
        boxes, scores, labels = kept(boxes, probabilities, detector.config.detection)
        return Detections(boxes, scores, labels, _masks(detector, views, boxes, labels, size))


def as_coco(entry: Json, found: Detections, *, categories: list[int], threshold: float) -> list[Json]:
    """COCO results of an image.

    Args:
        entry: its id, height and width.
        categories: ids, by label.
        threshold: see `DetectionConfig.mask_threshold`.
    """
    boxes, scores, labels = found.boxes.cpu(), found.scores.cpu(), found.labels.cpu()
    masks = paste(found.masks.cpu(), boxes, height=entry["height"], width=entry["width"], threshold=threshold)
    return as_results(int(entry["id"]), boxes, scores, labels, masks=masks, categories=categories)


def kept(boxes: Tensor, probabilities: Tensor, config: DetectionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """What is scored high enough and hides behind no better one of its class, by falling score.

    Args:
        boxes: (r, K, 4), one of each class. probabilities: (r, K + 1), background first.

    Returns:
        Boxes (d, 4), scores (d,) and labels (d,) from 0.
    """
    scores = probabilities[:, 1:]
    roi, label = (scores > config.score).nonzero(as_tuple=True)
    boxes, scores = boxes[roi, label], scores[roi, label]
    chosen = batched_nms(boxes, scores, label, config.nms)[: config.max_detections]
    return boxes[chosen], scores[chosen], label[chosen]


def _proposals(detector: Detector, views: Sequence[View], size: tuple[int, int]) -> Tensor:
    """(p, 4) in the image."""
    boxes, scores = [], []
    for view in views:
        levels, images = detector.levels(view.maps)
        images.image_sizes = [(view.height, view.width)]
        found, score = detector.rpn.scored(images, levels)
        boxes.append(view.back(found[0], size))
        scores.append(score[0])
    if len(views) == 1:
        return boxes[0]
    together = torch.cat(boxes)
    chosen = nms(together, torch.cat(scores), detector.config.proposals.nms)
    return together[chosen[: detector.config.proposals.after_nms[1]]]


def _classified(
    detector: Detector, views: Sequence[View], proposals: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Class probabilities (p, K + 1) and boxes (p, K, 4) in the image, means over the views."""
    probabilities, boxes = [], []
    for view in views:
        rois = view.shown(proposals, size)
        logits, deltas = detector.heads.classify(view.maps[-1], [rois], detector.patch)
        refined = detector.heads.box_coder.decode(deltas, [rois])
        probabilities.append(logits.softmax(dim=1))
        boxes.append(view.back(clip_boxes_to_image(refined, (view.height, view.width)), size))
    return torch.stack(probabilities).mean(dim=0), torch.stack(boxes).mean(dim=0)


def _masks(detector: Detector, views: Sequence[View], boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(d, m, m) probabilities over boxes in the image, means over the views."""
    masks = []
    for view in views:
        (found,) = detector.masks(view.maps[-1], [view.shown(boxes, size)], [labels])
        masks.append(found.flip(-1) if view.flipped else found)
    return torch.stack(masks).mean(dim=0)
