"""Sequences: bins and back, padding, order, and what each task is fed and asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal.methods.partialres.sequences import (
    UNLEARNED,
    box_targets,
    end,
    length,
    mask_targets,
    padded,
    points_of,
    quantise,
    read_back,
    shuffled,
    task_box,
    task_mask,
    taskwise_targets,
)

BOX = np.array([3, 4, 50, 60])


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=40),
    st.sampled_from([2, 64, 1000]),
    st.sampled_from([64, 640]),
)
def test_a_round_trip_stays_within_half_a_bin_or_a_bin_below(shares, bins, side):
    points = np.array(shares[: len(shares) // 2 * 2]).reshape(-1, 2) * side
    tokens = quantise(points, bins, side)
    assert tokens.tolist() == [int(u / side * bins) for u in points.ravel().tolist()]
    centre, floor = (read_back(tokens, bins, side, how).reshape(-1, 2) for how in ("centre", "floor"))
    width = side / bins
    assert np.abs(centre - points).max() <= width / 2 * (1 + 1e-9)
    assert (points - floor).min() >= -1e-9 * side
    assert (points - floor).max() <= width * (1 + 1e-9)
    assert quantise(centre, bins, side).tolist() == tokens.tolist()


def test_points_outside_the_square_are_moved_to_its_border():
    assert quantise(np.array([[-3.0, 64.0], [200.0, 0.0]]), 10, 64).tolist() == [0, 9, 9, 0]


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ([1, 2, 3, 4, 10, 6], [1, 2, 3, 4]),
        ([1, 2, 3, 10, 5, 6], [1, 2]),
        ([1, 2, 3], [1, 2]),
        ([10, 2, 3, 4], []),
        ([1, 2, 10, 4, 10, 10], [1, 2]),
    ],
)
def test_a_sequence_is_cut_at_its_first_end_and_loses_an_odd_coordinate(tokens, kept):
    assert points_of(np.array(tokens), 10, 100, "floor").ravel().tolist() == [10.0 * token for token in kept]
    assert points_of(np.array(tokens), 10, 100, "centre").ravel().tolist() == [10.0 * token + 5 for token in kept]


@given(st.integers(0, 12), st.integers(0, 6), st.integers(0, 1 << 20))
def test_shuffling_permutes_points_and_leaves_the_end_last(points, padding, seed):
    tokens = padded(np.arange(2 * points), 2 * (points + padding), 99)
    found = shuffled(tokens, 99, np.random.default_rng(seed))
    assert len(found) == len(tokens)
    assert found[2 * points :].tolist() == [end(99)] * (2 * padding)
    pairs = found[: 2 * points].reshape(-1, 2).tolist()
    assert sorted(pairs) == [[2 * i, 2 * i + 1] for i in range(points)]


def test_every_sequence_has_a_permutation_of_its_own():
    rng = np.random.default_rng(0)
    orders = {tuple(shuffled(np.arange(36), 99, rng).tolist()) for _ in range(50)}
    assert len(orders) == 50
    firsts = [int(shuffled(np.arange(8), 99, rng)[0]) for _ in range(4000)]
    assert all(abs(firsts.count(2 * i) - 1000) < 120 for i in range(4))


def test_a_box_is_asked_for_in_five_places_and_x1_counts_more():
    found = box_targets(BOX, 100, first=1.5)
    assert found.inputs.tolist() == [task_box(100), 3, 4, 50, 60]
    assert found.labels.tolist() == [3, 4, 50, 60, 100]
    assert found.weights.tolist() == [1.5, 1, 1, 1, 1]
    assert len(found.inputs) == length("box", 18)


def test_a_contour_is_fed_one_place_ahead_and_each_end_counts_less():
    found = mask_targets(padded(np.array([7, 8, 9, 10]), 6, 100), 100, end_weight=0.1)
    assert found.inputs.tolist() == [task_mask(100), 7, 8, 9, 10, 100, 100]
    assert found.labels.tolist() == [7, 8, 9, 10, 100, 100, 100]
    assert found.weights.tolist() == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1])
    assert len(found.inputs) == length("mask", 3)
    whole = mask_targets(np.array([7, 8, 9, 10]), 100, end_weight=0.1)
    assert whole.labels.tolist() == [7, 8, 9, 10, 100]


def test_both_tasks_in_one_sequence():
    found = taskwise_targets(BOX, np.array([7, 8, 9, 10, 100, 100]), 100, points=3, first=1.5)
    assert found.inputs.tolist() == [101, 3, 4, 50, 60, 102, 7, 8, 9, 10, 100, 100]
    assert found.labels.tolist() == [3, 4, 50, 60, 100, 7, 8, 9, 10, 100, 100, 100]
    assert found.weights.tolist() == [1.5] + [1] * 11
    assert len(found.inputs) == length("taskwise", 3) == 2 * 3 + 6


def test_an_object_without_a_mask_has_a_box_to_say_alone():
    found = taskwise_targets(BOX, None, 100, points=3, first=1.5)
    whole = taskwise_targets(BOX, np.array([7, 8, 9, 10, 11, 12]), 100, points=3, first=1.5)
    assert found.labels.tolist() == [3, 4, 50, 60, 100] + [UNLEARNED] * 7
    assert found.inputs[:6].tolist() == whole.inputs[:6].tolist()
    assert found.inputs.max() == task_mask(100)
    assert len(found.inputs) == len(whole.inputs)


def test_targets_have_the_types_that_batches_are_stacked_from():
    for found in (
        box_targets(BOX, 100, first=1.5),
        mask_targets(np.array([7, 8]), 100, end_weight=0.1),
        taskwise_targets(BOX, None, 100, points=3, first=1.5),
    ):
        assert (found.inputs.dtype, found.labels.dtype, found.weights.dtype) == (np.int64, np.int64, np.float32)
