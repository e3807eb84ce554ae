"""Contours: which pixels, in which order, and the points that are taken of them."""

from itertools import pairwise

import numpy as np
import pytest

from mal.methods.partialres.contours import contour_points, outer_contour, sample
from tests.partialres_masks import blob


def rectangle(width: int, height: int) -> np.ndarray:
    mask = np.zeros((height + 5, width + 7), dtype=bool)
    mask[2 : 2 + height, 3 : 3 + width] = True
    return mask


@pytest.mark.parametrize(("width", "height"), [(2, 2), (3, 2), (5, 4), (40, 17)])
def test_a_rectangle_has_its_border_anticlockwise_from_its_upper_left_corner(width, height):
    found = outer_contour(rectangle(width, height))
    left, top, right, bottom = 3, 2, 2 + width, 1 + height
    expected = [(left, y) for y in range(top, bottom)] + [(x, bottom) for x in range(left, right)]
    expected += [(right, y) for y in range(bottom, top, -1)] + [(x, top) for x in range(right, left, -1)]
    assert found.tolist() == [list(pixel) for pixel in expected]
    assert len(found) == 2 * (width + height) - 4


@pytest.mark.parametrize("seed", range(8))
def test_a_contour_starts_leftmost_in_the_topmost_row_and_encircles_the_mask(seed):
    mask = blob(seed)
    found = outer_contour(mask)
    rows, columns = np.nonzero(mask)
    assert found[0].tolist() == [columns[rows == rows.min()].min(), rows.min()]
    steps = np.abs(np.diff(np.concatenate([found, found[:1]]), axis=0))
    assert steps.max() == 1
    assert (steps.sum(axis=1) > 0).all()
    x, y = found.T.astype(float)
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() < 0  # y goes down: anticlockwise on the screen
    # each pixel of the mask with a neighbour beside it that is background, and no other
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    border = mask.copy()
    border[1:-1, 1:-1] &= ~inner
    assert {tuple(pixel) for pixel in found.tolist()} == {(int(c), int(r)) for r, c in np.argwhere(border)}


def test_the_part_that_encloses_most_counts_holes_and_others_do_not():
    mask = np.zeros((30, 40), dtype=bool)
    mask[0, :] = True  # longer, and encloses nothing
    mask[5:15, 5:20] = True
    mask[8:11, 8:12] = False
    mask[20:24, 20:39] = True
    found = outer_contour(mask)
    assert len(found) == 2 * (15 + 10) - 4
    assert found.min(axis=0).tolist() == [5, 5]
    assert found.max(axis=0).tolist() == [19, 14]


def test_small_and_thin_masks():
    mask = np.zeros((6, 9), dtype=bool)
    assert outer_contour(mask).shape == (0, 2)
    assert contour_points(mask, 5, "arc").shape == contour_points(mask, 5, "pixels").shape == (0, 2)
    mask[2, 4] = True
    assert outer_contour(mask).tolist() == [[4, 2]]
    assert contour_points(mask, 5, "arc").tolist() == [[4.5, 2.5]] * 5
    assert contour_points(mask, 5, "pixels").tolist() == [[4.5, 2.5]]
    mask[2, 5] = True
    assert {tuple(each) for each in outer_contour(mask).tolist()} == {(4, 2), (5, 2)}


@pytest.mark.parametrize("count", [3, 8, 12, 18])
def test_every_so_manieth_pixel_for_contours_of_any_length(count):
    for n in range(3, 201):
        contour = np.stack([np.arange(n), 2 * np.arange(n)], axis=1)
        step = next(step for step in range(1, n + 1) if step * count >= n)
        found = sample(contour, count, "pixels")
        assert found.tolist() == [[i + 0.5, 2 * i + 0.5] for i in range(0, n, step)]
        assert len(found) == -(-n // step) <= count
    assert len(sample(np.zeros((count + 1, 2), dtype=np.int64), count, "pixels")) == -(-(count + 1) // 2)


@pytest.mark.parametrize("count", [3, 8, 18, 36])
def test_points_equal_in_arc_length_for_contours_of_any_length(count):
    rng = np.random.default_rng(0)
    for n in range(3, 201, 7):
        contour = rng.integers(0, 50, (n, 2))
        found = sample(contour, count, "arc")
        assert found.shape == (count, 2)
        assert found[0].tolist() == (contour[0] + 0.5).tolist()
        assert np.abs(found - walked(contour + 0.5, count)).max() < 1e-9


def walked(line: np.ndarray, count: int) -> np.ndarray:
    """Points along a closed line, found by walking from corner to corner."""
    corners = [*map(np.array, line.tolist()), np.array(line[0].tolist())]
    lengths = [float(np.sqrt(((b - a) ** 2).sum())) for a, b in pairwise(corners)]
    found = []
    for k in range(count):
        rest, at = k * sum(lengths) / count, 0
        while rest > lengths[at]:
            rest, at = rest - lengths[at], at + 1
        share = rest / lengths[at] if lengths[at] else 0.0
        found.append(corners[at] + share * (corners[at + 1] - corners[at]))
    return np.array(found)


def test_a_square_sampled_at_as_many_points_as_it_has_pixels_is_itself():
    contour = outer_contour(rectangle(9, 9))
    for how in ("arc", "pixels"):
        assert sample(contour, len(contour), how).tolist() == (contour + 0.5).tolist()
    assert sample(contour, 4, "arc").tolist() == [[3.5, 2.5], [3.5, 10.5], [11.5, 10.5], [11.5, 2.5]]
