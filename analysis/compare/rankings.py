"""Rank correlation of a few points with an honest interval, and how stable a ranking is.

With five or six encoders the usual intervals fail: a bootstrap of five points in perfect order gives [1, 1], and so
does Fisher's z. Here the interval is the set of true correlations that the data do not refute (test inversion, as
Clopper and Pearson's for shares), for pairs drawn from a normal distribution after any rising transform of each axis.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats import LEVEL, Floats, Interval

ORDERS = math.factorial(8)  # every order of up to 8 points is tried, so many random ones of more
DRAWS = 20_000  # simulated data sets of each true correlation
STEPS = 8  # of bisection: the bounds' asin is known to π/256
TOLERANCE = 1e-9
FEWEST = 3


@dataclass(frozen=True)
class Correlation:
    """A rank correlation, the p of no association, and the interval of what it estimates."""

    interval: Interval
    p: float


def rank_correlation(x: ArrayLike, y: ArrayLike, *, seed: int = 0) -> Correlation:
    """Spearman's ρ, its permutation p, and its interval by test inversion.

    p is two-sided: the share of all orders of y (random ones for more than 8 points, the one seen among them) that
    give a correlation at least as far from 0. The interval is of the population's ρ; it covers at least 95 %, more with
    few points, because a correlation of few points takes few values.

    Args:
        x, y: (n,), n >= 3; ties get mean ranks. The interval takes them as if they were none.

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
    seen = float(_pearson(first, second))
    orders = stats.permutation_test(
        (second,),
        lambda order, axis: np.abs(_pearson(first, order, axis=axis)),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=ORDERS,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return Correlation(Interval(seen, *_inverted(round(seen, 12), n, seed)), float(orders.pvalue))


def _pearson(x: Floats, y: Floats, *, axis: int = -1) -> Floats:
    """The correlation of x with y along an axis."""
    first, second = x - x.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
    return (first * second).sum(axis=axis) / np.sqrt((first**2).sum(axis=axis) * (second**2).sum(axis=axis))


@cache
def _inverted(seen: float, n: int, seed: int) -> tuple[float, float]:
    """The smallest and the largest true ρ under which what was seen is not in a tail of 2.5 %.

    For normal pairs of correlation r it is 6/π · asin(r/2). Each bound is found by bisection over asin(r); of the last
    two points the outer one is taken, so it is never too short.
    """
    x, noise = np.random.default_rng(seed).standard_normal((2, DRAWS, n))
    ranks, tail = _ranks(x), (1 - LEVEL) / 2

    def refuted(angle: float, side: int) -> bool:
        drawn = _pearson(ranks, _ranks(math.sin(angle) * x + math.cos(angle) * noise))
        return float((side * (drawn - seen) >= -TOLERANCE).mean()) <= tail

    bounds = []
    for side in (1, -1):  # 1: how low may the truth be, if as much or more was seen
        outside, inside = -side * math.pi / 2, side * math.pi / 2
        if not refuted(outside, side):
            inside = outside
        for _ in range(STEPS if inside != outside else 0):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if refuted(middle, side) else (outside, middle)
        bounds.append(6 / math.pi * math.asin(math.sin(outside) / 2))
    return bounds[0], bounds[1]


def _ranks(values: Floats) -> Floats:
    """Ranks in each row of values without ties."""
    return values.argsort(axis=1).argsort(axis=1).astype(np.float64)


@dataclass(frozen=True)
class Stability:
    """How alike m judges (seeds) rank k things."""

    w: float  # Kendall's W in [0, 1]: 1, all the same order
    first: list[float]  # how often each is the best, shares that sum to 1; ties share it


def stability(scores: ArrayLike) -> Stability:
    """Kendall's coefficient of concordance W, corrected for ties, and how often each thing is first.

    Args:
        scores: (m, k): m judges' values of k things, the larger the better; k >= 2.
    """
    from scipy import stats

    values = np.asarray(scores, dtype=np.float64)
    judges, things = values.shape
    ranks = stats.rankdata(values, axis=1)
    spread = ((ranks.sum(axis=0) - judges * (things + 1) / 2) ** 2).sum()
    ties = sum(float((count**3 - count).sum()) for count in (np.unique(r, return_counts=True)[1] for r in ranks))
    possible = judges**2 * (things**3 - things) - judges * ties
    best = values == values.max(axis=1, keepdims=True)
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return Stability(float(12 * spread / possible) if possible else math.nan, shares.tolist())
