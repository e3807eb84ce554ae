"""How a model of MMDetection reads its images and RoIs: what the config inside its file says, or else the file's name.

MMDetection writes the resolved config beside the weights, as text: version 3 as `meta["cfg"]`, version 2 as
`meta["config"]`. What it does not say follows from the publisher's file name (`caffe`: BGR less its mean, and a
bottleneck halves in its first convolution), or from a backbone that was published in one way alone. Nothing is assumed
of a file that says neither.

MMDetection's `…_caffe_fpn_poly_1x_coco_v1` config, made to be compared with Detectron, takes RoIAlign from before it
was aligned, with 2 × 2 samples a cell. One such Mask R-CNN was published (model_zoo.md, training speed benchmark):
`mask_rcnn_r50_caffe_fpn_poly_1x_coco_no_aug_compare_20200518-10127928.pth`. No file in `zoo.ZOO` is one.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import resnets

IS = r"['\"]?\s*[=:]\s*"  # dict(key=value) or {'key': value}
STYLE = rf"\bstyle{IS}['\"](caffe|pytorch)['\"]"
TO_RGB = rf"\b(?:bgr_)?to_rgb{IS}(True|False)"
TRIPLE = r"[\[(]\s*([-+\d.e]+)\s*,\s*([-+\d.e]+)\s*,\s*([-+\d.e]+)\s*,?\s*[\])]"
ROI_ALIGN = r"(?:dict\(|\{)([^(){}]*['\"]RoIAlign['\"][^(){}]*)[)}]"
VERSION_1 = r"Legacy(?:AnchorGenerator|DeltaXYWHBBoxCoder)|\banchor_scales\b"  # boxes that end a pixel farther
PIXELS = ("bgr", "mean", "std")
UNALIGNED = ("coco_v1", "no_aug_compare")  # in the names of files
SEVERAL = "mmdetection_mask_rcnn"  # the layout published with several ways of reading; all others take ImageNet's RGB
NAMED = r"^mask[-_]rcnn[-_].*fpn"  # as MMDetection names its files


@dataclass(frozen=True)
class Reading:
    """What a model expects.

    Attributes:
        bgr: whether its first convolution takes BGR.
        mean, std: of that order of channels in [0, 255].
        stride_in_1x1: see `PyramidConfig`.
        samples, aligned: of RoIAlign, see `HeadConfig`.
    """

    bgr: bool = False
    mean: list[float] = field(default_factory=lambda: resnets.IMAGENET_MEAN[::-1])
    std: list[float] = field(default_factory=lambda: resnets.CAFFE2_STD[::-1])
    stride_in_1x1: bool = False
    samples: int = 0
    aligned: bool = True

    def fitted(self, config: SegmenterConfig) -> SegmenterConfig:
        """The config whose images enter as this says."""
        if self == Reading(samples=self.samples, aligned=self.aligned):
            return config  # as ours do
        return resnets.entering(config, bgr=self.bgr, mean=self.mean, std=self.std, stride_in_1x1=self.stride_in_1x1)

    def fitted_rois(self, config: SegmenterConfig) -> SegmenterConfig:
        """The config whose RoIs are read as this says, with MMDetection's anchors."""
        heads = dataclasses.replace(config.heads, samples=self.samples, aligned=self.aligned)
        proposals = dataclasses.replace(config.proposals, exact_anchors=True)
        return dataclasses.replace(config, heads=heads, proposals=proposals)

    def for_rgb(self, tensors: dict[str, Tensor], stem: str) -> dict[str, Tensor]:
        """The weights of a network that takes RGB. stem: the key of its first convolution."""
        return resnets.rgb(tensors, stem) if self.bgr else tensors


def said(text: str) -> dict[str, Any]:
    """What a config's text says, as JSON; where it says a thing twice, the last holds, as in an inherited config.

    Returns:
        style: caffe | pytorch. bgr: bool. mean, std: three numbers. rois: [samples, aligned] of each RoIAlign.
        version_1: it is of MMDetection 1. What the text does not say is not there.
    """
    found: dict[str, Any] = {}
    if styles := re.findall(STYLE, text):
        found["style"] = styles[-1]
    if turned := re.findall(TO_RGB, text):
        found["bgr"] = turned[-1] == "False"
    for name in ("mean", "std"):
        if triples := re.findall(rf"\b{name}{IS}{TRIPLE}", text):
            found[name] = [float(number) for number in triples[-1]]
    if rois := [_roi(arguments) for arguments in re.findall(ROI_ALIGN, text)]:
        found["rois"] = rois
    if re.search(VERSION_1, text):
        found["version_1"] = True
    return found


def reading(facts: dict[str, Any], *, source: str) -> Reading:
    """How a model reads its images and RoIs.

    Args:
        facts: `file` (its name), `layout`, `backbone`, and `said` of its config.
        source: the file, for the error.

    Raises:
        WeightsError: neither the config inside nor the file's name tells, or what it tells is not known here.
    """
    told = facts["said"]
    if told.get("version_1"):
        raise WeightsError(
            f"{source} is a model of MMDetection 1, whose boxes end a pixel farther and whose anchors lie elsewhere; "
            "give one that MMDetection 2 or 3 trained"
        )
    pixels = {name: told[name] for name in PIXELS if name in told}
    style = told.get("style") or _style(facts, certain=facts["layout"] != SEVERAL or len(pixels) == len(PIXELS))
    if style is None:
        raise WeightsError(
            f"{source} does not tell how its images enter, as RGB or in Caffe's style as BGR: no config is inside "
            "(meta), and its name is none of MMDetection's; give the file as its publisher named it "
            "(mask_rcnn_r50_fpn_… or mask_rcnn_r50_caffe_fpn_…), or with the config that MMDetection saved in it"
        )
    found = Reading(stride_in_1x1=style == "caffe", **_rois(facts, source=source))
    if facts["backbone"] == resnets.CAFFE2:
        found = dataclasses.replace(found, bgr=True, mean=resnets.IMAGENET_MEAN, std=resnets.CAFFE2_STD)
    elif style == "caffe":
        found = dataclasses.replace(found, bgr=True, mean=resnets.IMAGENET_MEAN, std=[1.0, 1.0, 1.0])
    return dataclasses.replace(found, **pixels) if len(pixels) == len(PIXELS) else found


def _style(facts: dict[str, Any], *, certain: bool) -> str | None:
    """caffe or pytorch, where the config does not name it; None where nothing tells. certain: it is no Caffe's."""
    if "caffe" in facts["file"]:
        return "caffe"
    resnext = facts["backbone"].startswith("resnext")  # none was Caffe's
    return "pytorch" if certain or resnext or re.search(NAMED, facts["file"]) else None


def _roi(arguments: str) -> list[Any]:
    samples = re.search(rf"\b(?:sampling_ratio|sample_num){IS}(\d+)", arguments)
    aligned = re.search(rf"\baligned{IS}(True|False)", arguments)
    return [int(samples[1]) if samples else 0, aligned is None or aligned[1] == "True"]


def _rois(facts: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Of boxes and masks, which are read alike here."""
    named = [2, False] if any(mark in facts["file"] for mark in UNALIGNED) else [0, True]
    last = facts["said"].get("rois", [named])[-2:]
    if last[0] != last[-1]:
        raise WeightsError(
            f"{source} reads RoIs in one way for boxes and in another for masks (RoIAlign's samples and alignment: "
            f"{last[0]} and {last[1]}), which no segmenter here does; give another model"
        )
    return {"samples": last[-1][0], "aligned": last[-1][1]}
