"""MMDetection's SOLOv2s (R-50, R-101-DCN and X-101-DCN, 3×) as ours.

The heads are the same layer by layer, with group norm between convolution and ReLU; category 0 is COCO's first and
there is no background. In the deformable ones the last convolution of the mask features, 1 × 1, is deformable as well.
See `mmdetection` for what holds of all of its models.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import mmdetection, resnets
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule, filled
from mal.segmenters.published.mmdetection import BLOCK, BODY, STEM
from mal.segmenters.published.reading import reading, said
from mal.segmenters.solov2 import build

CLASSES = "mask_head.conv_cls.weight"
WAY_OUT = (
    "give a SOLOv2 of MMDetection's zoo (not one of the light ones), and leave the segmenter's settings as they are"
)
BRANCHES = {"kernel_branch": "kernel_convs", "category_branch": "cls_convs"}

check = mmdetection.check


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes`, `backbone`, `deformable`, and what its config has `said` (see
    `reading`)."""
    return {
        "classes": len(weights.tensors[CLASSES]),
        "backbone": resnets.name(weights.tensors, BLOCK),
        "deformable": any("offset" in key for key in weights.tensors),
        "said": said(weights.config),
    }


def fitted(config: SegmenterConfig, facts: dict[str, Any]) -> SegmenterConfig:
    """The config with which our parts do at test time what MMDetection does."""
    config = reading(facts, source=facts["file"]).fitted(config)
    return dataclasses.replace(config, grid=dataclasses.replace(config.grid, deform_out=facts["deformable"]))


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict. config: fitted.

    Raises:
        WeightsError: they are another model's.
    """
    found = reading(facts, source=weights.source)
    return filled(
        lambda: build(config, classes=facts["classes"], load=False),
        dataclasses.replace(weights, tensors=found.for_rgb(resnets.ours_deformed(weights.tensors), STEM)),
        rules=RULES,
        model=f"segmenter {config.name}",
        way_out=WAY_OUT,
    )


def _tower(match: re.Match[str]) -> str:
    """Convolution, norm and ReLU in turn."""
    layer, part = divmod(int(match[2]), 3)
    return f"mask_head.{BRANCHES[match[1]]}.{layer}.{_part(part, match[3])}"


def _level(match: re.Match[str]) -> str:
    """Convolution, norm, ReLU and upsampling in turn; the finest level is not upsampled."""
    layer, part = divmod(int(match[2]), 4)
    return f"mask_head.mask_feature_head.convs_all_levels.{match[1]}.conv{layer}.{_part(part, match[3])}"


def _last(match: re.Match[str]) -> str:
    return f"mask_head.mask_feature_head.conv_pred.{_part(int(match[1]), match[2])}"


def _part(part: int, parameter: str) -> str:
    return f"{('conv', 'gn')[part]}.{parameter.replace('sampling.', 'conv_offset.')}"


RULES = (
    *BODY,
    Rule(r"grid_head\.(kernel_branch|category_branch)\.(\d+)\.(.+)", _tower),
    Rule(r"grid_head\.kernel\.(.+)", r"mask_head.conv_kernel.\1"),
    Rule(r"grid_head\.category\.(.+)", r"mask_head.conv_cls.\1"),
    Rule(r"mask_features\.levels\.(\d)\.(\d+)\.(.+)", _level),
    Rule(r"mask_features\.out\.(\d)\.(.+)", _last),
)
