"""Lower precision where it is harmless: each part of a segmenter by itself, coordinates and losses in float32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mal.engine.precision import allow_tf32, autocast


def lower_precision(model: nn.Module, parts: Sequence[str], *, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Let the named submodules compute in `dtype`; each hands float32 on.

    Autocast around the whole model would also decode boxes in bfloat16, whose steps at coordinate 800 are 4 pixels
    wide.

    Args:
        model: changed in place.
        parts: names of submodules, the convolutions and wide layers.
        dtype: see `mal.engine.precision.network_dtype`; float32 changes nothing.

    Returns:
        The same model.
    """
    allow_tf32(device, dtype)
    if dtype != torch.float32:
        for name in parts:
            part = model.get_submodule(name)
            part.forward = _lowered(part.forward, dtype, device)
    return model


def _lowered(forward: Callable[..., Any], dtype: torch.dtype, device: torch.device) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        with autocast(device, dtype):
            return _float(forward(*arguments))

    return wrapped


def _float(value: Any) -> Any:
    """The same nest of dicts, lists and tuples with every tensor in float32."""
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _float(item) for key, item in value.items()}
    return type(value)(_float(item) for item in value)
