"""Linear layers with ReLU between them, Xavier-uniform."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def perceptron(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """A linear layer from each width to the next; ReLU, and dropout where there is one, between them.

    Matrices start Xavier-uniform, biases at 0.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        if i:
            layers += [nn.ReLU(), nn.Dropout(dropout)] if dropout else [nn.ReLU()]
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    return nn.Sequential(*layers)
