"""Attention maps of a plain ViT's layers (Figure 5), also where fused attention never forms them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mal.encoders.encoder import Encoder
from mal.errors import ConfigError


@torch.no_grad()
def attention_maps(encoder: Encoder, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """softmax(q kᵀ / √d) of some layers, as the encoder computes it in evaluation: with its rotary or relative
    positions and its norms of q and k.

    Args:
        encoder: a plain ViT of timm's; its mode and attention are left as they were.
        images: (B, 3, S, S) RGB in [0, 1].
        layers: counted from 1, as the paper counts them (4, 8, 12).

    Returns:
        Layer → (B, heads, N, N) float32, rows of a query that sum to 1. N = class and register tokens, then the
        patches row by row.

    Raises:
        ConfigError: the encoder is no plain ViT, has no such layer, or the layer attends within windows.
    """
    check_layers(encoder, layers)
    found: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.callback(encoder.train, encoder.training)
        encoder.eval()
        for layer in layers:
            stack.enter_context(_recorded(encoder.backbone.blocks[layer - 1].attn, layer, found))
        encoder(images)
    # SAM's layers fold the heads into the batch
    return {n: (m.unflatten(0, (len(images), -1)) if m.dim() == 3 else m).float() for n, m in found.items()}


def attention_picture(maps: Tensor, *, prefix: int, query: str) -> Tensor:
    """Where a layer looks, one value a patch.

    The paper does not say which query its pictures show.

    Args:
        maps: (B, heads, N, N) of one layer.
        prefix: class and register tokens before the patches.
        query: `centre` is the patch at the crop's centre (the four around it, where the side is even), on the object
            in most boxes; `mean` all patches; `class` the class token (the first), which MAL's decoders never see.

    Returns:
        (B, h, w), the mean over heads and queries of the attention to each patch.
    """
    side = math.isqrt(maps.shape[-1] - prefix)
    to_patches = maps.mean(dim=1)[:, :, prefix:]
    if query == "class":
        rows = to_patches[:, :1]
    elif query == "centre":
        near = [(side - 1) // 2, side // 2]
        rows = to_patches[:, sorted({prefix + y * side + x for y in near for x in near})]
    else:
        rows = to_patches[:, prefix:]
    return rows.mean(dim=1).unflatten(1, (side, side))


def check_layers(encoder: Encoder, layers: Sequence[int]) -> None:
    """Refuse layers whose attention over the whole crop does not exist.

    Raises:
        ConfigError: see `attention_maps`.
    """
    found = getattr(encoder.backbone, "blocks", None)
    blocks: list[Any] = list(found) if isinstance(found, nn.ModuleList | nn.Sequential) else []
    if not blocks or not all(hasattr(getattr(block, "attn", None), "fused_attn") for block in blocks):
        kind = type(encoder.backbone).__name__
        raise ConfigError(f"attention maps need a plain ViT of timm's, and this encoder is a {kind}; use encoder=mae_b")
    for layer in layers:
        if not 1 <= layer <= len(blocks):
            raise ConfigError(f"attention.layers has {layer}; this encoder has layers 1 to {len(blocks)}")
        if side := getattr(blocks[layer - 1], "window_size", 0):
            whole = [n for n, block in enumerate(blocks, start=1) if not block.window_size]
            raise ConfigError(f"layer {layer} of this encoder attends within windows of {side} × {side}; use {whole}")


def check_query(encoder: Encoder, query: str) -> None:
    """Refuse the class token's view of an encoder that has none; registers are no class tokens.

    Raises:
        ConfigError: it has none.
    """
    if query == "class" and getattr(encoder.backbone, "cls_token", None) is None:
        raise ConfigError("attention.query=class, but this encoder has no class token; use centre or mean")


@contextmanager
def _recorded(attention: Any, layer: int, found: dict[int, Tensor]) -> Iterator[None]:
    """Have a layer form its map, which then passes through the layer's dropout, and keep it."""

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[layer] = inputs[0]

    fused, hook = attention.fused_attn, attention.attn_drop.register_forward_pre_hook(keep)
    attention.fused_attn = False
    try:
        yield
    finally:
        attention.fused_attn = fused
        hook.remove()
