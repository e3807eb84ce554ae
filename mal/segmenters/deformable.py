"""Deformable convolutions, version 2 (Zhu et al., 2019), in the place of a backbone's plain ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class DeformableConv(DeformConv2d):
    """A convolution that reads each tap where the image tells it to, and as strongly (Eq. 1).

    y(p) = Σ_k w_k · x(p + p_k + Δp_k) · Δm_k, with Δp_k and Δm_k = 2 · sigmoid(·) from a convolution of the same shape
    over x that starts at zero. So at the start nothing is displaced, every Δm_k is 1, and the network computes what
    its loaded weights were trained to. (MMDetection and Detectron2 take Δm_k = sigmoid(·): there the loaded layers
    start at half their output.)

    Args:
        plain: gives its weight (kept, not copied), bias, stride, padding, dilation and groups. All its groups share
            the displacements.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        assert not isinstance(plain.padding, str)  # "same" and "valid" are not torchvision's
        height, width = plain.kernel_size
        shape: dict[str, Any] = {"kernel_size": (height, width), "stride": plain.stride, "padding": plain.padding}
        shape["dilation"] = plain.dilation
        super().__init__(
            plain.in_channels, plain.out_channels, groups=plain.groups, bias=plain.bias is not None, **shape
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.taps = height * width
        self.sampling = nn.Conv2d(plain.in_channels, 3 * self.taps, **shape)
        nn.init.zeros_(self.sampling.weight)
        assert self.sampling.bias is not None
        nn.init.zeros_(self.sampling.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W'), as the plain convolution."""
        dtype = self.weight.dtype  # not autocast's: torchvision samples in float32, on a CPU in nothing else
        displacements, strengths = self.sampling(x).to(dtype).split([2 * self.taps, self.taps], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(dtype), displacements, 2 * strengths.sigmoid()).to(x.dtype)


def deform(stages: Iterable[nn.Module]) -> None:
    """Replace every 3 × 3 convolution of these stages by a deformable one with its weights."""
    for stage in stages:
        for module in list(stage.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
                    setattr(module, name, DeformableConv(child))
