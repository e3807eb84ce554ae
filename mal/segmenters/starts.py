"""Where the weights of transformers' models start that learn here: what MaskFormer and Mask2Former have in common."""

from typing import Any

from torch import nn

JOINED = 0.5**0.5  # one matrix of queries, keys and values has twice the sides' sum, which makes Xavier's rule narrower


def reset(part: nn.Module, kinds: Any) -> None:
    """Start a part's modules of some kinds as torch does."""
    for module in part.modules():
        if isinstance(module, kinds):
            module.reset_parameters()


def xavier(layer: nn.Linear | nn.Conv2d, *, gain: float = 1.0) -> None:
    """Xavier-uniform, with a bias of 0."""
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def xavier_joined(attention: Any) -> None:
    """The projections of queries, keys and values as if they were one matrix, which they are in torch's attention."""
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        xavier(projection, gain=JOINED)
