"""The query-based decoder of Table 3 (Fig. 3d): Mask2Former's transformer decoder, with one mask out.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022, §3.2. The paper says
that it "cannot obtain reasonable results" with it and gives no settings.
"""

import math

import torch
from torch import Tensor, nn

from mal.encoders.bilinear import resize
from mal.encoders.encoder import Features
from mal.errors import ConfigError
from mal.methods.mal.config import DecoderConfig
from mal.methods.mal.decoders.pixels import Groups, PixelHead, scale_layer


class QueryDecoder(nn.Module):
    """Learned queries look at the encoder's map where their own masks are, and are turned into one mask.

    Pixel embedding: V (`PixelHead`, resized by object size) and a 1 × 1 convolution. Memory: the encoder's last map,
    projected to `width` channels, with sine position embeddings; there is one level, where Mask2Former cycles through
    three. Before each layer every query's mask so far (query embedding · pixel embedding, at the memory's size, no
    gradient) says where that query may look; a query whose mask is empty looks everywhere.

    The queries' masks are combined into one by `query.combine`: `score` is the mean of their logits, weighted by the
    softmax over queries of a learned score (Mask2Former picks one by its class score; picking has no gradient); `max`
    takes the largest logit at each pixel, `mean` the plain mean.

    Raises:
        ConfigError: `width` does not suit the number of heads or the position embeddings.
    """

    def __init__(self, config: DecoderConfig, *, last_channels: int, fine_channels: int) -> None:
        super().__init__()
        width, options = config.width, config.query
        if width % options.heads or width % 4:
            raise ConfigError(
                f"decoder.width={width} must be divisible by decoder.query.heads={options.heads} and by 4 "
                "(sine and cosine of two axes)"
            )
        self.combine = options.combine
        self.value = PixelHead(config, channels=fine_channels)
        self.pixels = nn.Conv2d(width, width, 1)
        self.memory = nn.Conv2d(last_channels, width, 1)
        self.queries = nn.Parameter(torch.randn(options.queries, width))
        self.places = nn.Parameter(torch.randn(options.queries, width))
        self.layers = nn.ModuleList(
            QueryLayer(width, heads=options.heads, hidden=options.ffn * width) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(width)
        last = nn.Linear(width, width)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
        self.score = nn.Linear(width, 1) if options.combine == "score" and options.queries > 1 else None
        scale_layer(last, config.key_gain)

    def forward(self, features: Features, sizes: Tensor, *, image_size: int) -> Groups:
        """Logits, one group for each object size present; arguments and sizes as in `PixelHead.by_size`."""
        memory = self.memory(features.last)
        places = sine_places(memory)
        return [
            (chosen, self._masks(self.pixels(values), memory[chosen], places))
            for chosen, values in self.value.by_size(features, sizes, image_size=image_size)
        ]

    def _masks(self, pixels: Tensor, memory: Tensor, memory_places: Tensor) -> Tensor:
        """Pixel embedding (n, C, s, s), memory (n, C, h, w) and its places (h·w, C) → one mask's logits (n, s, s)."""
        # a bilinear resize of the embedding gives the same as one of the masks, for any number of queries
        seen = resize(pixels.detach(), (memory.shape[-2], memory.shape[-1]))
        tokens = memory.flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(pixels), -1, -1)
        for layer in self.layers:
            with torch.no_grad():
                blocked = blocked_tokens(torch.einsum("nqc,nct->nqt", self.embed(self.norm(queries)), seen.flatten(2)))
            queries = layer(queries, self.places, tokens, memory_places, blocked=blocked)
        queries = self.norm(queries)
        masks = torch.einsum("nqc,nchw->nqhw", self.embed(queries), pixels)
        if self.combine == "max":
            return masks.amax(dim=1)
        if self.score is None:
            return masks.mean(dim=1)
        return torch.einsum("nq,nqhw->nhw", self.score(queries)[..., 0].softmax(dim=1), masks)


class QueryLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward, each added and normalised after (Mask2Former's order)."""

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True)
        self.forward_layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        for layer in self.forward_layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, queries: Tensor, places: Tensor, tokens: Tensor, token_places: Tensor, *, blocked: Tensor
    ) -> Tensor:
        """Queries after the layer.

        Args:
            queries: (n, Q, C). places: (Q, C), added wherever queries are compared.
            tokens: (n, T, C). token_places: (T, C), added where tokens are compared, not where they are read.
            blocked: (n, Q, T) bool: tokens a query may not look at; never a whole row.
        """
        mask = blocked.repeat_interleave(self.cross.num_heads, dim=0)
        found, _ = self.cross(queries + places, tokens + token_places, tokens, attn_mask=mask, need_weights=False)
        queries = self.norms[0](queries + found)
        placed = queries + places
        found, _ = self.inner(placed, placed, queries, need_weights=False)
        queries = self.norms[1](queries + found)
        return self.norms[2](queries + self.forward_layers(queries))


def blocked_tokens(logits: Tensor) -> Tensor:
    """Where a query may not look: outside its mask (probability under ½), unless its mask is empty.

    Args:
        logits: (n, Q, T) of each query's mask at each token.

    Returns:
        (n, Q, T) bool.
    """
    outside = logits < 0
    return outside & ~outside.all(dim=-1, keepdim=True)


def sine_places(maps: Tensor, *, temperature: float = 10_000.0) -> Tensor:
    """Position embeddings of a map's cells: sines and cosines of y and x, each scaled to (0, 2π].

    Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, A.4, with Mask2Former's scaling.

    Args:
        maps: (n, C, h, w), C divisible by 4.

    Returns:
        (h·w, C): C/2 channels of y, then C/2 of x; sine and cosine alternate.
    """
    _, channels, height, width = maps.shape
    place = torch.arange(channels // 4, device=maps.device, dtype=torch.float32)
    periods = temperature ** (place / (channels // 4))

    def waves(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, device=maps.device, dtype=torch.float32) / count * 2 * math.pi
        angles = steps[:, None] / periods
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    rows, columns = waves(height), waves(width)
    both = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(both, dim=-1).flatten(0, 1).to(maps.dtype)
