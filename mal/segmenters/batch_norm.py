"""Batch norms of several processes that normalise as one (Peng et al., "MegDet", 2018).

torch's SyncBatchNorm runs on GPUs alone. This is the same formula written with a differentiable all-reduce: it runs on
every device, so that what trains on GPUs is what is tested without any. It is slower than a fused kernel, which the few
batch norms that train under several processes (box heads, small bodies) hardly show.
"""

from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from mal.engine import ranks


def share_batch_norms(model: nn.Module) -> nn.Module:
    """Let every batch norm of a model see all processes' batches in training; frozen ones see none.

    Weights, statistics and their names stay. A process alone, and one within `ranks.on_first`, normalises as before.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = _shared(module)  # type: ignore[assignment]
    return model


def _shared(norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    alone = norm.forward

    def forward(x: Tensor) -> Tensor:
        if not norm.training or ranks.size() == 1:
            return alone(x)
        y = _normalised(norm, x.float()).to(x.dtype)
        return norm.act(norm.drop(y)) if isinstance(norm, BatchNormAct2d) else y

    return forward


def _normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(B, C, H, W) float32, B of each process its own, or 0. The mean first, then the squares around it: the sum of
    squares less the squared sum would cancel."""
    count = x.new_full((1,), x.numel() // x.shape[1])
    sums = ranks.summed(torch.cat([x.sum(dim=(0, 2, 3)), count]))
    total = sums[-1].detach().clamp(min=1)
    mean = sums[:-1] / total
    centred = x - mean[:, None, None]
    variance = ranks.summed(centred.square().sum(dim=(0, 2, 3))) / total
    _remember(norm, mean.detach(), variance.detach(), total)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    y = centred * scale[:, None, None]
    return y if norm.bias is None else y + norm.bias[:, None, None]


@torch.no_grad()
def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, total: Tensor) -> None:
    """Move the running statistics as torch does: the variance is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    unbiased = variance * total / (total - 1).clamp(min=1)
    norm.running_mean.mul_(1 - momentum).add_(mean * momentum)
    norm.running_var.mul_(1 - momentum).add_(unbiased * momentum)
