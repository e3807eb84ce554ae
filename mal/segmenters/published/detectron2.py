"""The Mask R-CNNs with FPN of detectron2's zoo (R-50, R-101, X-101 32x8d on COCO) as ours.

Their ResNets read BGR in [0, 255] less its mean, and halve in the first convolution of a bottleneck; the ResNeXt, whose
BGR is also divided by its spread, in the second. Background is the last class, without box or mask. RoIAlign and
anchors are MMDetection's (see `mmdetection`). detectron2 resizes with antialiasing, as we do.

Converted from the layout in detectron2's source (see `zoo` for what that is worth).
"""

import dataclasses
from typing import Any

from torch import Tensor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import resnets
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule, background_first, filled, with_background
from mal.segmenters.published.reading import Reading
from mal.segmenters.rcnn.mask_rcnn import build

BODY = "backbone.bottom_up"
STEM = f"{BODY}.stem.conv1.weight"
BLOCK = BODY + ".res{stage}.{block}.conv2.weight"
CLASSES = "roi_heads.box_predictor.cls_score.weight"
UNREAD = r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d"  # of older files; constants
WAY_OUT = "give a Mask R-CNN with FPN of detectron2's zoo, and leave the segmenter's settings as they are"

RULES = (
    Rule(r"backbone\.body\.model\.conv1\.(.+)", rf"{BODY}.stem.conv1.\1"),
    Rule(r"backbone\.body\.model\.bn1\.(.+)", rf"{BODY}.stem.conv1.norm.\1"),
    Rule(r"backbone\.body\.model\.layer(\d)\.(.+)", lambda match: f"{BODY}.res{int(match[1]) + 1}.{_block(match[2])}"),
    Rule(
        r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.+)",
        lambda match: f"backbone.fpn_lateral{int(match[1]) + 2}.{match[2]}",
    ),
    Rule(
        r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.+)",
        lambda match: f"backbone.fpn_output{int(match[1]) + 2}.{match[2]}",
    ),
    Rule(r"rpn\.head\.conv\.0\.0\.(.+)", r"proposal_generator.rpn_head.conv.\1"),
    Rule(r"rpn\.head\.cls_logits\.(.+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    Rule(r"rpn\.head\.bbox_pred\.(.+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    Rule(r"roi_heads\.box_head\.fc6\.(.+)", r"roi_heads.box_head.fc1.\1"),
    Rule(r"roi_heads\.box_head\.fc7\.(.+)", r"roi_heads.box_head.fc2.\1"),
    Rule(r"(roi_heads\.box_predictor\.cls_score\..+)", r"\1", background_first),
    Rule(r"(roi_heads\.box_predictor\.bbox_pred\..+)", r"\1", with_background(4)),
    Rule(
        r"roi_heads\.mask_head\.(\d)\.0\.(.+)",
        lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}",
    ),
    Rule(r"roi_heads\.mask_predictor\.conv5_mask\.(.+)", r"roi_heads.mask_head.deconv.\1"),
    Rule(r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.+)", r"roi_heads.mask_head.predictor.\1", with_background(1)),
)


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes` (background not counted) and `backbone`."""
    backbone = resnets.name(weights.tensors, BLOCK, first_stage=2)  # the stem is the first
    return {"classes": len(weights.tensors[CLASSES]) - 1, "backbone": backbone}


def check(config: SegmenterConfig, facts: dict[str, Any], *, source: str) -> None:
    """Refuse a file of another backbone in a sentence.

    Args:
        source: the file, after the setting that named it.

    Raises:
        WeightsError.
    """
    resnets.check(config, facts["backbone"], source=source, deformable=False)


def fitted(config: SegmenterConfig, facts: dict[str, Any]) -> SegmenterConfig:
    """The config with which our parts do at test time what detectron2 does."""
    caffe2 = facts["backbone"] == resnets.CAFFE2
    std = resnets.CAFFE2_STD if caffe2 else [1.0, 1.0, 1.0]
    return resnets.entering(
        Reading().fitted_rois(config), bgr=True, mean=resnets.IMAGENET_MEAN, std=std, stride_in_1x1=not caffe2
    )


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict. config: fitted.

    Raises:
        WeightsError: they are another model's.
    """
    return filled(
        lambda: build(config, classes=facts["classes"], load=False),
        dataclasses.replace(weights, tensors=resnets.rgb(weights.tensors, STEM)),
        rules=RULES,
        model=f"segmenter {config.name}",
        way_out=WAY_OUT,
        unread=UNREAD,
    )


def _block(rest: str) -> str:
    """A key within a stage, `block.layer.parameter`: a norm belongs to its convolution, downsampling is a shortcut."""
    block, layer, parameter = rest.split(".", 2)
    if layer == "downsample":
        number, parameter = parameter.split(".", 1)
        return f"{block}.shortcut.{'norm.' if number == '1' else ''}{parameter}"
    norm = "norm." if layer.startswith("bn") else ""
    return f"{block}.conv{layer[-1]}.{norm}{parameter}"
