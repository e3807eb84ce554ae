"""Cascade R-CNN's RoI heads (Cai & Vasconcelos, 2018): each stage refines the boxes of the one before, and is trained
to a higher IoU. Boxes are xyxy in pixels of the resized image throughout."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

from mal.engine import ranks
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.rcnn.parts import roi_pool
from mal.segmenters.rcnn.roi_heads import Target, mask_loss
from mal.segmenters.rcnn.roi_sampling import Sampled, sample_rois

Maps = dict[str, Tensor]


class BoxPredictor(nn.Module):
    """A class's logit, and its box or one for all classes."""

    def __init__(self, width: int, classes: int, *, per_class: bool) -> None:
        super().__init__()
        self.logits, self.deltas = nn.Linear(width, classes + 1), nn.Linear(width, 4 * (classes if per_class else 1))
        for layer, spread in ((self.logits, 0.01), (self.deltas, 0.001)):  # starts near the proposals themselves
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(r, width) → class logits (r, classes + 1), background first, and encoded boxes (r, 4 or 4 · classes)."""
        return self.logits(x), self.deltas(x)


class CascadeStage(RoIHeads):
    """One stage: torchvision's matching, sampling and box coding, with a box head of convolutions with batch norm.

    Args:
        config: `heads`, `cascade`, `test`, `mask_head` and `pyramid.channels` are used.
        number: which stage, from 0.
        classes: the background not counted.
    """

    def __init__(self, config: SegmenterConfig, *, number: int, classes: int) -> None:
        heads, cascade, channels = config.heads, config.cascade, config.pyramid.channels
        shape = (channels, heads.box_cells, heads.box_cells)
        masks = {}
        if config.mask_head:
            masks = {
                "mask_roi_pool": roi_pool(config, cells=heads.mask_cells),
                "mask_head": MaskRCNNHeads(channels, heads.mask_widths, dilation=1),
                "mask_predictor": MaskRCNNPredictor(heads.mask_widths[-1], heads.mask_up_width, classes + 1),
            }
        super().__init__(
            roi_pool(config, cells=heads.box_cells),
            FastRCNNConvFCHead(shape, cascade.box_convs, [heads.box_width], norm_layer=nn.BatchNorm2d),
            BoxPredictor(heads.box_width, classes, per_class=cascade.box_per_class),
            fg_iou_thresh=cascade.ious[number],
            bg_iou_thresh=cascade.ious[number],
            batch_size_per_image=heads.sampled,
            positive_fraction=heads.positive,
            bbox_reg_weights=tuple(1 / std for std in cascade.box_stds[number]),
            score_thresh=config.test.score,
            nms_thresh=config.test.nms,
            detections_per_img=config.test.max_detections,
            **masks,
        )
        self.aligned, self.binary = heads.aligned, heads.mask_targets == "binary"

    def sample(self, proposals: list[Tensor], targets: list[Target]) -> Sampled:
        """Match proposals and the targets' own boxes to the targets at this stage's IoU; draw some of them."""
        return sample_rois(self, proposals, targets)

    def classify(self, features: Maps, boxes: list[Tensor], shapes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Class logits (Σr, classes + 1) and encoded boxes (Σr, 4 or 4 · classes)."""
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, shapes)))

    def decoded(self, deltas: Tensor, boxes: list[Tensor]) -> Tensor:
        """(Σr, 4): the boxes that `deltas` make of `boxes`."""
        return self.box_coder.decode(deltas, boxes).view(-1, 4)

    def refined(
        self,
        logits: Tensor,
        deltas: Tensor,
        boxes: list[Tensor],
        shapes: list[tuple[int, int]],
        labels: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """The next stage's proposals; no gradient flows through them.

        Where each class has its own box, it is that of the object an RoI was matched to, and where there is none that
        of the best class, as MMDetection has it.

        Args:
            labels: (r,) an image, in training.
        """
        found = logits[:, 1:].argmax(dim=1) + 1
        if labels is not None:
            known = torch.cat(labels)
            found = torch.where(known > 0, known, found)
        split = self.decoded(own_boxes(deltas.detach(), found), boxes).split([len(given) for given in boxes])
        return [clip_boxes_to_image(given, shape) for given, shape in zip(split, shapes, strict=True)]

    def box_losses(
        self, logits: Tensor, deltas: Tensor, sampled: Sampled, targets: list[Target]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and generalised IoU of the positives' decoded boxes; both sums over the number of RoIs, of
        several processes over the mean number."""
        labels, count = torch.cat(sampled.labels), max(1, len(logits))
        weight = ranks.weight(len(logits), device=logits.device)
        wanted = [
            target["boxes"][index] for target, index in zip(targets, sampled.positive(sampled.matched), strict=True)
        ]
        found = self.decoded(own_boxes(deltas, labels.clamp(min=1)), sampled.boxes)[labels > 0]
        boxes = generalized_box_iou_loss(found, torch.cat(wanted).to(found.dtype), reduction="sum")
        return weight * (F.cross_entropy(logits, labels, reduction="sum") / count), weight * (boxes / count)

    def mask_logits(self, features: Maps, boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """(Σr, classes + 1, 2 · mask_cells, 2 · mask_cells)."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, shapes)))

    def mask_loss(
        self, features: Maps, sampled: Sampled, shapes: list[tuple[int, int]], targets: list[Target]
    ) -> Tensor:
        """Binary cross-entropy over the cells of the positive RoIs' masks of their own class."""
        boxes = sampled.positive(sampled.boxes)
        logits = self.mask_logits(features, boxes, shapes)
        matched = sampled.positive(sampled.matched)
        return mask_loss(logits, boxes, matched, targets, aligned=self.aligned, binary=self.binary)


def own_boxes(deltas: Tensor, labels: Tensor) -> Tensor:
    """Each RoI's box of a class: (r, 4 · classes) and (r,) from 1 → (r, 4); (r, 4) is the same for every class."""
    of_class = deltas.unflatten(1, (-1, 4))
    return deltas if of_class.shape[1] == 1 else of_class[torch.arange(len(labels), device=labels.device), labels - 1]


class CascadeHeads(nn.Module):
    """Takes the place of `RoIHeads` in torchvision's detectors.

    Args:
        config: see `CascadeStage`; `cascade.weights` weighs the losses of its stages.
        classes: the background not counted.
    """

    def __init__(self, config: SegmenterConfig, *, classes: int) -> None:
        super().__init__()
        self.weights, self.box_weight = config.cascade.weights, config.cascade.box_weight
        numbers = range(len(config.cascade.ious))
        self.stages = nn.ModuleList(CascadeStage(config, number=number, classes=classes) for number in numbers)

    def ordered(self) -> list[CascadeStage]:
        return [stage for stage in self.stages if isinstance(stage, CascadeStage)]

    def forward(
        self,
        features: Maps,
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """What `RoIHeads` returns: detections (evaluation) and losses (training), the other one empty.

        Args:
            features: the pyramid's maps.
            proposals: (p, 4) an image.
            shapes: (height, width) of each resized image.
            targets: in training.
        """
        if self.training:
            assert targets is not None
            return [], self.losses(features, proposals, shapes, targets)
        return self.detections(features, proposals, shapes), {}

    def losses(
        self, features: Maps, proposals: list[Tensor], shapes: list[tuple[int, int]], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Every stage's, weighted. Between stages the targets' own boxes are dropped: the next adds them itself."""
        losses: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(zip(self.ordered(), self.weights, strict=True), start=1):
            sampled = stage.sample(proposals, targets)
            logits, deltas = stage.classify(features, sampled.boxes, shapes)
            classes, boxes = stage.box_losses(logits, deltas, sampled, targets)
            losses |= {f"loss_class_{number}": weight * classes, f"loss_box_{number}": weight * self.box_weight * boxes}
            if stage.has_mask():
                losses[f"loss_mask_{number}"] = weight * stage.mask_loss(features, sampled, shapes, targets)
            refined = stage.refined(logits, deltas, sampled.boxes, shapes, sampled.labels)
            proposals = [boxes[~own] for boxes, own in zip(refined, sampled.own, strict=True)]
        return losses

    def detections(
        self, features: Maps, proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Boxes (d, 4) of the last stage, labels, scores and, with a mask head, masks (d, 1, m, m) in [0, 1].

        Scores are the softmax of the stages' mean logits, as MMDetection has them (Detectron2 averages the stages'
        softmaxes); masks are the mean of the stages' masks.
        """
        logits, stages = [], self.ordered()
        for stage in stages:
            found, deltas = stage.classify(features, proposals, shapes)
            logits.append(found)
            before, proposals = proposals, stage.refined(found, deltas, proposals, shapes)
        mean = torch.stack(logits).mean(dim=0)
        last, classes = stages[-1], mean.shape[1]
        per_class = deltas.repeat(1, classes) if deltas.shape[1] == 4 else torch.cat([deltas[:, :4], deltas], dim=1)
        boxes, scores, labels = last.postprocess_detections(mean, per_class, before, shapes)  # no box of the background
        results = [
            {"boxes": box, "scores": score, "labels": label}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
        if last.has_mask():
            masks = [maskrcnn_inference(stage.mask_logits(features, boxes, shapes), labels) for stage in stages]
            for result, *of_stages in zip(results, *masks, strict=True):
                result["masks"] = torch.stack(of_stages).mean(dim=0)
        return results
