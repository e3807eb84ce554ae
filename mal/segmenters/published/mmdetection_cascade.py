"""Cascade Mask R-CNNs on ConvNeXt, of ConvNeXt's authors (S, B, …) and of MMDetection's zoo (S), as ours.

Both are MMDetection's model; the backbones differ in three names. See `mmdetection` for what holds of all of
its models. MMDetection's own ConvNeXt adds 1e-5 to the variances of the norms between stages where the authors', timm's
and so ours add 1e-6.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import mmdetection
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule, background_first, filled, with_background
from mal.segmenters.published.mmdetection import BODY, PROPOSALS
from mal.segmenters.published.reading import reading, said
from mal.segmenters.rcnn.cascade import build

STEM = "backbone.downsample_layers.0.0.weight"
CLASSES = "roi_head.bbox_head.0.fc_cls.weight"
BOXES = "roi_head.bbox_head.0.fc_reg.weight"
WAY_OUT = "give a Cascade Mask R-CNN on ConvNeXt, and leave the segmenter's settings as they are"
UNPUBLISHED = r"backbone\.body\.model\.head\.norm\..+"  # of ImageNet's classifier; a pyramid does not read it
SIZES = {  # width and depth of the third stage → timm's name
    (96, 9): "convnext_tiny",
    (96, 27): "convnext_small",
    (128, 27): "convnext_base",
    (192, 27): "convnext_large",
    (256, 27): "convnext_xlarge",
}
MMDETECTIONS = {"depthwise_conv": "dwconv", "pointwise_conv1": "pwconv1", "pointwise_conv2": "pwconv2"}
MODEL = r"backbone\.body\.model\."
BLOCK = MODEL + r"stages\.(\d)\.blocks\.(\d+)\."
THEIR_BLOCK = r"backbone.stages.\1.\2."
STAGE = r"roi_heads\.stages\.(\d)\."

RULES = (
    Rule(MODEL + r"stem\.(.+)", r"backbone.downsample_layers.0.\1"),
    Rule(MODEL + r"stages\.(\d)\.downsample\.(.+)", r"backbone.downsample_layers.\1.\2"),
    Rule(BLOCK + r"conv_dw\.(.+)", THEIR_BLOCK + r"dwconv.\3"),
    Rule(BLOCK + r"mlp\.fc(\d)\.(.+)", THEIR_BLOCK + r"pwconv\3.\4"),
    Rule(BLOCK + r"(gamma|norm\..+)", THEIR_BLOCK + r"\3"),
    Rule(r"backbone\.map_norms\.(\d)\.(.+)", r"backbone.norm\1.\2"),
    *BODY,
    *PROPOSALS,
    Rule(STAGE + r"box_head\.([0-3])\.0\.(.+)", r"roi_head.bbox_head.\1.shared_convs.\2.conv.\3"),
    Rule(STAGE + r"box_head\.([0-3])\.1\.(.+)", r"roi_head.bbox_head.\1.shared_convs.\2.bn.\3"),
    Rule(STAGE + r"box_head\.5\.(.+)", r"roi_head.bbox_head.\1.shared_fcs.0.\2"),
    Rule(STAGE + r"box_predictor\.logits\.(.+)", r"roi_head.bbox_head.\1.fc_cls.\2", background_first),
    Rule(STAGE + r"box_predictor\.deltas\.(.+)", r"roi_head.bbox_head.\1.fc_reg.\2"),
    Rule(STAGE + r"mask_head\.(\d)\.0\.(.+)", r"roi_head.mask_head.\1.convs.\2.conv.\3"),
    Rule(STAGE + r"mask_predictor\.conv5_mask\.(.+)", r"roi_head.mask_head.\1.upsample.\2"),
    Rule(STAGE + r"mask_predictor\.mask_fcn_logits\.(.+)", r"roi_head.mask_head.\1.conv_logits.\2", with_background(1)),
)

check = mmdetection.check


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes` (background not counted), `backbone`, `box_per_class`, and what its
    config has `said` (see `reading`)."""
    tensors = weights.tensors
    stem = tensors.get("backbone.downsample_layers.0.0.bias")
    third = {match[1] for key in tensors if (match := re.match(r"backbone\.stages\.2\.(\d+)\.", key))}
    size = (0 if stem is None else len(stem), len(third))
    unknown = f"no ConvNeXt that is known here ({size[0]} channels, {size[1]} blocks in the third stage)"
    boxes = tensors.get(BOXES)
    return {
        "classes": len(tensors[CLASSES]) - 1,
        "backbone": SIZES.get(size, unknown),
        "box_per_class": boxes is not None and len(boxes) > 4,
        "said": said(weights.config),
    }


def fitted(config: SegmenterConfig, facts: dict[str, Any]) -> SegmenterConfig:
    """The config with which our parts do at test time what MMDetection does."""
    cascade = dataclasses.replace(config.cascade, box_per_class=facts["box_per_class"])
    found = reading(facts, source=facts["file"])
    return dataclasses.replace(found.fitted(found.fitted_rois(config)), cascade=cascade)


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict. config: fitted.

    Raises:
        WeightsError: they are another model's.
    """
    tensors = {_authors(key): value for key, value in weights.tensors.items()}
    found = reading(facts, source=weights.source)
    return filled(
        lambda: build(config, classes=facts["classes"], load=False),
        dataclasses.replace(weights, tensors=found.for_rgb(tensors, STEM)),
        rules=RULES,
        model=f"segmenter {config.name}",
        way_out=WAY_OUT,
        unpublished=UNPUBLISHED,
    )


def _authors(key: str) -> str:
    for theirs, authors in MMDETECTIONS.items():
        key = key.replace(f".{theirs}.", f".{authors}.")
    return key
