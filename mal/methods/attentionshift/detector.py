"""The detector that learns beside the ViT (steps 10 and 11): region proposals on a pyramid of its blocks' maps, and
heads of boxes and masks on its last map. Boxes are xyxy in pixels of the resized image throughout.

To its losses, the boxes that step 4 chose are objects like any a human drew.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import generalized_box_iou_loss

from mal.engine import ranks
from mal.engine.precision import autocast
from mal.errors import ConfigError
from mal.methods.attentionshift.config.detector import DetectorConfig
from mal.methods.attentionshift.heads import BoxHead, MaskHead, pooled
from mal.methods.attentionshift.mae_start import start_from_mae
from mal.methods.attentionshift.mask_loss import point_mask_loss
from mal.methods.attentionshift.neck import Neck
from mal.segmenters.rcnn.cascade_heads import BoxPredictor, own_boxes
from mal.segmenters.rcnn.parts import ExactAnchors, proposal_network
from mal.segmenters.rcnn.roi_heads import mask_loss
from mal.segmenters.rcnn.roi_sampling import Sampled, sample_rois

# what may compute in half precision, see `mal.segmenters.precision.lower_precision`; everything else is float32 even
# within autocast
LOWERED = ("neck", "rpn.head", "heads.box_head", "heads.box_predictor", "heads.mask_head")
BOX_CODE = (10.0, 10.0, 5.0, 5.0)  # weights of x, y, w and h: 1 / (.1, .1, .2, .2)


@dataclass
class Objects:
    """What the detector is to find in an image; n may be 0."""

    boxes: Tensor  # (n, 4)
    labels: Tensor  # (n,) from 0
    points: list[Tensor]  # (p, 2) xy in pixels, an object: what teaches its mask
    wanted: list[Tensor]  # (p,) 1 on the object, 0 beside it
    masks: Tensor | None = None  # (n, height, width) of 0 and 1; they teach instead of the points where all images have
    # them (Table 2)


class Detector(nn.Module):
    """RPN, box head and mask head over a plain ViT.

    Args:
        channels: of the ViT. classes: without the background. patch: the ViT's, in pixels.

    Raises:
        ConfigError: see `Neck`; or the heads' width does not fit its attention heads or its positions.
    """

    def __init__(self, config: DetectorConfig, *, channels: int, classes: int, patch: int) -> None:
        super().__init__()
        neck, proposals, strides = config.neck, config.proposals, config.neck.strides
        every = (*strides, 2 * strides[-1])
        anchors = ExactAnchors(
            tuple((proposals.anchor * stride,) for stride in every),
            (tuple(proposals.ratios),) * len(every),
            strides=every,
        )
        self.config, self.patch = config, patch
        self.neck = Neck(channels, width=neck.width, patch=patch, strides=strides)
        self.rpn = proposal_network(
            anchors,
            channels=neck.width,
            sampled=proposals.sampled,
            before_nms=proposals.before_nms,
            after_nms=proposals.after_nms,
            nms=proposals.nms,
            box_beta=0.0,  # L1
        )
        self.heads = Heads(config, channels=channels, classes=classes)

    def start_from_mae(self, state: dict[str, Tensor], *, source: str | Path) -> bool:
        """Give the box and the mask head a masked autoencoder's decoder each, see `mae_start.start_from_mae`."""
        heads = (self.heads.box_head, self.heads.mask_head)
        return all(start_from_mae(head.transformer, state, source=source) for head in heads)

    def levels(self, maps: list[Tensor]) -> tuple[dict[str, Tensor], ImageList]:
        """The pyramid, and images without channels, of which torchvision's proposals ask only the padded size."""
        batch, _, height, width = maps[-1].shape
        images = maps[-1].new_empty(batch, 0, height * self.patch, width * self.patch)
        return self.neck(maps), ImageList(images, [])

    def losses(self, maps: list[Tensor], objects: list[Objects], shapes: list[tuple[int, int]]) -> dict[str, Tensor]:
        """rpn_objectness, rpn_boxes, classes, boxes and mask, weighted: their sum is the loss.

        Anchors and RoIs are drawn with torch's global generator. Whatever the images hold, every weight is part of the
        sum. Of several processes each divides by what all have on average.

        Args:
            maps: (B, C, h, w) of four blocks, the last one's last, which the heads read; float32.
            objects: of each image.
            shapes: (height, width) of each image in pixels, before padding.
        """
        with autocast(maps[-1].device, torch.float32):
            levels, images = self.levels(maps)
            images.image_sizes = shapes
            # torchvision counts classes from 1
            targets = [{"boxes": each.boxes, "labels": each.labels + 1} for each in objects]
            proposals, found = self.rpn(images, levels, targets)
            losses = {"rpn_objectness": found["loss_objectness"], "rpn_boxes": found["loss_rpn_box_reg"]}
            return losses | self.heads.losses(maps[-1], [box.detach() for box in proposals], objects, self.patch)

    def masks(self, features: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Masks of boxes that are known, as probabilities: (r, m, m) over its box, an image.

        Args:
            features: (B, C, h, w), the last map; float32. boxes: (r, 4) an image. labels: (r,) an image, from 0.
        """
        counts = [len(box) for box in boxes]
        with autocast(features.device, torch.float32):
            cells = pooled(features, boxes, cells=self.config.mask.grid_test, patch=self.patch)
            own = of_class(self.heads.mask_head(cells), torch.cat(labels))
            return list(own.sigmoid().split(counts))


class Heads(RoIHeads):
    """torchvision's matching, sampling and box coding around heads that read the ViT's last map.

    Arguments: see `Detector`.
    """

    def __init__(self, config: DetectorConfig, *, channels: int, classes: int) -> None:
        if config.width % config.heads or config.width % 4:
            raise ConfigError(
                f"detector.width={config.width} must be a multiple of 4 (its positions) and of detector.heads="
                f"{config.heads}; choose such a width"
            )
        sizes = {"width": config.width, "depth": config.depth, "heads": config.heads, "side": config.positions}
        super().__init__(
            None,  # pools itself
            BoxHead(channels, **sizes),
            BoxPredictor(config.width, classes, per_class=True),
            fg_iou_thresh=config.box.iou,
            bg_iou_thresh=config.box.iou,
            batch_size_per_image=config.box.sampled,
            positive_fraction=config.box.positive,
            bbox_reg_weights=BOX_CODE,
            score_thresh=config.detection.score,
            nms_thresh=config.detection.nms,
            detections_per_img=config.detection.max_detections,
            mask_head=MaskHead(channels, **sizes, classes=classes, start=config.mask.start),
        )
        self.config = config

    def classify(self, features: Tensor, boxes: list[Tensor], patch: int) -> tuple[Tensor, Tensor]:
        """Class logits (Σr, K + 1), background first, and encoded boxes (Σr, 4K) of RoIs (r, 4) of each image."""
        cells = pooled(features, boxes, cells=self.config.box.cells, patch=patch)
        return self.box_predictor(self.box_head(cells))

    def losses(
        self, features: Tensor, proposals: list[Tensor], objects: list[Objects], patch: int
    ) -> dict[str, Tensor]:
        """classes, boxes and mask, weighted; arguments as in `Detector.losses`, proposals (p, 4) an image."""
        targets = [{"boxes": each.boxes, "labels": each.labels + 1} for each in objects]
        drawn = sample_rois(self, proposals, targets)
        logits, deltas = self.classify(features, drawn.boxes, patch)
        classes, boxes = self.box_losses(logits, deltas, drawn, objects)
        return {
            "classes": classes,
            "boxes": self.config.box.weight * boxes,
            "mask": self.mask_loss(features, drawn, objects, patch),
        }

    def box_losses(
        self, logits: Tensor, deltas: Tensor, drawn: Sampled, objects: list[Objects]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and generalised IoU loss of the positives' decoded boxes; both sums over the number of RoIs
        (Rezatofighi et al., 2019)."""
        labels, count = torch.cat(drawn.labels), max(1, len(logits))
        weight = ranks.weight(len(logits), device=logits.device)
        wanted = [each.boxes[index] for each, index in zip(objects, drawn.positive(drawn.matched), strict=True)]
        decoded = self.box_coder.decode(own_boxes(deltas, labels.clamp(min=1)), drawn.boxes)[:, 0][labels > 0]
        boxes = generalized_box_iou_loss(decoded, torch.cat(wanted).to(decoded), reduction="sum")
        return weight * F.cross_entropy(logits, labels, reduction="sum") / count, weight * boxes / count

    def mask_loss(self, features: Tensor, drawn: Sampled, objects: list[Objects], patch: int) -> Tensor:
        """Of the positive RoIs: step 10, or the binary cross-entropy over all cells where whole masks are given."""
        rois, matched = drawn.positive(drawn.boxes), drawn.positive(drawn.matched)
        cells = pooled(features, rois, cells=self.config.mask.grid_train, patch=patch)
        logits = self.mask_head(cells)
        whole = [each.masks for each in objects if each.masks is not None]
        if len(whole) == len(objects):
            dense = [{"masks": masks, "labels": each.labels} for masks, each in zip(whole, objects, strict=True)]
            return mask_loss(logits, rois, matched, dense, aligned=True, binary=True)
        before = [0, *torch.tensor([len(each.boxes) for each in objects]).cumsum(0).tolist()]
        return point_mask_loss(
            logits,
            torch.cat(rois),
            torch.cat([each.labels[index] for each, index in zip(objects, matched, strict=True)]),
            torch.cat([index + first for index, first in zip(matched, before[:-1], strict=True)]),
            [points for each in objects for points in each.points],
            [wanted for each in objects for wanted in each.wanted],
            ignored=self.config.mask.ignored,
        )


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """(r, K, m, m) and (r,) from 0 → each RoI's mask of its class (r, m, m)."""
    return masks[torch.arange(len(labels), device=labels.device), labels]
