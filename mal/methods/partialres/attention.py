"""Multi-head attention with positions on queries and keys alone, and a bias of float numbers on its logits."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class KeysValues(NamedTuple):
    """What is attended to, projected: (B, heads, S, d / heads) each. A decoder keeps them from token to token."""

    keys: Tensor
    values: Tensor

    def followed_by(self, more: "KeysValues") -> "KeysValues":
        """These, then more, along S."""
        return KeysValues(torch.cat([self.keys, more.keys], dim=2), torch.cat([self.values, more.values], dim=2))


class Attention(nn.Module):
    """torch's `nn.MultiheadAttention`, its joined Xavier matrix included; it takes neither positions nor a bias for
    each image, head, query and key.

    Logits, softmax and weighted sum are float32 also under autocast: a bias in half precision would have three digits.

    Args:
        width: d, a multiple of `heads`.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.joined = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        for linear in (self.joined, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor, positions: Tensor, bias: Tensor | None = None) -> Tensor:
        """Self-attention: (B, S, d) → (B, S, d).

        Args:
            positions: added to the queries and keys; broadcast to (B, S, d).
            bias: added to the logits, broadcast to (B, heads, S, S); −inf hides a key.
        """
        return self.attend(*self.projected(states + positions, states), bias)

    def projected(self, placed: Tensor, states: Tensor) -> tuple[Tensor, KeysValues]:
        """The queries, keys and values of the same (B, S, d) states: `queries` and `seen` in fewer products."""
        queries, keys = F.linear(placed, *self._rows(0, 2)).chunk(2, dim=-1)
        values = F.linear(states, *self._rows(2, 3))
        return self._split(queries), KeysValues(self._split(keys), self._split(values))

    def queries(self, placed: Tensor) -> Tensor:
        """(B, L, d) states with their positions → (B, heads, L, d / heads)."""
        return self._split(F.linear(placed, *self._rows(0, 1)))

    def seen(self, placed: Tensor, states: Tensor) -> KeysValues:
        """
        Args:
            placed: (B, S, d), states with their positions. states: (B, S, d).
        """
        return KeysValues(
            self._split(F.linear(placed, *self._rows(1, 2))), self._split(F.linear(states, *self._rows(2, 3)))
        )

    def attend(self, queries: Tensor, seen: KeysValues, bias: Tensor | None = None) -> Tensor:
        """(B, L, d).

        Args:
            queries: (B, heads, L, d / heads).
            bias: see `forward`; each query needs a key that is not hidden.
        """
        with torch.autocast(queries.device.type, enabled=False):
            q, k, v = (wide(each) for each in (queries, *seen))
            if bias is not None:
                bias = bias.to(q.dtype).expand(-1, -1, q.shape[2], -1)
            dropout = self.dropout if self.training else 0.0
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out(found.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, seen: KeysValues, bias: Tensor | None = None) -> Tensor:
        """(B, heads, L, S): the share that each query takes from each key, without dropout; rows sum to 1."""
        with torch.autocast(queries.device.type, enabled=False):
            q, k = wide(queries), wide(seen.keys)
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            return (logits if bias is None else logits + bias.to(q.dtype)).softmax(-1)

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of queries (0), keys (1), values (2) in the joined matrix."""
        width = self.joined.in_features
        return self.joined.weight[first * width : last * width], self.joined.bias[first * width : last * width]

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def wide(values: Tensor) -> Tensor:
    """In float32 what autocast gave in half precision; anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def hide(padding: Tensor) -> Tensor:
    """(B, 1, 1, S) float32: −inf where the padding (B, S) is true, else 0."""
    return torch.zeros(padding.shape, device=padding.device).masked_fill(padding, -torch.inf)[:, None, None]


def causal(length: int, device: torch.device) -> Tensor:
    """(1, 1, length, length) float32: −inf where a key comes after its query, else 0."""
    after = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(length, length, device=device).masked_fill(after, -torch.inf)[None, None]
