"""What the ResNets of published segmenters have in common: which one it is, how it reads its pixels, how it deforms."""

import dataclasses

import torch
from torch import Tensor

from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig

DEPTHS = {6: 50, 23: 101, 36: 152}  # of bottlenecks, by the blocks of the third stage
BASIC_DEPTHS = {2: 18, 6: 34}  # of blocks of two convolutions
CAFFE2 = "resnext101_32x8d"  # trained with Caffe2: its stride is in the 3 × 3 convolutions, but it reads BGR
CAFFE2_STD = [57.375, 57.120, 58.395]  # what BGR in [0, 255] is divided by
IMAGENET_MEAN = [103.530, 116.280, 123.675]  # of BGR, of Caffe's and Caffe2's models


def name(tensors: dict[str, Tensor], block: str, *, first_stage: int = 1) -> str:
    """torchvision's name of a ResNet or ResNeXt, by the shapes of its weights, such as resnext101_32x4d; of another
    network what it is not.

    Args:
        tensors: the file's. block: a template of the keys of its blocks' second convolutions, as in
            `backbone.layer{stage}.{block}.conv2.weight`. first_stage: its number.
    """
    keys = [block.format(stage=first_stage + 2, block=number) for number in range(max(DEPTHS) + 1)]
    blocks = sum(1 for key in keys if key in tensors)
    first = tensors.get(block.format(stage=first_stage, block=0))
    if first is None or first.ndim != 4 or not blocks:
        return "a backbone that is no ResNet"
    bottlenecks = block.replace("conv2", "conv3").format(stage=first_stage, block=0) in tensors
    depths = DEPTHS if bottlenecks else BASIC_DEPTHS
    if blocks not in depths:
        known = ", ".join(f"{count} in ResNet-{depth}" for count, depth in depths.items())
        return f"a ResNet of a depth that is not known here ({blocks} blocks in the third stage; {known})"
    width, group = first.shape[:2]
    plain = width == group
    return f"resnet{depths[blocks]}" if plain else f"resnext{depths[blocks]}_{width // group}x{group}d"


def check(config: SegmenterConfig, found: str, *, source: str, deformable: bool) -> None:
    """Refuse a file of another backbone than the segmenter's, in a sentence instead of hundreds of keys.

    Raises:
        WeightsError.
    """
    check_name(config, found, source=source)
    if deformable != config.dcn:
        has = "has" if deformable else "has no"
        raise WeightsError(
            f"{source} {has} deformable convolutions; set segmenter.dcn={str(deformable).lower()}, or give another file"
        )


def check_name(config: SegmenterConfig, found: str, *, source: str) -> None:
    """The same of any backbone that has a name of torchvision's or timm's.

    Raises:
        WeightsError.
    """
    wanted = config.pyramid.name.partition(".")[0]  # of timm's names, what comes before the weights' tag
    if config.pyramid.kind == "tiny":
        raise WeightsError(
            f"{source} is a model on {found}, but segmenter={config.name} runs on a small network of ours; choose the "
            "segmenter of that backbone"
        )
    if found != wanted:
        raise WeightsError(
            f"{source} is a model on {found}, but segmenter={config.name} runs on {wanted}; "
            "choose the segmenter of that backbone, or set segmenter.pyramid.name"
        )


def entering(
    config: SegmenterConfig, *, bgr: bool, mean: list[float], std: list[float], stride_in_1x1: bool
) -> SegmenterConfig:
    """The config of a backbone that learned from pixels in [0, 255].

    Args:
        bgr: their order; then the first convolution is turned round by `rgb`.
        mean, std: of that order; what was taken from the pixels, and what they were then divided by.
        stride_in_1x1: see `PyramidConfig`.
    """
    mean, spread = ([value / 255 for value in (values[::-1] if bgr else values)] for values in (mean, std))
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
