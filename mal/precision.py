"""The type that networks compute in. Autocast surrounds their forward passes and nothing else.

What a method computes besides (photometrics, resizing of images, mean field, losses, averages of weights, scores) stays
in float32: a blur or a coordinate in bf16 has three digits.
"""

from contextlib import AbstractContextManager

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def network_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that a config's `precision` stands for: `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return DTYPES[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """A block in which networks compute in `dtype`; for float32 it changes nothing."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
