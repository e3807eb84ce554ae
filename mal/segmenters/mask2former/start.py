"""Where Mask2Former's weights start. All are set here, because versions of the library start them differently.

Under transformers 5.17, for one, learned queries start at N(0, .02), under 5.23 at N(0, 1). The spreads are those of
the authors' program (Cheng et al., 2022), which takes over detectron2's, DETR's and torch's own; biases start at 0,
but for those of the heads (torch's own).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from mal.segmenters.starts import reset, xavier, xavier_joined


@torch.no_grad()
def initialise(network: Mask2FormerForUniversalSegmentation) -> None:
    """Start every weight, but for the linear and convolutional ones of a Swin, which loads its own.

    From a spread of .02 the mask logits, products of three such layers, begin near 0, and the first steps go into their
    scale.
    """
    reset(network, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d)
    _pixel_decoder(network.model.pixel_level_module.decoder)
    _queries(network.model.transformer_module)
    network.class_predictor.reset_parameters()
    if network.config.backbone_config.model_type == "resnet":
        for module in network.model.pixel_level_module.encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _pixel_decoder(decoder: Any) -> None:
    nn.init.normal_(decoder.level_embed)
    for projection, _ in decoder.input_projections:
        xavier(projection)
    for layer in decoder.encoder.layers:
        attention = layer.self_attn
        nn.init.zeros_(attention.sampling_offsets.weight)
        attention.sampling_offsets.bias.copy_(_rays(attention.n_heads, attention.n_levels, attention.n_points))
        nn.init.zeros_(attention.attention_weights.weight)
        nn.init.zeros_(attention.attention_weights.bias)
        for linear in (attention.value_proj, attention.output_proj, layer.fc1, layer.fc2):
            xavier(linear)
    for convolution, *_ in [*decoder.lateral_convolutions, *decoder.output_convolutions, [decoder.mask_projection]]:
        nn.init.kaiming_uniform_(convolution.weight, a=1)  # Caffe2's "Xavier", of the inputs alone
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)


def _rays(heads: int, levels: int, points: int) -> Tensor:
    """(heads · levels · points · 2,): each head looks along a direction of its own, point after point a pixel further
    (Deformable DETR, A.4)."""
    angle = torch.arange(heads) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    direction = direction / direction.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, points + 1)[:, None]
    return (direction[:, None, None] * steps).expand(heads, levels, points, 2).flatten()


def _queries(decoder: Any) -> None:
    for embedding in (decoder.queries_features, decoder.queries_embedder, decoder.level_embed):
        nn.init.normal_(embedding.weight)
    for layer in decoder.decoder.layers:
        inner, outer = layer.self_attn, layer.cross_attn
        xavier_joined(inner)
        nn.init.xavier_uniform_(outer.in_proj_weight)
        nn.init.zeros_(outer.in_proj_bias)
        for linear in (inner.out_proj, outer.out_proj, layer.fc1, layer.fc2):
            xavier(linear)
    reset(decoder.decoder.mask_predictor.mask_embedder, nn.Linear)
