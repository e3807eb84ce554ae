"""A plain ViT that carries point tokens behind its patches, and shows where they look."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.encoders.backbones import build_backbone, read_weights
from mal.encoders.config import EncoderConfig
from mal.encoders.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from mal.errors import ConfigError
from mal.methods.attentionshift.config.network import TokensConfig
from mal.methods.attentionshift.positions import sincos_positions
from mal.methods.attentionshift.stem import Stem
from mal.segmenters.weights import mismatches, refuse

SHARPNESS = 2.0  # of the places compared: of tokens that begin as places, on each side
DECODER = ("decoder_", "mask_token")  # keys of a masked autoencoder's decoder


@dataclass
class Seen:
    """What the ViT makes of a batch of images; N = 1 + h·w + T: the class token, the patches row by row, the points'.

    Attributes:
        maps: (B, C, h, w) of the blocks that were asked for, without a final norm; the last one's is "the last map".
        tokens: (B, T, C), the point tokens after the last block.
        attention: (B, N, N) of the last blocks, the earliest first: a softmax, the mean over heads, float32, detached.
    """

    maps: list[Tensor]
    tokens: Tensor
    attention: list[Tensor]

    def float(self) -> Self:
        """The same in float32."""
        return type(self)([each.float() for each in self.maps], self.tokens.float(), self.attention)


class PointViT(nn.Module):
    """timm's plain ViT over [class, patches, point tokens], with full attention among all of them.

    A point token starts as a learned vector plus a learned position. With `patch_mixing` off, the class token and each
    patch attend to themselves alone, so that what a token knows of an object it must have read from the object's
    patches: small networks that learn from little then localise, where they otherwise do not.

    Args:
        encoder: a plain ViT of timm's with a class token. Its weights may be loaded; its norm and head are dropped.
        config: see `TokensConfig`.
        image_size: (height, width) that position embeddings are made for; other sizes resize them bicubically.
        load: fill in the encoder's weights.

    Raises:
        ConfigError: the encoder is no such ViT, or `tokens.blocks` names blocks that it has not.
        WeightsError: its weights cannot be had.
    """

    vit: Any  # timm's models share no type
    places: Tensor | None  # (T, 2) x, y in shares of the image, of tokens that begin as places

    def __init__(
        self, encoder: EncoderConfig, config: TokensConfig, *, image_size: tuple[int, int], load: bool = True
    ) -> None:
        super().__init__()
        self.vit, size = _built(encoder, image_size, load=load)
        blocks = getattr(self.vit, "blocks", None)
        plain = isinstance(blocks, nn.Module) and all(hasattr(getattr(b, "attn", None), "qkv") for b in self.vit.blocks)
        if not plain or getattr(self.vit, "cls_token", None) is None or self.vit.num_prefix_tokens != 1:
            raise ConfigError(
                f"encoder={encoder.name} is no plain ViT with one class token, as AttentionShift needs it to carry its "
                "point tokens; use encoder=vit_nano, deit_s or mae_b"
            )
        if config.blocks != sorted(config.blocks) or config.blocks[-1] != len(self.vit.blocks):
            raise ConfigError(
                f"attentionshift.tokens.blocks={config.blocks} must not fall and must end with {len(self.vit.blocks)}, "
                "this encoder's last block"
            )
        self.vit.norm = nn.Identity()
        self.config, self.patch = config, int(self.vit.patch_embed.patch_size[0])
        self.grid = (size[0] // self.patch, size[1] // self.patch)
        self.channels = int(self.vit.embed_dim)
        self.stem = None
        if config.stem.timm is not None:
            self.stem = Stem(config.stem, patch=self.patch, channels=self.channels, load=load)
            self.vit.patch_embed = nn.Identity()
        pretrained = getattr(self.vit, "pretrained_cfg", None) or {}
        self.mean = tuple(encoder.mean or pretrained.get("mean") or IMAGENET_MEAN)
        self.std = tuple(encoder.std or pretrained.get("std") or IMAGENET_STD)
        self.tokens = nn.Parameter(torch.empty(1, config.count, self.channels))
        self.token_positions = nn.Parameter(torch.empty(1, config.count, self.channels))
        for parameter in (self.tokens, self.token_positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        rows, columns = _spread(config.count, self.grid)
        centres = torch.stack([(columns + 0.5) / self.grid[1], (rows + 0.5) / self.grid[0]], dim=1)
        self.register_buffer("places", centres if config.begin == "places" else None, persistent=False)
        if load and config.begin == "places":
            self._begin_as_places(rows * self.grid[1] + columns)

    def forward(self, images: Tensor, depth: int) -> Seen:
        """
        Args:
            images: (B, 3, H, W) RGB in [0, 1]; H and W are multiples of the patch.
            depth: how many of the last blocks show their attention.
        """
        size = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        x = torch.cat([self._patches(images, size), self._points(len(images))], dim=1)
        maps, attention, first = {}, [], len(self.vit.blocks) - depth
        for number, block in enumerate(self.vit.blocks, start=1):
            x, looked = self._block(block, x, show=number > first)
            if looked is not None:
                attention.append(looked)
            if number in self.config.blocks:
                maps[number] = x[:, 1 : 1 + size[0] * size[1]].transpose(1, 2).unflatten(2, size)
        return Seen([maps[number] for number in self.config.blocks], x[:, 1 + size[0] * size[1] :], attention)

    @torch.no_grad()
    def _begin_as_places(self, cells: Tensor) -> None:
        """Tokens begin as the places of cells of the grid, and blocks by comparing places and reading what lies there.

        Patches are given MAE's sine and cosine positions, tokens those of their cells. Each head compares every n-th
        channel of them, so that all heads see rows and columns, coarse and fine; values and outputs add the identity.
        From N(.02²) all attention is uniform, and a small ViT from scratch needs very many steps to change that.

        Args:
            cells: (T,) indices.
        """
        positions = sincos_positions(self.grid, self.channels)
        self.vit.pos_embed.copy_(positions)
        self.token_positions.copy_(positions[:, 1 + cells])
        identity = torch.eye(self.channels)
        for block in self.vit.blocks:
            compared = SHARPNESS * identity.unflatten(0, (-1, block.attn.num_heads)).transpose(0, 1).flatten(0, 1)
            query, key, value = block.attn.qkv.weight.chunk(3)
            for weight, added in (
                (query, compared),
                (key, compared),
                (value, identity),
                (block.attn.proj.weight, identity),
            ):
                weight += added

    def _patches(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 1 + h·w, C): the class token and the patches, with their positions."""
        if self.stem is not None:
            x = self.stem(images)
        else:
            embed = self.vit.patch_embed
            x = embed.norm(embed.proj(normalise(images, self.mean, self.std)).flatten(2).transpose(1, 2))
        positions = self.vit.pos_embed
        own, grid = positions[:, :1], positions[:, 1:]
        if size != self.grid:
            image = grid.transpose(1, 2).unflatten(2, self.grid)
            grid = F.interpolate(image, size=size, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        front = (self.vit.cls_token + own).expand(len(images), -1, -1)
        return self.vit.norm_pre(torch.cat([front, x + grid], dim=1))

    def _points(self, batch: int) -> Tensor:
        return (self.tokens + self.token_positions).expand(batch, -1, -1)

    def _block(self, block: Any, x: Tensor, *, show: bool) -> tuple[Tensor, Tensor | None]:
        """A block of timm's ViT: what leaves it, and if asked its attention, which fused kernels never form."""
        looked, looking = self._attend(block.attn, block.norm1(x), show=show)
        x = x + block.drop_path1(block.ls1(looked))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), looking

    def _attend(self, attn: Any, x: Tensor, *, show: bool) -> tuple[Tensor, Tensor | None]:
        length, channels = x.shape[1:]
        qkv = attn.qkv(x).unflatten(2, (3, attn.num_heads, channels // attn.num_heads)).permute(2, 0, 3, 1, 4)
        query, key, value = attn.q_norm(qkv[0]), attn.k_norm(qkv[1]), qkv[2]
        alone = 0 if self.config.patch_mixing else length - self.config.count  # rows that look at themselves alone
        read = F.scaled_dot_product_attention(query[:, :, alone:], key, value)
        read = torch.cat([value[:, :, :alone], read], dim=2).transpose(1, 2).flatten(2)
        return attn.proj(read), _attention(query.detach(), key.detach(), alone) if show else None


def _spread(count: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of `count` cells of a grid, (count,) each, spread evenly."""
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    index = torch.arange(count)
    places = ((index // across + 0.5) / down * grid[0], (index % across + 0.5) / across * grid[1])
    return places[0].long(), places[1].long()


def _built(encoder: EncoderConfig, image_size: tuple[int, int], *, load: bool) -> tuple[Any, tuple[int, int]]:
    """timm's ViT with its weights; those of a masked autoencoder may come with its decoder, which is not the ViT's."""
    scratch = replace(encoder, pretrained=False, checkpoint=None)
    if not load or encoder.checkpoint is None:
        return build_backbone(encoder if load else scratch, image_size=image_size)
    state = read_weights(encoder.checkpoint)
    if not any(key.startswith(DECODER) for key in state):
        return build_backbone(encoder, image_size=image_size)
    vit, size = build_backbone(scratch, image_size=image_size)
    theirs = {key: value for key, value in state.items() if not key.startswith(DECODER)}
    way_out = "choose the encoder that it was made for"
    refuse(mismatches(vit.state_dict(), theirs), source=encoder.checkpoint, model=encoder.name, way_out=way_out)
    vit.load_state_dict(theirs)
    return vit, size


@torch.no_grad()
def _attention(query: Tensor, key: Tensor, alone: int) -> Tensor:
    """The heads' mean softmax(q kᵀ / √d), float32.

    Args:
        query, key: (B, heads, N, d).
        alone: how many of the first rows are those of the identity.
    """
    with torch.autocast(query.device.type, enabled=False):
        scaled = query[:, :, alone:].float() @ key.float().transpose(-2, -1) * query.shape[-1] ** -0.5
        rows = scaled.softmax(dim=-1).mean(dim=1)
    identity = torch.eye(alone, key.shape[2], device=rows.device).expand(len(rows), -1, -1)
    return torch.cat([identity, rows], dim=1)
