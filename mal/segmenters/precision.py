"""bf16 where it is harmless: each part of a segmenter by itself, coordinates and losses in float32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def lower_precision(model: nn.Module, parts: Sequence[str], *, precision: str, device: torch.device) -> nn.Module:
    """Run the named submodules in bf16 where that is asked for; each hands float32 on.

    Autocast around the whole model would also decode boxes in bf16, whose steps at coordinate 800 are 4 pixels wide.

    Args:
        model: changed in place.
        parts: names of submodules, the convolutions and wide layers.
        precision: fp32, bf16, or auto: bf16 on a GPU, fp32 on a CPU.

    Returns:
        The same model.
    """
    if precision == "bf16" or (precision == "auto" and device.type != "cpu"):
        for name in parts:
            part = model.get_submodule(name)
            part.forward = _in_bf16(part.forward, device.type)
    return model


def _in_bf16(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        with torch.autocast(device_type, dtype=torch.bfloat16):
            return _float(forward(*arguments))

    return wrapped


def _float(value: Any) -> Any:
    """The same nest of dicts, lists and tuples with every tensor in float32."""
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _float(item) for key, item in value.items()}
    return type(value)(_float(item) for item in value)
