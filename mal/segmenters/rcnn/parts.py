"""What Mask R-CNN and Cascade Mask R-CNN share: torchvision's parts as our configs set them, and COCO results."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from mal.data.annotations import encode_mask
from mal.engine import ranks
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.network import Detect, Json
from mal.segmenters.pyramids import LEVEL_NAMES, STRIDES
from mal.segmenters.rcnn.pasting import paste
from mal.segmenters.rcnn.roi_pool import RoiPool

TORCHVISION_SAMPLES = 2  # along each side of a cell, of the RoIAlign that torchvision's published weights learned with


class Prepared(GeneralizedRCNNTransform):
    """Normalises and pads into a channels-last batch. Resizing is ours: antialiased, and alike in training and test."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(1, 1, list(config.pyramid.mean), list(config.pyramid.std))  # sizes it never gets to use

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        return super().batch_images(images, size_divisible).contiguous(memory_format=torch.channels_last)

    def postprocess(self, result: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        return result


class Resizing(GeneralizedRCNNTransform):
    """torchvision's own preparation. Boxes come back in the pixels of the image as given; masks stay in their boxes."""

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        for found, resized, original in zip(result, image_shapes, original_image_sizes, strict=True):
            found["boxes"] = resize_boxes(found["boxes"], list(resized), list(original))
        return result


def do_as_published(model: nn.Module, config: SegmenterConfig) -> None:
    """Make a detector do at test time what torchvision's published weights were measured with.

    It resizes images as torchvision does, without antialiasing, and its frozen batch norms add nothing to the variance
    (torchvision sets their eps to 0 when it loads these weights).
    """
    scale, pyramid = config.scale, config.pyramid
    model.transform = Resizing(scale.test_short_side, scale.test_long_side, list(pyramid.mean), list(pyramid.std))
    for module in model.get_submodule("backbone.body").modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0  # type: ignore[assignment]


class ExactAnchors(AnchorGenerator):
    """Anchors as MMDetection and detectron2 have them: around multiples of the map's stride, of exact sides and ratios.

    torchvision rounds corners to whole pixels, and divides the image's side by the map's: a last map of 13 cells on an
    image of 800 pixels gets anchors 61 pixels apart instead of 64.

    Args:
        sides: of the anchors, by level. ratios: of height / width, by level.
        strides: of the levels, in pixels.
    """

    def __init__(
        self,
        sides: tuple[tuple[float, ...], ...],
        ratios: tuple[tuple[float, ...], ...],
        *,
        strides: tuple[int, ...] = (*STRIDES, 2 * STRIDES[-1]),
    ) -> None:
        super().__init__(sides, ratios)
        self.strides = strides

    def generate_anchors(
        self, scales: Any, aspect_ratios: Any, dtype: torch.dtype = torch.float32, device: Any = None
    ) -> Tensor:
        """(ratios · sides, 4) xyxy around 0."""
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        root = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()[:, None]  # of height / width
        widths, heights = (sides / root).flatten(), (sides * root).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def grid_anchors(self, grid_sizes: Any, strides: Any) -> list[Tensor]:  # noqa: ARG002 - torchvision's strides
        return super().grid_anchors(grid_sizes, [[stride, stride] for stride in self.strides])


def anchor_generator(config: SegmenterConfig) -> AnchorGenerator:
    """Anchors of every side and ratio at each level; torchvision's for its published weights."""
    proposals = config.proposals
    kind = ExactAnchors if proposals.exact_anchors and config.weights != "published" else AnchorGenerator
    return kind(tuple(tuple(sides) for sides in proposals.anchors), (tuple(proposals.ratios),) * len(proposals.anchors))


class RegionProposals(RegionProposalNetwork):
    """torchvision's, with a box loss to choose; of several processes each divides its losses by the mean number of
    sampled anchors.

    Args:
        box_beta: where the box loss turns from square to linear; 0: it is L1.
        arguments: those of `RegionProposalNetwork`.
    """

    def __init__(self, *arguments: Any, box_beta: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.box_beta = box_beta

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of the drawn anchors: mean binary cross-entropy, and the positives' box loss over the number of all drawn.

        Args:
            objectness: (a, 1) logits. pred_bbox_deltas: (a, 4).
            labels: (a,) an image, 1 where an anchor is positive, 0 negative, −1 neither.
            regression_targets: (a, 4) an image.
        """
        positive, negative = (torch.cat(drawn).nonzero()[:, 0] for drawn in self.fg_bg_sampler(labels))
        drawn = torch.cat([positive, negative])
        wanted = torch.cat(regression_targets)[positive]
        boxes = F.smooth_l1_loss(pred_bbox_deltas[positive], wanted, beta=self.box_beta, reduction="sum") / len(drawn)
        scores = F.binary_cross_entropy_with_logits(objectness.flatten()[drawn], torch.cat(labels)[drawn])
        weight = ranks.weight(len(drawn), device=scores.device)
        return weight * scores, weight * boxes

    def scored(self, images: ImageList, maps: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Proposals (p, 4) of each image with their scores (p,) in [0, 1]; torchvision hands on the boxes alone.

        Args:
            images: their sizes before and with padding. maps: the levels, (B, C, h, w).
        """
        levels = list(maps.values())
        objectness, deltas = self.head(levels)
        anchors = self.anchor_generator(images, levels)
        counts = [level[0].numel() for level in objectness]
        flat, flat_deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = self.box_coder.decode(flat_deltas.detach(), anchors).view(len(anchors), -1, 4)
        return self.filter_proposals(boxes, flat, images.image_sizes, counts)


def region_proposals(config: SegmenterConfig) -> RegionProposals:
    """The region proposal network over the pyramid of a segmenter."""
    proposals = config.proposals
    return proposal_network(
        anchor_generator(config),
        channels=config.pyramid.channels,
        sampled=proposals.sampled,
        before_nms=proposals.before_nms,
        after_nms=proposals.after_nms,
        nms=proposals.nms,
        box_beta=proposals.box_beta,
    )


def proposal_network(
    anchors: AnchorGenerator,
    *,
    channels: int,
    sampled: int,
    before_nms: list[int],
    after_nms: list[int],
    nms: float,
    box_beta: float,
) -> RegionProposals:
    """A region proposal network (Ren et al., 2015); an anchor is positive from an IoU of .7, negative below .3.

    Args:
        channels: of every level.
        sampled: anchors per image in the loss, at most half of them positive.
        before_nms: proposals kept by score in (training, test), per level. after_nms: per image.
        nms: IoU from which the lower of two proposals of a level is dropped.
        box_beta: see `RegionProposals`.
    """
    return RegionProposals(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=sampled,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), before_nms, strict=True)),
        post_nms_top_n=dict(zip(("training", "testing"), after_nms, strict=True)),
        nms_thresh=nms,
        box_beta=box_beta,
    )


