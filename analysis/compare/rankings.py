"""Rank correlation of a few points with an honest interval, and how stable a ranking is.

With five or six encoders the usual intervals fail: a bootstrap of five points in perfect order gives [1, 1], and so
does Fisher's z. Here the interval is the set of true correlations that the data do not refute (test inversion, as
Clopper and Pearson's for shares), for pairs drawn from a normal distribution after any rising transform of each axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats import LEVEL, Floats, Interval

ALL_ORDERS = 8  # points up to which every order is tried: 8! = 40,320
DRAWS = 20_000  # simulated data sets of each true correlation, and random orders
STEPS = 8  # of bisection: the bounds' asin is known to π/256
TOLERANCE = 1e-9
FEWEST = 3


@dataclass(frozen=True)
class Correlation:
    """A rank correlation of n points, the p of no association, and the interval of what it estimates."""

    kind: str  # spearman or kendall
    n: int
    interval: Interval
    p: float


def rank_correlation(x: ArrayLike, y: ArrayLike, *, kind: str = "spearman", seed: int = 0) -> Correlation:
    """Spearman's ρ or Kendall's τ-b, its exact permutation p, and its interval by test inversion.

    p is two-sided: the share of all orders of y (20,000 random ones for more than 8 points, the one seen among them)
    that give a correlation at least as far from 0. The interval is of the population's ρ or τ; it covers at least
    95 %, more with few points, because a correlation of few points takes few values.

    Args:
        x, y: (n,), n >= 3; ties get mean ranks. The interval takes them as if they were none.
        kind: `spearman` or `kendall`.

    Raises:
        ValueError: fewer than 3 points, or one of the two is constant.
    """
    from scipy import stats  # more than a second, which help need not wait for

    first, second = np.asarray(stats.rankdata(x)), np.asarray(stats.rankdata(y))
    n = len(first)
    if n != len(second) or n < FEWEST:
        raise ValueError(f"{n} and {len(second)} points have no rank correlation; it takes at least {FEWEST} pairs")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("all points are equal in one of the two, which has no rank correlation")
    seen = float(_correlations(first, second[None], kind)[0])
    low, high = _inverted(round(seen, 12), n, kind, seed)
    return Correlation(kind, n, Interval(seen, low, high), _permutation_p(first, second, seen, kind, seed))


def _permutation_p(x: Floats, y: Floats, seen: float, kind: str, seed: int) -> float:
    if len(x) <= ALL_ORDERS:
        orders = np.array(list(permutations(range(len(x)))))
        return float((np.abs(_correlations(x, y[orders], kind)) >= abs(seen) - TOLERANCE).mean())
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(y, (DRAWS, len(y))), axis=1)
    extreme = int((np.abs(_correlations(x, shuffled, kind)) >= abs(seen) - TOLERANCE).sum())
    return (extreme + 1) / (DRAWS + 1)


def _correlations(x: Floats, y: Floats, kind: str) -> Floats:
    """The correlation of ranks x, (n,) or (m, n), with each row of ranks y (m, n); NaN where one is constant: (m,)."""
    if kind == "spearman":
        first, second = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    elif kind == "kendall":
        left, right = np.triu_indices(x.shape[-1], k=1)
        first, second = np.sign(x[..., left] - x[..., right]), np.sign(y[..., left] - y[..., right])
    else:
        raise ValueError(f"{kind} is no rank correlation known here; take spearman or kendall")
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(axis=-1) / scale


@cache
def _inverted(seen: float, n: int, kind: str, seed: int) -> tuple[float, float]:
    """The smallest and the largest true correlation under which what was seen is not in a tail of 2.5 %.

    For normal pairs of correlation r, Spearman's ρ is 6/π · asin(r/2) and Kendall's τ is 2/π · asin(r). Each bound is
    found by bisection over asin(r); of the last two points the outer one is taken, so it is never too short.
    """
    x, noise = np.random.default_rng(seed).standard_normal((2, DRAWS, n))
    ranks, tail = _ranks(x), (1 - LEVEL) / 2

    def refuted(angle: float, side: int) -> bool:
        drawn = _correlations(ranks, _ranks(math.sin(angle) * x + math.cos(angle) * noise), kind)
        return float((side * (drawn - seen) >= -TOLERANCE).mean()) <= tail

    bounds = []
    for side in (1, -1):  # 1: how low may the truth be, if as much or more was seen
        outside, inside = -side * math.pi / 2, side * math.pi / 2
        if not refuted(outside, side):
            inside = outside
        for _ in range(STEPS if inside != outside else 0):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if refuted(middle, side) else (outside, middle)
        bounds.append(outside)
    if kind == "spearman":
        return 6 / math.pi * math.asin(math.sin(bounds[0]) / 2), 6 / math.pi * math.asin(math.sin(bounds[1]) / 2)
    return 2 / math.pi * bounds[0], 2 / math.pi * bounds[1]


def _ranks(values: Floats) -> Floats:
    """Ranks in each row of values without ties."""
    return values.argsort(axis=1).argsort(axis=1).astype(np.float64)


@dataclass(frozen=True)
class Stability:
    """How alike m judges (seeds, resamples) rank k things."""

    w: float  # Kendall's W in [0, 1]: 1, all the same order
    tau: float  # mean Kendall τ-b of two judges; NaN for one judge
    first: list[float]  # how often each is the best, a share; ties share it


def stability(scores: ArrayLike) -> Stability:
    """Kendall's coefficient of concordance W, corrected for ties, the mean τ, and how often each thing is first.

    Args:
        scores: (m, k): m judges' values of k things, the larger the better; k >= 2.
    """
    from scipy import stats

    values = np.asarray(scores, dtype=np.float64)
    judges, things = values.shape
    ranks = np.stack([stats.rankdata(row) for row in values])
    spread = ((ranks.sum(axis=0) - judges * (things + 1) / 2) ** 2).sum()
    ties = sum(float((count**3 - count).sum()) for count in (np.unique(r, return_counts=True)[1] for r in ranks))
    possible = judges**2 * (things**3 - things) - judges * ties
    taus = [stats.kendalltau(a, b).statistic for i, a in enumerate(ranks) for b in ranks[i + 1 :]]
    return Stability(
        w=float(12 * spread / possible) if possible else math.nan,
        tau=float(np.mean(taus)) if taus else math.nan,
        first=first_shares(values),
    )


def first_shares(scores: NDArray[np.float64] | Sequence[Sequence[float]]) -> list[float]:
    """How often each of k things is the best of its row, (m, k) → (k,) shares that sum to 1; ties share a row."""
    values = np.asarray(scores, dtype=np.float64)
    best = values == values.max(axis=1, keepdims=True)
    return [float(share) for share in (best / best.sum(axis=1, keepdims=True)).mean(axis=0)]
