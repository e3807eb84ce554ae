"""Intervals, tests and corrections against closed forms, scipy, and data whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats as theirs

from analysis.stats import (
    ByImage,
    bias_corrected,
    bootstrap_p,
    holm,
    image_weights,
    mean_interval,
    percentile,
    ratio,
    seeds_interval,
    sign_flip_p,
)
from mal.metrics.bootstrap import ap_from_matches, ap_samples
from mal.metrics.matches import AREAS, MatchArrays

SETS = 500  # simulated data sets of a coverage


def covered_by_normal_theory(images: int) -> float:
    """The share that the percentile interval of a mean of normal values covers (see the top of analysis/stats.py)."""
    reach = theirs.norm.ppf(0.975) * math.sqrt((images - 1) / images)
    return float(2 * theirs.t.cdf(reach, images - 1) - 1)


def is_covered_as(expected: float, hits: int, sets: int = SETS) -> bool:
    """Within three binomial standard errors."""
    return abs(hits / sets - expected) < 3 * math.sqrt(expected * (1 - expected) / sets)


def clustered(rng: np.random.Generator, images: int, *, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """Differences of 6 instances an image that share most of what moves them, and their images."""
    shared = rng.normal(truth, 0.1, size=images)
    return np.repeat(shared, 6) + rng.normal(0, 0.03, size=6 * images), np.repeat(np.arange(images), 6)


@pytest.mark.parametrize(("images", "stated"), [(10, 0.90), (30, 0.936), (100, 0.946)])
def test_the_shares_stated_for_few_images_are_those_of_normal_theory(images: int, stated: float) -> None:
    assert covered_by_normal_theory(images) == pytest.approx(stated, abs=0.005)


def test_the_95_percent_interval_covers_a_known_difference() -> None:
    rng, hits = np.random.default_rng(1), 0
    for seed in range(SETS):
        interval = mean_interval(*clustered(rng, 40, truth=0.03), resamples=500, seed=seed)
        hits += interval.low <= 0.03 <= interval.high
    assert is_covered_as(covered_by_normal_theory(40), hits)


def test_resampling_instances_instead_of_images_would_cover_far_less() -> None:
    rng, hits = np.random.default_rng(1), 0
    for seed in range(100):
        differences, _ = clustered(rng, 40, truth=0.03)
        interval = mean_interval(differences, np.arange(len(differences)), resamples=300, seed=seed)
        hits += interval.low <= 0.03 <= interval.high
    assert hits < 75


def test_the_95_percent_interval_covers_a_known_ratio() -> None:
    rng, hits = np.random.default_rng(2), 0
    for seed in range(SETS):
        hard = rng.gamma(4, 0.1, size=60)  # what makes an image hard for both
        below, above = hard + rng.normal(0, 0.05, 60), 0.9 * hard + rng.normal(0, 0.05, 60)
        weights = image_weights(60, 500, seed=seed)
        interval = percentile(above.sum() / below.sum(), ratio(weights @ above, weights @ below))
        hits += interval.low <= 0.9 <= interval.high
    assert is_covered_as(covered_by_normal_theory(60), hits)


def test_the_bias_corrected_interval_of_an_unbiased_value_is_the_percentile_interval() -> None:
    samples = np.random.default_rng(0).normal(0.4, 0.1, size=100_001)
    ours, plain = bias_corrected(float(np.median(samples)), samples), percentile(0.4, samples)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=1e-3)
    assert bias_corrected(0.0, np.zeros(100)) == percentile(0.0, np.zeros(100))
    assert bias_corrected(0.5, np.full(100, math.nan)) == percentile(0.5, np.full(100, math.nan))


def test_the_bias_corrected_interval_undoes_a_shift_of_the_samples() -> None:
    normal = np.random.default_rng(0).normal(size=100_001)
    found = bias_corrected(0.0, normal + 0.7)  # as if the value were too high by .7 itself
    assert (found.low, found.high) == pytest.approx((-0.7 - 1.96, -0.7 + 1.96), abs=0.06)


def matches_of(rng: np.random.Generator, images: int, categories: int) -> MatchArrays:
    """Objects on 15 of 100 images, of which 7 of 10 are found with the higher scores, and false detections."""
    objects = rng.random((images, categories)) < 0.15
    true = np.argwhere(objects & (rng.random(objects.shape) < 0.7))
    false = np.argwhere(rng.random(objects.shape) < 0.2)
    image, category = np.concatenate([true, false]).T
    score = np.concatenate([rng.normal(1, 1, len(true)), rng.normal(0, 1, len(false))])
    state = np.repeat(np.array([1, 0], dtype=np.int8), [len(true), len(false)])
    order = np.lexsort((-score, image, category))
    where = np.argwhere(objects).T
    return MatchArrays(
        np.arange(images), np.arange(categories), np.array([0.5]), image[order], category[order], score[order],
        np.broadcast_to(state[order], (len(AREAS), 1, len(order))), *where,
        np.ones((len(AREAS), len(where[0])), dtype=bool),
    )  # fmt: skip


def test_the_bias_corrected_interval_holds_the_ap_of_endless_images_more_often() -> None:
    truth = ap_from_matches(matches_of(np.random.default_rng(99), 200_000, 1))
    rng, plain, corrected = np.random.default_rng(1), 0, 0
    for seed in range(40):
        matches = matches_of(rng, 60, 12)
        value, samples = ap_from_matches(matches), ap_samples(matches, image_weights(60, 100, seed=seed))
        first, second = percentile(value, samples), bias_corrected(value, samples)
        plain += first.low <= truth <= first.high
        corrected += second.low <= truth <= second.high
    assert corrected >= plain + 4


def test_a_mean_over_images_of_one_instance_has_the_standard_error_of_the_closed_form() -> None:
    values = np.random.default_rng(0).normal(size=200)
    samples = ByImage.of(values, np.arange(200)).resampled(image_weights(200, 20_000))
    assert samples.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.02)
    interval = percentile(values.mean(), samples)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.04)


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    values = np.random.default_rng(3).gamma(2, size=80)
    ours = mean_interval(values, np.arange(80), resamples=20_000)
    of_scipy = theirs.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    found = of_scipy.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((found.low, found.high), abs=0.02)


def test_a_resample_is_the_same_as_a_data_set_with_copies_of_images() -> None:
    rng = np.random.default_rng(0)
    values, images = rng.random(30), rng.integers(5, 12, size=30)
    grouped = ByImage.of(values, images)
    weights = image_weights(len(grouped.sums), 50)
    assert (weights.sum(axis=1) == len(grouped.sums)).all()
    ids = np.unique(images)
    by_hand = [np.concatenate([values[images == i] for i in np.repeat(ids, row)]).mean() for row in weights]
    assert grouped.resampled(weights) == pytest.approx(by_hand)
    assert grouped.mean == pytest.approx(values.mean())


def test_a_ratio_to_nothing_could_be_anything_and_is_not_dropped() -> None:
    found = ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0, math.nan]))
    assert found[0] == 0.5
    assert np.isnan(found[1:]).all()
    interval = percentile(0.5, np.r_[np.full(90, 0.5), np.full(10, math.nan)])
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    interval = percentile(0.5, np.r_[np.full(99, 0.5), math.nan])
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_the_sign_flip_p_of_few_images_is_exact() -> None:
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.15, -0.1])
    of_scipy = theirs.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(ByImage.of(differences, np.arange(7))) == pytest.approx(of_scipy.pvalue)
    assert sign_flip_p(ByImage.of([0.1] * 5, np.arange(5))) == 2 / 2**5


def test_the_sign_flip_p_of_many_images_is_near_the_t_tests() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, size=120)
    expected = theirs.ttest_1samp(differences, 0).pvalue
    assert sign_flip_p(ByImage.of(differences, np.arange(120))) == pytest.approx(expected, abs=0.01)


def test_an_image_turns_its_sign_as_a_whole() -> None:
    """Two images of ten instances are two coin tosses, not twenty."""
    assert sign_flip_p(ByImage.of([0.1] * 20, np.repeat([0, 1], 10))) == 0.5


def test_nothing_differs_and_p_is_one() -> None:
    assert sign_flip_p(ByImage.of(np.zeros(40), np.arange(40))) == 1
    assert bootstrap_p(np.zeros(100)) == 1


def test_under_no_difference_p_is_below_5_percent_in_5_percent_of_data_sets() -> None:
    rng = np.random.default_rng(5)
    hits = sum(sign_flip_p(ByImage.of(*clustered(rng, 20, truth=0.0)), flips=999, seed=i) <= 0.05 for i in range(SETS))
    assert is_covered_as(0.05, hits)


def test_the_bootstrap_p_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(6)
    for shift in np.linspace(-3, 3, 61):
        samples = rng.normal(shift, 1, size=999)
        interval = percentile(shift, samples)
        outside = interval.low > 0 or interval.high < 0
        clear = min(abs(interval.low), abs(interval.high)) > 0.1
        assert not clear or outside == (bootstrap_p(samples) <= 0.05)
    assert bootstrap_p(np.full(999, 1.0)) == 2 / 1000
    assert bootstrap_p(np.full(999, math.nan)) == 1


def test_holm_is_the_published_example_and_never_falls() -> None:
    # Holm's procedure on .01, .04, .03, .005: 4 × .005, 3 × .01, 2 × .03, and .04 raised to the .06 before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_wrong_finding() -> None:
    p = np.random.default_rng(7).random((4000, 5))  # five true null hypotheses
    wrong = sum(min(holm(list(row))) <= 0.05 for row in p)
    assert is_covered_as(1 - (1 - 0.05 / 5) ** 5, wrong, 4000)  # Holm's first step is Bonferroni's


def test_the_interval_over_seeds_is_students() -> None:
    values = [0.93, 0.94, 0.75]
    expected = theirs.t.interval(0.95, 2, loc=np.mean(values), scale=theirs.sem(values))
    found = seeds_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), *expected))
    assert seeds_interval([0.9]).low == -math.inf
