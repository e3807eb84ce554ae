"""Mean IoU against loops over pixels, and intervals against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal.errors import MalError
from mal.metrics.bootstrap import image_weights
from mal.metrics.semantic import ClassCounts, Measured, confusion, iou, mean_iou, miou_difference, miou_interval

CLASSES = 5


def by_loops(truths: list[np.ndarray], predictions: list[np.ndarray], which: list[int]) -> float:
    """Mean IoU as its definition says it, pixel by pixel."""
    matrix = [[0] * (CLASSES + 1) for _ in range(CLASSES)]  # last column: predicted as no class
    for truth, predicted in zip(truths, predictions, strict=True):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                true, guess = int(truth[row, column]), int(predicted[row, column])
                if true != 255:
                    matrix[true][min(guess, CLASSES)] += 1
    found = []
    for place in which:
        gt = sum(matrix[place])
        pred = sum(row[place] for row in matrix)
        if gt:
            found.append(matrix[place][place] / (gt + pred - matrix[place][place]))
    return sum(found) / len(found) if found else math.nan


def drawn(seed: int, images: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 3, 255], dtype=np.uint8)  # 4 is nowhere in the truth
    truths = [rng.choice(values, size=(5, 6)) for _ in range(images)]
    guesses = np.array([0, 1, 2, 3, 4, 255], dtype=np.uint8)
    mistaken = [np.where(rng.random(t.shape) < 0.5, rng.choice(guesses, size=t.shape), t) for t in truths]
    return truths, mistaken


def measured(seed: int, *, which: tuple[int, ...] = (1, 3), images: int = 4, truth_seed: int | None = None) -> Measured:
    truths, predictions = drawn(seed, images)
    if truth_seed is not None:
        truths = drawn(truth_seed, images)[0]
    counts = [confusion(t, p, CLASSES) for t, p in zip(truths, predictions, strict=True)]
    return Measured(np.arange(images), ClassCounts(*(np.stack(part) for part in zip(*counts, strict=True))), which)


@given(st.integers(0, 1 << 32), st.sets(st.integers(0, CLASSES - 1), min_size=1))
def test_mean_iou_is_that_of_loops_over_pixels(seed: int, which: set[int]) -> None:
    truths, predictions = drawn(seed)
    counts = [confusion(t, p, CLASSES) for t, p in zip(truths, predictions, strict=True)]
    summed = [sum(part) for part in zip(*counts, strict=True)]
    found, expected = mean_iou(*summed, which), by_loops(truths, predictions, sorted(which))
    np.testing.assert_allclose(found, expected, rtol=1e-12, equal_nan=True)


def test_absent_classes_are_left_out_and_unlabelled_pixels_ignored() -> None:
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 2]], dtype=np.uint8)
    counts = confusion(truth, predicted, 3)
    assert [part.tolist() for part in counts] == [[1, 1, 0], [2, 1, 0], [1, 2, 0]]
    np.testing.assert_allclose(iou(*counts), [1 / 2, 1 / 2, math.nan])
    assert mean_iou(*counts, [0, 2]) == 0.5
    assert math.isnan(mean_iou(*counts, [2]))


def test_a_class_that_is_only_predicted_is_absent_but_costs_others() -> None:
    counts = confusion(np.array([[0, 0]], dtype=np.uint8), np.array([[0, 2]], dtype=np.uint8), 3)
    assert mean_iou(*counts, [0, 1, 2]) == 0.5


def test_a_pixel_without_a_prediction_misses_its_class() -> None:
    counts = confusion(np.array([[0, 0, 1]], dtype=np.uint8), np.array([[0, 255, 255]], dtype=np.uint8), 2)
    assert [part.tolist() for part in counts] == [[1, 0], [2, 1], [1, 0]]


def test_maps_that_cannot_be_compared_are_refused() -> None:
    small, large = np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="pixels and the prediction"):
        confusion(small, large, 2)
    with pytest.raises(ValueError, match="beyond the 2 there are"):
        confusion(small, small + 2, 2)
    with pytest.raises(ValueError, match="beyond the 2 there are"):
        confusion(small + 2, small, 2)


def test_an_interval_is_of_resampled_images() -> None:
    run, resamples = measured(3, images=6), 200
    truths, predictions = drawn(3, 6)
    samples = []
    for row in image_weights(6, resamples, seed=5):
        places = [place for place, times in enumerate(row) for _ in range(times)]
        samples.append(by_loops([truths[i] for i in places], [predictions[i] for i in places], [1, 3]))
    found = miou_interval(run, resamples=resamples, seed=5)
    assert found.value == pytest.approx(by_loops(truths, predictions, [1, 3]), rel=1e-12)
    np.testing.assert_allclose([found.low, found.high], np.quantile(samples, [0.025, 0.975]), rtol=1e-12)


def test_a_difference_is_of_the_same_resampled_images() -> None:
    first, second = measured(3, images=6), measured(4, images=6, truth_seed=3)
    resamples = 100
    truths, predictions = drawn(3, 6)
    others = drawn(4, 6)[1]
    samples = []
    for row in image_weights(6, resamples, seed=2):
        places = [place for place, times in enumerate(row) for _ in range(times)]
        t, p, o = ([maps[i] for i in places] for maps in (truths, predictions, others))
        samples.append(by_loops(t, p, [1, 3]) - by_loops(t, o, [1, 3]))
    found = miou_difference([(first, second)], resamples=resamples, seed=2)
    assert found.value == pytest.approx(by_loops(truths, predictions, [1, 3]) - by_loops(truths, others, [1, 3]))
    np.testing.assert_allclose([found.low, found.high], np.quantile(samples, [0.025, 0.975]), atol=1e-12)


def test_a_run_does_not_differ_from_itself() -> None:
    run = measured(8)
    found = miou_difference([(run, run), (run, run)], resamples=50)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_several_pairs_are_averaged_and_resampled() -> None:
    """Two pairs of one image each, differences 1 and 0: a resample draws both, or one twice: 1, .5 or 0."""
    right = ClassCounts(*(np.array([[4, 0]]) for _ in range(3)))
    wrong = ClassCounts(np.array([[0, 0]]), right.gt, np.array([[0, 4]]))
    good, bad = (Measured(np.array([1]), counts, (0,)) for counts in (right, wrong))
    found = miou_difference([(good, bad), (good, good)], resamples=2000)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)


def test_pairs_that_are_not_independent_are_drawn_together() -> None:
    """Two nested splits tell as much as one: their differences, 1 and 0, are always both drawn. With a third, of 1, on
    its own, a resample holds both units, or one twice: (1 + 0 + 1) / 3, (1 + 0) / 2 or 1."""
    right = ClassCounts(*(np.array([[4, 0]]) for _ in range(3)))
    wrong = ClassCounts(np.array([[0, 0]]), right.gt, np.array([[0, 4]]))
    good, bad = (Measured(np.array([1]), counts, (0,)) for counts in (right, wrong))
    nested = [(good, bad), (good, good)]
    found = miou_difference(nested, units=["a", "a"], resamples=200)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    found = miou_difference([*nested, (good, bad)], units=["a", "a", "b"], resamples=200)
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), 0.5, 1)


def test_a_resample_without_the_class_widens_the_interval() -> None:
    """Two images, one with the class: a quarter of the resamples lack it, and could have had any mean."""
    counts = ClassCounts(np.array([[2], [0]]), np.array([[4], [0]]), np.array([[2], [0]]))
    found = miou_interval(Measured(np.array([1, 2]), counts, (0,)), resamples=1000)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    run = Measured(np.array([1, 2]), counts, (0,))
    assert miou_difference([(run, run)], resamples=1000).low == -1


def test_runs_that_cannot_be_paired_are_refused() -> None:
    run = measured(1)
    with pytest.raises(MalError, match="on different images"):
        miou_difference([(run, Measured(run.image_ids + 1, run.counts, run.which))])
    with pytest.raises(MalError, match="on different class maps"):
        miou_difference([(run, measured(2))])
    with pytest.raises(MalError, match="about different classes"):
        miou_difference([(run, Measured(run.image_ids, run.counts, (1,)))])
