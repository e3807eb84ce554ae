"""Where the network's weights start. All but the backbone's are set here: from the library they start at N(0, .02).

The spreads are MaskFormer's: Kaiming-uniform (a = 1) convolutions, a Xavier-uniform transformer, queries of N(0, 1).
Biases start at 0, but for those of the two heads, which start as torch's own layers do.
"""

from typing import Any

import torch
from torch import nn

from mal.segmenters.starts import reset, xavier, xavier_joined


@torch.no_grad()
def initialise(network: Any) -> None:
    """Start a `SimFormer`, its backbone excepted."""
    for part in (network.pixel_decoder, network.transformer):
        reset(part, nn.LayerNorm | nn.GroupNorm)
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    nn.init.normal_(network.transformer.queries_embedder.weight)
    for layer in network.transformer.decoder.layers:
        for attention in (layer.self_attn, layer.encoder_attn):
            xavier_joined(attention)
            xavier(attention.o_proj)
        xavier(layer.mlp.fc1)
        xavier(layer.mlp.fc2)
    network.class_predictor.reset_parameters()
    reset(network.mask_embedder, nn.Linear)
