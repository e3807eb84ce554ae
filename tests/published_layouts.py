"""State dicts as publishers' programs would save them, written from their sources' module names and shapes by rule."""

from collections.abc import Iterator

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def drawn(shapes: Shapes, seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    """Random weights of these shapes; variances positive."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * scale
        tensors[key] = value.abs() + 0.5 if key.endswith("running_var") else value
    return tensors


def hollow(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of these shapes that take no memory: all zero."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def affine(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int, *, counted: bool) -> Shapes:
    shapes = affine(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return shapes | ({f"{name}.num_batches_tracked": ()} if counted else {})


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": shape} | ({f"{name}.bias": (shape[0],)} if bias else {})


def bottlenecks(depth: int, *, groups: int, group_width: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(stage from 1, block, channels in, width, channels out) of a ResNet or ResNeXt."""
    below = 64
    for stage, count in enumerate(BLOCKS[depth], start=1):
        planes = 64 * 2 ** (stage - 1)
        width = planes * groups * group_width // 64
        for block in range(count):
            yield stage, block, below, width, 4 * planes
            below = 4 * planes


def mmdetection_body(
    depth: int, *, groups: int = 1, group_width: int = 64, offsets: int = 0, offset_name: str = "conv2.conv_offset"
) -> Shapes:
    """mmdet/models/backbones/resnet.py and resnext.py; offsets: channels of the deformable convolutions' offsets."""
    shapes = layer("backbone.conv1", 64, 3, 7, 7, bias=False) | batch_norm("backbone.bn1", 64, counted=True)
    for stage, block, below, width, out in bottlenecks(depth, groups=groups, group_width=group_width):
        at = f"backbone.layer{stage}.{block}"
        shapes |= layer(f"{at}.conv1", width, below, 1, 1, bias=False) | batch_norm(f"{at}.bn1", width, counted=True)
        shapes |= layer(f"{at}.conv2", width, width // groups, 3, 3, bias=False)
        if offsets and stage > 1:
            shapes |= layer(f"{at}.{offset_name}", offsets, width, 3, 3)
        shapes |= batch_norm(f"{at}.bn2", width, counted=True)
        shapes |= layer(f"{at}.conv3", out, width, 1, 1, bias=False) | batch_norm(f"{at}.bn3", out, counted=True)
        if block == 0:
            shapes |= layer(f"{at}.downsample.0", out, below, 1, 1, bias=False)
            shapes |= batch_norm(f"{at}.downsample.1", out, counted=True)
    return shapes


def mmdetection_neck(widths: tuple[int, ...] = (256, 512, 1024, 2048)) -> Shapes:
    """mmdet/models/necks/fpn.py, without norms."""
    shapes: Shapes = {}
    for level, width in enumerate(widths):
        shapes |= layer(f"neck.lateral_convs.{level}.conv", 256, width, 1, 1)
        shapes |= layer(f"neck.fpn_convs.{level}.conv", 256, 256, 3, 3)
    return shapes


def mmdetection_proposals() -> Shapes:
    """mmdet/models/dense_heads/rpn_head.py with three anchors a place."""
    return (
        layer("rpn_head.rpn_conv", 256, 256, 3, 3)
        | layer("rpn_head.rpn_cls", 3, 256, 1, 1)
        | layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    )


def mmdetection_mask_head(at: str, classes: int) -> Shapes:
    """mmdet/models/roi_heads/mask_heads/fcn_mask_head.py."""
    shapes: Shapes = {}
    for number in range(4):
        shapes |= layer(f"{at}.convs.{number}.conv", 256, 256, 3, 3)
    return shapes | layer(f"{at}.upsample", 256, 256, 2, 2) | layer(f"{at}.conv_logits", classes, 256, 1, 1)


def mmdetection_mask_rcnn(body: Shapes, classes: int) -> Shapes:
    """configs/_base_/models/mask-rcnn_r50_fpn.py."""
    at = "roi_head.bbox_head"
    heads = layer(f"{at}.fc_cls", classes + 1, 1024) | layer(f"{at}.fc_reg", 4 * classes, 1024)
    heads |= layer(f"{at}.shared_fcs.0", 1024, 256 * 7 * 7) | layer(f"{at}.shared_fcs.1", 1024, 1024)
    heads |= mmdetection_mask_head("roi_head.mask_head", classes)
    return body | mmdetection_neck() | mmdetection_proposals() | heads


def mmdetection_solov2(body: Shapes, classes: int, *, deformable: bool) -> Shapes:
    """mmdet/models/dense_heads/solov2_head.py; every ConvModule with a norm has no bias."""

    def module(name: str, out: int, below: int, side: int) -> Shapes:
        shapes = layer(f"{name}.conv", out, below, side, side, bias=False) | affine(f"{name}.gn", out)
        return shapes | (layer(f"{name}.conv.conv_offset", 3 * side**2, below, side, side) if deformable else {})

    heads: Shapes = {}
    for number in range(4):
        heads |= module(f"mask_head.cls_convs.{number}", 512, 512 if number else 256, 3)
        heads |= module(f"mask_head.kernel_convs.{number}", 512, 512 if number else 258, 3)
    heads |= layer("mask_head.conv_cls", classes, 512, 3, 3) | layer("mask_head.conv_kernel", 256, 512, 3, 3)
    features = "mask_head.mask_feature_head"
    for level in range(4):
        for number in range(max(1, level)):
            below = 128 if number else 256 + 2 * (level == 3)
            heads |= module(f"{features}.convs_all_levels.{level}.conv{number}", 128, below, 3)
    return body | mmdetection_neck() | heads | module(f"{features}.conv_pred", 256, 128, 1)


def detectron2_mask_rcnn(depth: int, classes: int, *, groups: int = 1, group_width: int = 64) -> Shapes:
    """detectron2/modeling/{backbone/resnet,backbone/fpn,proposal_generator/rpn,roi_heads}.py."""

    def normed(name: str, *shape: int) -> Shapes:
        return layer(name, *shape, bias=False) | batch_norm(f"{name}.norm", shape[0], counted=False)

    body = "backbone.bottom_up"
    shapes = normed(f"{body}.stem.conv1", 64, 3, 7, 7)
    for stage, block, below, width, out in bottlenecks(depth, groups=groups, group_width=group_width):
        at = f"{body}.res{stage + 1}.{block}"
        shapes |= normed(f"{at}.shortcut", out, below, 1, 1) if block == 0 else {}
        shapes |= normed(f"{at}.conv1", width, below, 1, 1) | normed(f"{at}.conv2", width, width // groups, 3, 3)
        shapes |= normed(f"{at}.conv3", out, width, 1, 1)
    for level, width in zip((2, 3, 4, 5), (256, 512, 1024, 2048), strict=True):
        shapes |= layer(f"backbone.fpn_lateral{level}", 256, width, 1, 1)
        shapes |= layer(f"backbone.fpn_output{level}", 256, 256, 3, 3)
    rpn, roi = "proposal_generator.rpn_head", "roi_heads"
    shapes |= layer(f"{rpn}.conv", 256, 256, 3, 3) | layer(f"{rpn}.objectness_logits", 3, 256, 1, 1)
    shapes |= layer(f"{rpn}.anchor_deltas", 12, 256, 1, 1)
    shapes |= layer(f"{roi}.box_head.fc1", 1024, 256 * 7 * 7) | layer(f"{roi}.box_head.fc2", 1024, 1024)
    shapes |= layer(f"{roi}.box_predictor.cls_score", classes + 1, 1024)
    shapes |= layer(f"{roi}.box_predictor.bbox_pred", 4 * classes, 1024)
    for number in (1, 2, 3, 4):
        shapes |= layer(f"{roi}.mask_head.mask_fcn{number}", 256, 256, 3, 3)
    return (
        shapes
        | layer(f"{roi}.mask_head.deconv", 256, 256, 2, 2)
        | layer(f"{roi}.mask_head.predictor", classes, 256, 1, 1)
    )
