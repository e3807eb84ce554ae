"""MMDetection's Mask R-CNNs (COCO and LVIS v1; ResNet and ResNeXt with FPN, plain and deformable) as ours.

The network is the same in other words: background last instead of first, one box and mask less, sigmoid instead of
2 · sigmoid in deformable convolutions. What its test does and torchvision's parts do not by themselves is set by
`fitted`: RoIAlign with about one sample per pixel, anchors that are not rounded. Its ResNets of Caffe's style and its
ResNeXt-101 32x8d take BGR, which is turned round; how a file's model reads its images says `reading`.

One difference stays: images are resized with antialiasing, which for an image that is enlarged, as nearly all of COCO's
are, changes nothing but rounding. Converted from the layout in MMDetection's source (see `zoo` for what that
is worth).
"""

import dataclasses
from typing import Any

from torch import Tensor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import resnets
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule, background_first, filled, with_background
from mal.segmenters.published.reading import reading, said
from mal.segmenters.rcnn.mask_rcnn import build

STEM = "backbone.conv1.weight"
BLOCK = "backbone.layer{stage}.{block}.conv2.weight"
CLASSES = "roi_head.bbox_head.fc_cls.weight"
WAY_OUT = "give a Mask R-CNN with FPN of MMDetection's zoo, and leave the segmenter's settings as they are"

BODY = (
    Rule(r"backbone\.body\.model\.(.+)\.sampling\.(.+)", r"backbone.\1.conv_offset.\2"),
    Rule(r"backbone\.body\.model\.(.+)", r"backbone.\1"),
    Rule(r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
    Rule(r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.+)", r"neck.fpn_convs.\1.conv.\2"),
)
PROPOSALS = (
    Rule(r"rpn\.head\.conv\.0\.0\.(.+)", r"rpn_head.rpn_conv.\1"),
    Rule(r"rpn\.head\.cls_logits\.(.+)", r"rpn_head.rpn_cls.\1"),
    Rule(r"rpn\.head\.bbox_pred\.(.+)", r"rpn_head.rpn_reg.\1"),
)
HEADS = (
    Rule(r"roi_heads\.box_head\.fc6\.(.+)", r"roi_head.bbox_head.shared_fcs.0.\1"),
    Rule(r"roi_heads\.box_head\.fc7\.(.+)", r"roi_head.bbox_head.shared_fcs.1.\1"),
    Rule(r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_head.bbox_head.fc_cls.\1", background_first),
    Rule(r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_head.bbox_head.fc_reg.\1", with_background(4)),
    Rule(r"roi_heads\.mask_head\.(\d)\.0\.(.+)", r"roi_head.mask_head.convs.\1.conv.\2"),
    Rule(r"roi_heads\.mask_predictor\.conv5_mask\.(.+)", r"roi_head.mask_head.upsample.\1"),
    Rule(r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.+)", r"roi_head.mask_head.conv_logits.\1", with_background(1)),
)


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes` (background not counted), `backbone`, `deformable`, and what its
    config has `said` (see `reading`)."""
    backbone = resnets.name(weights.tensors, BLOCK)
    return {
        "classes": len(weights.tensors[CLASSES]) - 1,
        "backbone": backbone,
        "deformable": any("offset" in key for key in weights.tensors if key.startswith("backbone.")),
        "said": said(weights.config),
    }


def check(config: SegmenterConfig, facts: dict[str, Any], *, source: str) -> None:
    """Refuse a file of another backbone, or one that does not tell how it reads its images, in a sentence.

    Args:
        source: the file, after the setting that named it.

    Raises:
        WeightsError.
    """
    resnets.check(config, facts["backbone"], source=source, deformable=facts.get("deformable", False))
    reading(facts, source=source)


def fitted(config: SegmenterConfig, facts: dict[str, Any]) -> SegmenterConfig:
    """The config with which our parts do at test time what MMDetection does."""
    found = reading(facts, source=facts["file"])
    return found.fitted(found.fitted_rois(config))


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict.

    Args:
        config: fitted.

    Raises:
        WeightsError: they are another model's.
    """
    found = reading(facts, source=weights.source)
    return filled(
        lambda: build(config, classes=facts["classes"], load=False),
        dataclasses.replace(weights, tensors=found.for_rgb(resnets.ours_deformed(weights.tensors), STEM)),
        rules=(*BODY, *PROPOSALS, *HEADS),
        model=f"segmenter {config.name}",
        way_out=WAY_OUT,
    )
