"""Running averages of a network's weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, *, kept: float) -> None:
    """kept · average + (1 − kept) · network, of every parameter and floating-point buffer.

    Whole numbers are copied: averaged and truncated, as torch's `AveragedModel` does it, a tenth of the entries of
    Swin's `relative_position_index` are off by one after the first step. That class also asks the device about its
    count of steps; here the host waits for nothing.
    """
    pairs = list(zip(_tensors(average), _tensors(network), strict=True))
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in averaged], [theirs for _, theirs in averaged], 1 - kept)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
