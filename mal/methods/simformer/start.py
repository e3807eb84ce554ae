"""Where the network's weights start. All but the backbone's are set here: from the library they start at N(0, .02).

The spreads are MaskFormer's: Kaiming-uniform (a = 1) convolutions, a Xavier-uniform transformer, queries of N(0, 1).
Biases start at 0, but for those of the two heads, which start as torch's own layers do.
"""

from typing import Any

import torch
from torch import nn

JOINED = 0.5**0.5  # one matrix of queries, keys and values has twice the sides' sum, which makes Xavier's rule narrower


@torch.no_grad()
def initialise(network: Any) -> None:
    """Start a `SimFormer`, its backbone excepted."""
    for part in (network.pixel_decoder, network.transformer):
        for module in part.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    nn.init.normal_(network.transformer.queries_embedder.weight)
    for layer in network.transformer.decoder.layers:
        for attention in (layer.self_attn, layer.encoder_attn):
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                _xavier(projection, gain=JOINED)
            _xavier(attention.o_proj)
        _xavier(layer.mlp.fc1)
        _xavier(layer.mlp.fc2)
    network.class_predictor.reset_parameters()
    for module in network.mask_embedder.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def _xavier(layer: nn.Linear, *, gain: float = 1.0) -> None:
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)
