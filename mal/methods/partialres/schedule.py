"""How long a training is, how fast it learns, and the average of its weights."""

import math
from copy import deepcopy

import torch
from torch import nn

from mal.engine.average import average_into
from mal.methods.partialres.config.learning import TrainingConfig

BETAS, EPS = (0.9, 0.98), 1e-9  # of Adam (R)
DROP = 0.1  # of the rate, late in a training
BACKBONE, LANGUAGE_MODEL = ".backbone.", ".text.model."  # in names of parameters
STAIRS = 5  # of equal length, on which the rate rises: the first five epochs (R)


def total_steps(learning: TrainingConfig, objects: int) -> int:
    """Optimiser steps: `steps`, or epochs × ⌈objects ÷ batch⌉."""
    if learning.steps is not None:
        return learning.steps
    assert learning.epochs is not None  # checked with the config
    return learning.epochs * math.ceil(objects / learning.batch)


def rate_factor(step: int, steps: int, learning: TrainingConfig) -> float:
    """Of the learning rate: 1/6, 2/6, … 5/6 on the stairs of `warmup`, then 1, and a tenth from `drop_at` on."""
    rising = round(learning.warmup * steps)
    factor = DROP if step >= round(learning.drop_at * steps) else 1.0
    if step < rising:
        factor *= (STAIRS * step // rising + 1) / (STAIRS + 1)
    return factor


def freeze_backbone(network: nn.Module) -> None:
    """Its weights stay; the statistics of its batch norms move on (R)."""
    for name, parameter in network.named_parameters():
        if _part(name) == BACKBONE:
            parameter.requires_grad_(False)


def build_optimizer(network: nn.Module, learning: TrainingConfig, *, text: float = 1) -> torch.optim.Optimizer:
    """Adam (amsgrad) in groups that carry `factor`, by which each step multiplies the learning rate.

    Args:
        text: a language model's factor.
    """
    trained = {name: it for name, it in network.named_parameters() if it.requires_grad}
    factors = {"": 1.0, BACKBONE: learning.backbone, LANGUAGE_MODEL: text}
    groups = [
        {"params": [it for name, it in trained.items() if _part(name) == part], "factor": factor}
        for part, factor in factors.items()
    ]
    return torch.optim.Adam(
        [group for group in groups if group["params"]],
        lr=learning.lr,
        betas=BETAS,
        eps=EPS,
        weight_decay=learning.weight_decay,
        amsgrad=True,
        fused=True,
    )


def _part(name: str) -> str:
    """Which part of a network with a learning rate of its own a parameter is in; "" for the rest."""
    return next((part for part in (BACKBONE, LANGUAGE_MODEL) if part in f".{name}"), "")


class Average(nn.Module):
    """An average of a network's weights and buffers (`average_into`), starting as a copy of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = deepcopy(network).requires_grad_(False).eval()

    def update(self, network: nn.Module, *, kept: float) -> None:
        """kept · average + (1 − kept) · network."""
        average_into(self.module, network, kept=kept)


def kept_share(step: int, most: float) -> float:
    """How much of the average stays in step k, from 0: min(most, (k + 1) / (k + 10)) (R)."""
    return min(most, (step + 1) / (step + 10))
