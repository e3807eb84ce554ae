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


def allow_tf32(*precisions: str) -> None:
    """TF32 in a GPU's float32 products, 10 bits of 23, unless all of these settings ask for `fp32` itself.

    torch's own default is neither: convolutions may use it, matrix products may not.
    """
    allowed = any(precision != "fp32" for precision in precisions)
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
