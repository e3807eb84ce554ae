"""What the ResNets of published segmenters have in common: which one it is, how it reads its pixels, how it deforms."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig

DEPTHS = {6: 50, 23: 101, 36: 152}  # by the blocks of the third stage
CAFFE2 = "resnext101_32x8d"  # trained with Caffe2: its stride is in the 3 × 3 convolutions, but it reads BGR
CAFFE2_STD = [57.375, 57.120, 58.395]  # what BGR in [0, 255] is divided by
IMAGENET_MEAN = [103.530, 116.280, 123.675]  # of BGR, of Caffe's and Caffe2's models


def name(tensors: dict[str, Tensor], block: str, *, first_stage: int = 1) -> str:
    """torchvision's name of a ResNet or ResNeXt, by the shapes of its weights, such as resnext101_32x4d.

    Args:
        tensors: the file's. block: a template of the keys of its bottlenecks' 3 × 3 convolutions, as in
            `backbone.layer{stage}.{block}.conv2.weight`. first_stage: its number.
    """
    keys = [block.format(stage=first_stage + 2, block=number) for number in range(max(DEPTHS) + 1)]
    blocks = sum(1 for key in keys if key in tensors)
    first = tensors.get(block.format(stage=first_stage, block=0))
    if first is None or first.ndim != 4 or blocks not in DEPTHS:
        return f"a network whose third stage has {blocks} bottlenecks"
    width, group = first.shape[:2]
    plain = width == group
    return f"resnet{DEPTHS[blocks]}" if plain else f"resnext{DEPTHS[blocks]}_{width // group}x{group}d"


def check(config: SegmenterConfig, found: str, *, file: Path, deformable: bool) -> None:
    """Refuse a file of another backbone than the segmenter's, in a sentence instead of hundreds of keys.

    Raises:
        WeightsError.
    """
    check_name(config, found, file=file)
    if deformable != config.dcn:
        has = "has" if deformable else "has no"
        raise WeightsError(
            f"segmenter.checkpoint={file} {has} deformable convolutions; set "
            f"segmenter.dcn={str(deformable).lower()}, or give another file"
        )


def check_name(config: SegmenterConfig, found: str, *, file: Path) -> None:
    """The same of any backbone that has a name of torchvision's or timm's.

    Raises:
        WeightsError.
    """
    wanted = config.pyramid.name.partition(".")[0]  # of timm's names, what comes before the weights' tag
    if found != wanted:
        raise WeightsError(
            f"segmenter.checkpoint={file} is a model on {found}, but segmenter={config.name} runs on {wanted}; "
            "choose the segmenter of that backbone, or set segmenter.pyramid.name"
        )


def caffe(config: SegmenterConfig, *, std: list[float], stride_in_1x1: bool) -> SegmenterConfig:
    """The config of a backbone that learned from BGR in [0, 255]; its first convolution is turned round by `rgb`.

    Args:
        std: what BGR was divided by.
        stride_in_1x1: see `PyramidConfig`.
    """
    mean, spread = ([value / 255 for value in reversed(values)] for values in (IMAGENET_MEAN, std))
    pyramid = dataclasses.replace(config.pyramid, mean=mean, std=spread, stride_in_1x1=stride_in_1x1)
    return dataclasses.replace(config, pyramid=pyramid)


def rgb(tensors: dict[str, Tensor], stem: str) -> dict[str, Tensor]:
    """The same weights for RGB: the first convolution's input channels the other way round. stem: its key."""
    return {**tensors, stem: tensors[stem].flip(1)} if stem in tensors else tensors


def ours_deformed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Deformable convolutions as ours compute them.

    Ours weigh each tap by 2 · sigmoid (see `DeformableConv`), version 2 as published by sigmoid: its weights are
    halved. Version 1 does not weigh taps, which is 2 · sigmoid(0): its offsets get zeros beside them. Their order is
    the same everywhere: y and x of each tap in turn.
    """
    changed = {key.replace("conv2_offset.", "conv2.conv_offset."): value for key, value in tensors.items()}
    for key, offset in list(changed.items()):
        if not key.endswith("conv_offset.weight"):
            continue
        convolution, bias = key.replace("conv_offset.weight", "weight"), key.removesuffix("weight") + "bias"
        if convolution not in changed or bias not in changed:
            continue
        taps = changed[convolution].shape[-2] * changed[convolution].shape[-1]
        if len(offset) == 3 * taps:
            changed[convolution] = changed[convolution] / 2
        elif len(offset) == 2 * taps:
            changed[key] = torch.cat([offset, offset.new_zeros(taps, *offset.shape[1:])])
            changed[bias] = torch.cat([changed[bias], changed[bias].new_zeros(taps)])
    return changed
