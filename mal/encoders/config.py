"""Settings of an image encoder."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mal.bounds import number, numbers


@dataclass
class EncoderConfig:
    name: str = MISSING
    timm: str = MISSING  # any timm model name
    pretrained: bool = True
    checkpoint: str | None = None  # safetensors or torch file; replaces the download
    needs_file: bool = False  # timm has other weights of this name, or none: `checkpoint` must give them
    levels: list[int] | None = None  # strides fused top-down, e.g. [8, 16, 32]; null: as `fuse` says
    fuse: bool = False  # true: every stride of a pyramid from 4 up (a plain ViT has one); false: the last stage alone
    width: int = number(128, 1, 1 << 16)  # channels of the fused map, where levels are fused
    freeze_norm: bool = False  # batch-norm statistics and affine parameters stay as loaded
    mean: list[float] | None = numbers(None, 3)  # null: the model's own, as timm states it
    std: list[float] | None = numbers(None, 3, low=1e-6)
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
