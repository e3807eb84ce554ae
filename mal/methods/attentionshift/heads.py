"""What reads the ViT's last map and its point tokens: the heads of boxes, masks, candidate boxes and tokens.

Every head of RoIs reads the map itself, not the pyramid, as imTED does (Zhang et al., ICCV 2023). What they are given
is pooled outside (`pooled`), so that coordinates stay in float32 where the heads compute in half precision.
"""

import math
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from mal.methods.attentionshift.positions import sincos_positions
from mal.methods.attentionshift.roi_products import roi_align_by_products

EPS = 1e-6  # of layer norms, as in MAE


def pooled(features: Tensor, boxes: list[Tensor], *, cells: int, patch: int) -> Tensor:
    """RoIAlign (He et al., 2017) of the last map, aligned, a cell read at as many points as it has patches.

    Where a CPU learns, by matrix products: torchvision's backward pass took a fifth of a training step.

    Args:
        features: (B, C, h, w). boxes: (r, 4) xyxy in pixels, an image.
        cells: side of the grid. patch: stride of the map.

    Returns:
        (Σr, C, cells, cells), in the precision of the boxes.
    """
    features = features.to(boxes[0].dtype)
    if features.requires_grad and not features.is_cuda:
        return roi_align_by_products(features, boxes, cells=cells, scale=1 / patch)
    return roi_align(features, boxes, cells, 1 / patch, 0, True)


class RoiTransformer(nn.Module):
    """The decoder of a masked autoencoder, over the cells of an RoI.

    Args:
        channels: of the ViT.
        width, depth, heads: of the decoder.
        side: of the grid of its positions, resized bicubically to the cells of an RoI.
    """

    positions: Tensor

    def __init__(self, channels: int, *, width: int, depth: int, heads: int, side: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.embed = nn.Linear(channels, width)
        self.register_buffer("positions", sincos_positions((side, side), width))
        layer_norm: Any = partial(nn.LayerNorm, eps=EPS)  # timm declares a class
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth))
        self.last_norm = nn.LayerNorm(width, eps=EPS)
        self.apply(start_linear)

    def forward(self, cells: Tensor, front: Tensor | None = None) -> Tensor:
        """(r, channels, s, s) → (r, s², width) row by row; with a token (1, 1, width) in front (r, 1 + s², width)."""
        if not len(cells):  # flash attention takes no empty batch; the weights stay part of the result
            return self(cells.new_zeros(1, *cells.shape[1:]), front)[:0]
        x = self.embed(self.norm(cells.flatten(2).transpose(1, 2)))
        positions = self._resized(cells.shape[-1])
        if front is None:
            positions = positions[:, 1:]
        else:
            x = torch.cat([front.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        x = x + positions
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)

    def _resized(self, side: int) -> Tensor:
        """(1, 1 + side², width)."""
        first, grid = self.positions[:, :1], self.positions[:, 1:]
        own = math.isqrt(grid.shape[1])
        if side == own:
            return self.positions
        image = grid.transpose(1, 2).unflatten(2, (own, own))
        image = F.interpolate(image, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat([first, image.flatten(2).transpose(1, 2)], dim=1)


class BoxHead(nn.Module):
    """An RoI's cells → one vector, read from a learned token in front of them. Arguments: see `RoiTransformer`."""

    def __init__(self, channels: int, *, width: int, depth: int, heads: int, side: int) -> None:
        super().__init__()
        self.transformer = RoiTransformer(channels, width=width, depth=depth, heads=heads, side=side)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))

    def forward(self, cells: Tensor) -> Tensor:
        """(r, channels, s, s) → (r, width)."""
        return self.transformer(cells, self.token)[:, 0]


class MaskHead(nn.Module):
    """An RoI's cells → a mask of each class, twice as fine.

    Args:
        classes: without the background.
        start: see `MaskHeadConfig`.
        The others: see `RoiTransformer`.
    """

    def __init__(
        self, channels: int, *, width: int, depth: int, heads: int, side: int, classes: int, start: str
    ) -> None:
        super().__init__()
        self.transformer = RoiTransformer(channels, width=width, depth=depth, heads=heads, side=side)
        self.logits = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.logits.weight, std=math.sqrt(2 / classes) if start == "kaiming" else 0.001)
        assert self.logits.bias is not None
        nn.init.zeros_(self.logits.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """(r, channels, s, s) → logits (r, classes, 2s, 2s).

        The class channels come before the resizing and not, as released, after it: both are linear and the resizing
        keeps constants, so the order changes nothing but the cost. On a CPU it was half of a training step.
        """
        side = cells.shape[-1]
        x = self.transformer(cells).transpose(1, 2).unflatten(2, (side, side))
        return F.interpolate(self.logits(x), scale_factor=2, mode="bicubic", align_corners=True)


class MilHead(nn.Module):
    """Scores of the candidate boxes of an instance (step 4): two logits of each class, whose softmaxes over the classes
    and over the boxes multiply to a score (Bilen & Vedaldi, "Weakly Supervised Deep Detection Networks", 2016).

    Args:
        channels: of the ViT.
        classes: without the background.
        cells, width, hidden: see `MilHeadConfig`.
    """

    def __init__(self, channels: int, *, classes: int, cells: int, width: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.embed = nn.LayerNorm(channels, eps=EPS), nn.Linear(channels, width)
        self.first, self.second = nn.Linear(width * cells**2, hidden), nn.Linear(hidden, hidden)
        self.of_classes, self.of_boxes = nn.Linear(hidden, classes), nn.Linear(hidden, classes)
        self.apply(start_linear)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(…, channels, s, s) pooled from the last map, to which gradients flow → logits for the softmax over classes
        and for that over boxes, both (…, classes)."""
        x = self.embed(self.norm(cells.flatten(-2).transpose(-2, -1)))
        x = F.relu(self.second(F.relu(self.first(x.flatten(-2)))))
        return self.of_classes(x), self.of_boxes(x)


class TokenHeads(nn.Module):
    """What a point token says: a class and a place (step 1). Two perceptrons of three layers.

    Args:
        channels: of the ViT.
        classes: without the background.
    """

    def __init__(self, channels: int, *, classes: int) -> None:
        super().__init__()
        self.classes, self.places = _perceptron(channels, classes), _perceptron(channels, 2)
        self.apply(start_linear)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(…, T, channels) → class logits (…, T, classes), and (…, T, 2) x and y in (0, 1) of the image before
        padding."""
        return self.classes(tokens), self.places(tokens).sigmoid()


def _perceptron(channels: int, out: int) -> nn.Sequential:
    hidden = [nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(channels, out))


def start_linear(layer: nn.Module) -> None:
    """Initial weights of linear layers, as ViTs have them: N(.02²), cut at ± 2; biases 0."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
