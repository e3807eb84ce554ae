"""How long a run is, and how fast it learns: schedule, learning rates, optimizer."""

import math
from collections.abc import Callable

import torch
from torch import nn

from mal.segmenters.config import OptimizerConfig, ScheduleConfig

Factors = Callable[[str, nn.Parameter], tuple[float, float]]  # name, weight → × learning rate, × weight decay


def run_length(schedule: ScheduleConfig, *, images: float) -> int:
    """Steps of a run: `steps`, or images ÷ batch × epochs; at least one. With repeats, `images` is an epoch's mean."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    return max(1, round(images / schedule.batch * schedule.epochs))


def learning_rate(step: int, *, total: int, optimizer: OptimizerConfig, schedule: ScheduleConfig) -> float:
    """Rate of step 0 … total − 1: linear warm-up, then multi-step or cosine (which spans the whole run)."""
    peak = optimizer.lr * schedule.batch / optimizer.base_batch
    share, warmup = step / total, schedule.warmup
    if schedule.shape == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        factor = schedule.final + (1 - schedule.final) * cosine
    else:
        factor = schedule.gamma ** sum(share >= milestone for milestone in schedule.milestones)
    if share < warmup:
        factor *= schedule.warmup_start + (1 - schedule.warmup_start) * share / warmup
    return peak * factor


def usual_factors(_name: str, parameter: nn.Parameter) -> tuple[float, float]:
    """One learning rate for all; biases and norms do not decay."""
    return 1.0, float(parameter.ndim > 1)


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, *, factors: Factors = usual_factors
) -> torch.optim.Optimizer:
    """SGD decays every weight, as detectors trained with it do; AdamW what `factors` says.

    Its groups carry `factor`, by which each step multiplies the learning rate.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if config.name == "sgd":
        return torch.optim.SGD(
            trained.values(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        alike.setdefault(factors(name, parameter), []).append(parameter)
    groups = [
        {"params": parameters, "factor": rate, "weight_decay": config.weight_decay * decay}
        for (rate, decay), parameters in sorted(alike.items(), reverse=True)
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=True)