def roi_pool(config: SegmenterConfig, *, cells: int) -> RoiPool:
    """RoIAlign over the pyramid, to cells × cells; for torchvision's published weights as they learned it."""
    heads, published = config.heads, config.weights == "published"
    return RoiPool(
        LEVEL_NAMES,
        strides=STRIDES,
        cells=cells,
        samples=TORCHVISION_SAMPLES if published else heads.samples,
        canonical_side=heads.canonical_side,
        aligned=heads.aligned and not published,
    )


def losses(model: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
    """The losses of a batch: objectness, RPN boxes, classes, boxes, masks."""
    device = next(model.parameters()).device
    batch = [sample.to(device) for sample in batch]
    inputs = [sample.image.float() / 255 for sample in batch]
    targets = [{"boxes": sample.boxes_xyxy, "labels": sample.labels, "masks": sample.masks} for sample in batch]
    return model(inputs, targets)


def detector(model: nn.Module, *, categories: list[int], config: SegmenterConfig) -> Detect:
    """See `Network.detector`; categories are those of the labels from 1."""
    device = next(model.parameters()).device

    def detect(entries: list[Json], inputs: list[Tensor]) -> list[Json]:
        outputs = model([image.to(device, non_blocking=True).float() / 255 for image in inputs])
        results: list[Json] = []
        for entry, image, output in zip(entries, inputs, outputs, strict=True):
            found = {name: value.cpu() for name, value in output.items()}
            results += coco_results(entry, tuple(image.shape[-2:]), found, categories, config)
        return results

    return detect


def coco_results(
    entry: Json,
    size: tuple[int, ...],
    found: dict[str, Tensor],
    categories: list[int],
    config: SegmenterConfig,
) -> list[Json]:
    """One image's detections in its own pixels. size: (height, width) of the resized image."""
    height, width = entry["height"], entry["width"]
    boxes = found["boxes"] * torch.tensor([width / size[1], height / size[0]] * 2)
    masks = None
    if config.mask_head:
        threshold = config.test.mask_threshold
        if config.weights == "published":  # their AP was measured so
            pasted = paste_masks_in_image(found["masks"], boxes, (height, width))
            masks = np.asarray((pasted[:, 0] >= threshold).numpy())
        else:
            masks = paste(found["masks"][:, 0], boxes, height=height, width=width, threshold=threshold)
    scored = (boxes, found["scores"], found["labels"] - 1)
    return as_results(int(entry["id"]), *scored, masks=masks, categories=categories)


def as_results(
    image_id: int,
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    masks: NDArray[np.bool_] | None,
    categories: list[int],
) -> list[Json]:
    """One image's detections as COCO results.

    Args:
        boxes: (d, 4) xyxy in pixels of the image. scores: (d,). labels: (d,) from 0.
        masks: (d, height, width), or none for boxes alone.
        categories: ids, by label.
    """
    results = []
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        result = {
            "image_id": image_id,
            "category_id": categories[int(labels[index])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(scores[index]),
        }
        if masks is not None:
            result["segmentation"] = encode_mask(masks[index])
        results.append(result)
    return results
