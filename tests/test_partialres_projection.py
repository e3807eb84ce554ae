"""The distance between a mask's extent and a box, in closed forms and by loops."""

import numpy as np
import pytest

from mal.methods.baselines import box as box_labeler
from mal.methods.baselines import ellipse as ellipse_labeler
from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.polygons import round_trip
from mal.methods.partialres.projection import distance, filled_box, filled_ellipse
from tests.partialres_masks import blob, photographed_masks


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((60, 80), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def test_a_filled_box_has_distance_0():
    assert distance(rectangle(10, 20, 30, 25), (10, 20, 30, 25)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("moved", [1, 7, 20, 30])
def test_a_box_moved_by_k_of_its_width_has_k_over_it(moved):
    assert distance(rectangle(10 + moved, 20, 30, 25), (10, 20, 30, 25)) == pytest.approx(moved / 30, abs=1e-6)
    assert distance(rectangle(10, 5, 30, 40), (10, 5 + 10, 30, 40)) == pytest.approx(10 / 40, abs=1e-6)


@pytest.mark.parametrize("part", [1, 10, 15, 29])
def test_a_share_f_of_the_width_has_1_minus_2f_over_1_plus_f(part):
    share = part / 30
    expected = 1 - 2 * share / (1 + share)
    assert distance(rectangle(10, 20, part, 25), (10, 20, 30, 25)) == pytest.approx(expected, abs=1e-6)


def test_nothing_in_common_and_nothing_at_all_are_2():
    assert distance(rectangle(0, 0, 5, 5), (40, 30, 10, 10)) == pytest.approx(2)
    assert distance(np.zeros((60, 80), dtype=bool), (40, 30, 10, 10)) == pytest.approx(2)
    assert distance(np.zeros((60, 80), dtype=bool), (400, 300, 10, 10)) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(6))
def test_any_mask_against_loops(seed):
    mask, rng = blob(seed), np.random.default_rng(seed)
    box = (rng.uniform(-5, 30), rng.uniform(-5, 20), rng.uniform(3, 40), rng.uniform(3, 40))
    height, width = mask.shape
    expected = 0.0
    for axis, size in ((0, width), (1, height)):
        products = squares = given = 0
        for place in range(size):
            p = int(any(mask[r, place] if axis == 0 else mask[place, r] for r in range((height, width)[axis])))
            b = int(int(box[axis]) <= place <= int(box[axis]) + int(box[axis + 2]) - 1)
            products, squares, given = products + p * b, squares + p * p, given + b * b
        expected += 1 - 2 * products / (squares + given + 1e-5)
    assert distance(mask, box) == pytest.approx(expected, abs=1e-12)


def test_boxes_and_ellipses_are_filled_as_the_labelers_of_these_names_fill_them():
    rng = np.random.default_rng(0)
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    for _ in range(100):
        box = [*rng.uniform(-10, 50, 2), *rng.uniform(0.5, 40, 2)]
        for filled, labeler in ((filled_box, box_labeler), (filled_ellipse, ellipse_labeler)):
            expected = labeler.masks(pixels, np.array([box]))[0].pasted(40, 60)
            assert np.array_equal(filled(box, (40, 60)), expected)
    assert not filled_ellipse((3, 3, 0, 5), (40, 60)).any()


@pytest.mark.slow
def test_shares_below_a_tenth_on_photographs_are_reproduced(coco_mini):
    """The distance tests extent: whatever fills the box passes."""
    masks = photographed_masks(coco_mini)
    sequence = SequenceConfig(points=12)
    kinds = {
        1.00: lambda mask, box: filled_box(box, mask.shape),
        0.99: lambda mask, box: filled_ellipse(box, mask.shape),
        0.97: lambda mask, _: mask,
        0.86: lambda mask, _: round_trip(mask, sequence, 640),
    }
    for expected, make in kinds.items():
        kept = np.mean([distance(make(mask, box), box) < 0.1 for mask, box in masks])
        assert kept == pytest.approx(expected, abs=0.02)
