"""The type that networks compute in. Autocast surrounds their forward passes and nothing else.

What a method computes besides (photometrics, resizing of images, mean field, losses, averages of weights, scores) stays
in float32: a blur or a coordinate in bf16 has three digits.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

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


def allow_tf32(device: torch.device, dtype: torch.dtype) -> None:
    """TF32, 10 bits of 23, in what float32 products a GPU has left where networks compute in half precision; where they
    compute in float32, that itself.

    torch's own default is neither: convolutions may use TF32, matrix products may not.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if dtype == torch.float32 else "high")
        torch.backends.cudnn.allow_tf32 = dtype != torch.float32


@contextmanager
def full_precision() -> Iterator[None]:
    """A block whose float32 products are whole ones, also where `allow_tf32` lets a GPU shorten them: comparisons of
    cosines, and coordinates."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
