"""SimNet, which says whether two pixels are of one class, and SimLoss, from which it learns that on base classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.data.semantic import IGNORED
from mal.engine import ranks


class SimNet(nn.Module):
    """Pairs of pixel embeddings → whether they are of one class: three residual blocks, and 2 logits.

    Batch norms take their statistics from the pairs of a call, in training and after it.

    Args:
        width: channels of an embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Joining(width)
        self.rest = nn.Sequential(_Block(width), _Block(width))
        self.head = nn.Linear(width, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Embeddings (K, n, C) and (K, m, C), n · m · K > 1 → (K, n, m), the logit of P(one class) of each pair."""
        shape = (*left.shape[:2], right.shape[1])
        different, same = self.head(self.rest(self.first(left, right))).unbind(-1)
        return (same - different).view(shape)


class _Pairs(nn.Linear):
    """A linear layer on concat(left i, right j) of all i and j, computed once for each i and once for each j."""

    def __init__(self, width: int) -> None:
        super().__init__(2 * width, width)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        """(K, n, C) and (K, m, C) → (K · n · m, C)."""
        to_left, to_right = self.weight.split(self.out_features, dim=1)
        return (F.linear(left, to_left)[:, :, None] + F.linear(right, to_right, self.bias)[:, None]).flatten(0, 2)


class _Joining(nn.Module):
    """The block that takes pairs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.shortcut = _Pairs(width), _Pairs(width)
        self.rest = nn.Sequential(*_after_linear(width))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.rest(self.linear(left, right)) + self.shortcut(left, right).relu()


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(nn.Linear(width, width), *_after_linear(width))

    def forward(self, rows: Tensor) -> Tensor:
        return self.path(rows) + rows


def _after_linear(width: int) -> tuple[nn.Module, ...]:
    return _norm(width), nn.ReLU(), nn.Linear(width, width), _norm(width), nn.ReLU()


def _norm(width: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, track_running_stats=False)


class Balance(nn.Module):
    """The pairs of one class and of two that the last steps had, and what either weighs by that.

    Args:
        window: how many steps, the present one included. A step before the first has one pair of each.
    """

    counts: Tensor  # (window, 2) int64: pairs of one class and of two, the present step last

    def __init__(self, window: int) -> None:
        super().__init__()
        counts = torch.zeros(window, 2, dtype=torch.int64)
        counts[-1] = 1
        self.register_buffer("counts", counts)

    def add(self, counts: Tensor) -> None:
        """Count a step's pairs: (2,) int64, of one class and of two; those of all processes count together."""
        self.counts.copy_(torch.cat([self.counts[1:], ranks.summed(counts)[None]]))  # in place: DDP holds the buffer

    def weights(self) -> Tensor:
        """(2,) float32: of a pair of one class n₋ / (n₊ + n₋), of a pair of two n₊ / (n₊ + n₋)."""
        total = self.counts.sum(0)
        return total.flip(0) / total.sum().clamp(min=1)


def targets(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (K, n) and (K, m) → whether each pair is of one class, and whether it counts, both (K, n, m) bool.

    A pair counts if at least one of its pixels is labelled.
    """
    left, right = left[:, :, None], right[:, None]
    return left == right, (left != IGNORED) | (right != IGNORED)


def count(same: Tensor, counted: Tensor) -> Tensor:
    """(2,) int64: how many counted pairs are of one class, and how many of two."""
    return torch.stack([(same & counted).sum(), (~same & counted).sum()])


def sim_loss(logits: Tensor, same: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Weighted binary cross-entropy, its sum ÷ the number of counted pairs; 0 where there is none.

    Args:
        logits: (K, n, m) of P(one class), float32 or wider. same, counted: likewise, bool (see `targets`).
        weights: (2,) of pairs of one class and of two (see `Balance`).
    """
    each = torch.where(same, weights[0], weights[1]).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, same.to(logits), weight=each * counted, reduction="sum")
    return losses / counted.sum().clamp(min=1)
