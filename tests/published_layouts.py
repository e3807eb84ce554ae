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


def convnext(width: int, depths: tuple[int, ...], *, names: tuple[str, str, str]) -> Shapes:
    """object_detection/mmdet/models/backbones/convnext.py, or mmcls's. names: of its three convolutions."""
    depthwise, first, second = names
    shapes: Shapes = {}
    for stage, depth in enumerate(depths):
        own, at = width * 2**stage, f"backbone.downsample_layers.{stage}"
        if stage:
            shapes |= affine(f"{at}.0", own // 2) | layer(f"{at}.1", own, own // 2, 2, 2)
        else:
            shapes |= layer(f"{at}.0", own, 3, 4, 4) | affine(f"{at}.1", own)
        for block in range(depth):
            at = f"backbone.stages.{stage}.{block}"
            shapes |= {f"{at}.gamma": (own,)} | layer(f"{at}.{depthwise}", own, 1, 7, 7) | affine(f"{at}.norm", own)
            shapes |= layer(f"{at}.{first}", 4 * own, own) | layer(f"{at}.{second}", own, 4 * own)
        shapes |= affine(f"backbone.norm{stage}", own)
    return shapes


def cascade_mask_rcnn(body: Shapes, widths: tuple[int, ...], classes: int, *, boxes: int) -> Shapes:
    """configs/_base_/models/cascade-mask-rcnn_r50_fpn.py with 4conv1fc heads. boxes: 1, or one a class."""
    shapes = body | mmdetection_neck(widths) | mmdetection_proposals()
    for stage in range(3):
        at = f"roi_head.bbox_head.{stage}"
        shapes |= layer(f"{at}.fc_cls", classes + 1, 1024) | layer(f"{at}.fc_reg", 4 * boxes, 1024)
        for number in range(4):
            shapes |= layer(f"{at}.shared_convs.{number}.conv", 256, 256, 3, 3, bias=False)
            shapes |= batch_norm(f"{at}.shared_convs.{number}.bn", 256, counted=True)
        shapes |= layer(f"{at}.shared_fcs.0", 1024, 256 * 7 * 7)
        shapes |= mmdetection_mask_head(f"roi_head.mask_head.{stage}", classes)
    return shapes


def swin_block(width: int, heads: int, window: int, *, attention: str, mlp: tuple[str, str]) -> Shapes:
    """One block of a Swin, its attention's tensors under `attention` and its two linear layers under `mlp`."""
    return (
        affine("norm1", width)
        | {f"{attention}.relative_position_bias_table": ((2 * window - 1) ** 2, heads)}
        | {f"{attention}.relative_position_index": (window**2, window**2)}
        | layer(f"{attention}.qkv", 3 * width, width)
        | layer(f"{attention}.proj", width, width)
        | affine("norm2", width)
        | layer(mlp[0], 4 * width, width)
        | layer(mlp[1], width, 4 * width)
    )


def swin(sizes: dict[str, object], *, stages: str, patches: str, attention: str, mlp: tuple[str, str]) -> Shapes:
    """mask2former/modeling/backbone/swin.py or mmdet/models/backbones/swin.py."""
    width, depths, heads, window = (sizes[key] for key in ("embed_dim", "depths", "num_heads", "window_size"))
    assert isinstance(width, int)
    assert isinstance(window, int)
    assert isinstance(depths, list)
    assert isinstance(heads, list)
    shapes = layer(f"backbone.patch_embed.{patches}", width, 3, 4, 4) | affine("backbone.patch_embed.norm", width)
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        own, at = width * 2**stage, f"backbone.{stages}.{stage}"
        for block in range(depth):
            inner = swin_block(own, count, window, attention=attention, mlp=mlp)
            shapes |= {f"{at}.blocks.{block}.{key}": shape for key, shape in inner.items()}
        if stage < 3:
            shapes |= layer(f"{at}.downsample.reduction", 2 * own, 4 * own, bias=False)
            shapes |= affine(f"{at}.downsample.norm", 4 * own)
        shapes |= affine(f"backbone.norm{stage}", own)
    return shapes


def deformable_attention(at: str, width: int, heads: int = 8) -> Shapes:
    """Deformable DETR's, of three levels and four points."""
    return (
        layer(f"{at}.sampling_offsets", heads * 3 * 4 * 2, width)
        | layer(f"{at}.attention_weights", heads * 3 * 4, width)
        | layer(f"{at}.value_proj", width, width)
        | layer(f"{at}.output_proj", width, width)
    )


def attention(at: str, width: int) -> Shapes:
    """torch.nn.MultiheadAttention."""
    shapes: Shapes = {f"{at}.in_proj_weight": (3 * width, width), f"{at}.in_proj_bias": (3 * width,)}
    return shapes | layer(f"{at}.out_proj", width, width)


def mask2former(
    sizes: dict[str, object], classes: int, *, width: int, queries: int, pixel_layers: int, layers: int, hidden: int
) -> Shapes:
    """Its authors': pixel_decoder/msdeformattn.py and transformer_decoder/mask2former_transformer_decoder.py."""
    shapes = swin(sizes, stages="layers", patches="proj", attention="attn", mlp=("mlp.fc1", "mlp.fc2"))
    embed = sizes["embed_dim"]
    assert isinstance(embed, int)
    pixels, head = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
    for number, below in enumerate((8 * embed, 4 * embed, 2 * embed)):
        shapes |= layer(f"{pixels}.input_proj.{number}.0", width, below, 1, 1)
        shapes |= affine(f"{pixels}.input_proj.{number}.1", width)
    shapes |= {f"{pixels}.transformer.level_embed": (3, width)}
    for number in range(pixel_layers):
        at = f"{pixels}.transformer.encoder.layers.{number}"
        shapes |= deformable_attention(f"{at}.self_attn", width) | affine(f"{at}.norm1", width)
        shapes |= layer(f"{at}.linear1", hidden, width) | layer(f"{at}.linear2", width, hidden)
        shapes |= affine(f"{at}.norm2", width)
    shapes |= layer(f"{pixels}.mask_features", width, width, 1, 1)
    shapes |= layer(f"{pixels}.adapter_1", width, embed, 1, 1, bias=False) | affine(f"{pixels}.adapter_1.norm", width)
    shapes |= layer(f"{pixels}.layer_1", width, width, 3, 3, bias=False) | affine(f"{pixels}.layer_1.norm", width)
    for number in range(layers):
        own = f"{head}.transformer_self_attention_layers.{number}"
        cross, feed = (f"{head}.transformer_{part}_layers.{number}" for part in ("cross_attention", "ffn"))
        shapes |= attention(f"{own}.self_attn", width) | affine(f"{own}.norm", width)
        shapes |= attention(f"{cross}.multihead_attn", width) | affine(f"{cross}.norm", width)
        shapes |= layer(f"{feed}.linear1", hidden, width) | layer(f"{feed}.linear2", width, hidden)
        shapes |= affine(f"{feed}.norm", width)
    shapes |= affine(f"{head}.decoder_norm", width)
    shapes |= {f"{head}.query_feat.weight": (queries, width), f"{head}.query_embed.weight": (queries, width)}
    shapes |= {f"{head}.level_embed.weight": (3, width)} | layer(f"{head}.class_embed", classes + 1, width)
    for number in range(3):
        shapes |= layer(f"{head}.mask_embed.layers.{number}", width, width)
    return shapes | {"criterion.empty_weight": (classes + 1,)}


def mmdetection_mask2former(
    sizes: dict[str, object], classes: int, *, width: int, queries: int, pixel_layers: int, layers: int, hidden: int
) -> Shapes:
    """mmdet/models/layers/msdeformattn_pixel_decoder.py and mmdet/models/dense_heads/mask2former_head.py, version 3."""
    ffn = ("ffn.layers.0.0", "ffn.layers.1")
    shapes = swin(sizes, stages="stages", patches="projection", attention="attn.w_msa", mlp=ffn)
    embed = sizes["embed_dim"]
    assert isinstance(embed, int)
    head, pixels = "panoptic_head", "panoptic_head.pixel_decoder"
    for number, below in enumerate((8 * embed, 4 * embed, 2 * embed)):
        shapes |= layer(f"{pixels}.input_convs.{number}.conv", width, below, 1, 1)
        shapes |= affine(f"{pixels}.input_convs.{number}.gn", width)
    for number in range(pixel_layers):
        at = f"{pixels}.encoder.layers.{number}"
        shapes |= deformable_attention(f"{at}.self_attn", width)
        shapes |= layer(f"{at}.{ffn[0]}", hidden, width) | layer(f"{at}.{ffn[1]}", width, hidden)
        shapes |= affine(f"{at}.norms.0", width) | affine(f"{at}.norms.1", width)
    shapes |= {f"{pixels}.level_encoding.weight": (3, width)}
    for name, below, side in (("lateral_convs", embed, 1), ("output_convs", width, 3)):
        shapes |= layer(f"{pixels}.{name}.0.conv", width, below, side, side, bias=False)
        shapes |= affine(f"{pixels}.{name}.0.gn", width)
    shapes |= layer(f"{pixels}.mask_feature", width, width, 1, 1)
    for number in range(layers):
        at = f"{head}.transformer_decoder.layers.{number}"
        shapes |= attention(f"{at}.self_attn.attn", width) | attention(f"{at}.cross_attn.attn", width)
        shapes |= layer(f"{at}.{ffn[0]}", hidden, width) | layer(f"{at}.{ffn[1]}", width, hidden)
        for norm in range(3):
            shapes |= affine(f"{at}.norms.{norm}", width)
    shapes |= affine(f"{head}.transformer_decoder.post_norm", width)
    shapes |= {f"{head}.query_embed.weight": (queries, width), f"{head}.query_feat.weight": (queries, width)}
    shapes |= {f"{head}.level_embed.weight": (3, width)} | layer(f"{head}.cls_embed", classes + 1, width)
    for number in (0, 2, 4):
        shapes |= layer(f"{head}.mask_embed.{number}", width, width)
    return shapes
