"""Rank correlations and rankings against scipy, enumeration, and data whose truth is known."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats as theirs

from analysis.compare.rankings import rank_correlation, stability

X = [3.1, 0.2, 5.5, 4.4, 1.0, 2.0]
Y = [10.0, 2.0, 9.0, 30.0, 1.0, 2.0]  # with a tie


def test_the_correlations_are_scipys_with_ties_too() -> None:
    assert rank_correlation(X, Y).interval.value == pytest.approx(theirs.spearmanr(X, Y).statistic)


def test_the_p_of_few_points_tries_every_order() -> None:
    seen = abs(theirs.spearmanr(X, Y).statistic) - 1e-9
    extreme = sum(abs(theirs.spearmanr(X, order).statistic) >= seen for order in permutations(Y))
    assert rank_correlation(X, Y).p == pytest.approx(extreme / math.factorial(6))


def test_five_points_in_perfect_order_leave_a_wide_interval() -> None:
    found = rank_correlation(range(5), range(5))
    assert found.interval.value == 1
    assert found.interval.high == 1
    assert 0 < found.interval.low < 0.6
    assert found.p == pytest.approx(2 / math.factorial(5))


def test_the_lower_bound_of_perfect_order_is_the_correlation_that_gives_it_in_one_of_forty() -> None:
    """Simulated anew: at the bound, five normal pairs are in perfect order with a chance of 2.5 %."""
    low = rank_correlation(range(5), range(5)).interval.low
    r, rng = 2 * math.sin(math.pi / 6 * low), np.random.default_rng(99)
    x, noise = rng.standard_normal((2, 100_000, 5))
    y = r * x + math.sqrt(1 - r**2) * noise
    perfect = (x.argsort(axis=1) == y.argsort(axis=1)).all(axis=1).mean()
    assert perfect == pytest.approx(0.025, abs=0.004)


@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("rho", [0.0, 0.75])
def test_the_interval_covers_a_known_correlation(n: int, rho: float) -> None:
    r, rng, hits = 2 * math.sin(math.pi / 6 * rho), np.random.default_rng(n), 0
    for _ in range(250):
        x, noise = rng.standard_normal((2, n))
        interval = rank_correlation(np.exp(x), (r * x + math.sqrt(1 - r**2) * noise) ** 3).interval
        hits += interval.low <= rho <= interval.high
    assert hits / 250 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 250)


def test_with_many_points_the_interval_is_fishers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = 0.6 * x + 0.8 * rng.normal(size=60)
    found = rank_correlation(x, y)
    rho, error = found.interval.value, math.sqrt((1 + found.interval.value**2 / 2) / 57)  # Bonett and Wright, 2000
    expected = [math.tanh(math.atanh(rho) + side * 1.96 * error) for side in (-1, 1)]
    assert [found.interval.low, found.interval.high] == pytest.approx(expected, abs=0.05)
    assert found.p == pytest.approx(theirs.spearmanr(x, y).pvalue, abs=0.001)


def test_the_sign_of_the_order_turns_the_interval() -> None:
    up, down = (rank_correlation([1, 2, 3, 4, 5, 6], y).interval for y in ([1, 3, 2, 4, 6, 5], [6, 4, 5, 3, 1, 2]))
    assert down.value == pytest.approx(-up.value)
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low), abs=0.04)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 2])])
def test_what_has_no_order_is_refused(x: list[int], y: list[int]) -> None:
    with pytest.raises(ValueError, match="rank correlation"):
        rank_correlation(x, y)


def test_concordance_is_friedmans_and_follows_from_the_mean_correlation() -> None:
    scores = np.random.default_rng(0).random((4, 6)) + np.arange(6) / 6
    found = stability(scores)
    assert 4 * 5 * found.w == pytest.approx(theirs.friedmanchisquare(*scores.T).statistic)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    mean = np.mean([theirs.spearmanr(scores[i], scores[j]).statistic for i, j in pairs])
    assert (4 * found.w - 1) / 3 == pytest.approx(mean)  # Kendall and Gibbons, without ties


def test_concordance_is_corrected_for_ties() -> None:
    scores = np.array([[1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 2.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    assert 3 * 3 * stability(scores).w == pytest.approx(theirs.friedmanchisquare(*scores.T).statistic)
    assert stability([[1, 2, 3], [4, 5, 6]]).w == 1


def test_the_first_place_is_shared_by_equals() -> None:
    assert stability([[1, 2, 2], [3, 0, 1], [0, 0, 5], [9, 1, 1]]).first == [0.5, 0.125, 0.375]
