"""Filled polygons, coordinates of image and square, and what sequences can reach."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from pycocotools import mask as rle

from mal.data.polygons import fill_holes
from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.contours import contour_points, outer_contour
from mal.methods.partialres.filling import mask_of
from mal.methods.partialres.polygons import ceiling, round_trip, to_image, to_square
from mal.methods.partialres.sequences import points_of
from mal.metrics.masks import iou
from tests.partialres_masks import blob, disc, photographed_masks


@pytest.mark.parametrize("seed", range(12))
def test_a_filled_whole_contour_is_the_mask_without_its_holes(seed):
    mask = blob(seed)
    holed = mask.copy()
    rows, columns = np.nonzero(mask)
    middle = len(rows) // 2
    inside = np.s_[rows[middle] : rows[middle] + 1, columns[middle] : columns[middle] + 1]
    holed[inside] = False
    points = outer_contour(holed) + 0.5
    found = mask_of(points, *mask.shape, "contour")
    assert np.array_equal(found, fill_holes(holed))


def test_fewer_than_three_points_are_empty_and_three_are_not():
    corners = np.array([[2.0, 2.0], [12.0, 2.0], [2.0, 12.0]])
    for fill in ("contour", "coco"):
        for count in range(3):
            assert not mask_of(corners[:count], 20, 30, fill).any()
        assert mask_of(corners, 20, 30, fill).sum() > 20
        assert mask_of(corners, 20, 30, fill).shape == (20, 30)


def test_a_triangle_drawn_with_its_contour_against_every_pixels_centre():
    """Pixels whose centre lies in the polygon through the corners' pixels' centres, border included."""
    corners = np.array([[3, 4], [25, 9], [8, 27]])
    y, x = np.mgrid[:30, :30]
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    inside = np.all([side >= 0 for side in sides], axis=0)
    found = mask_of(corners + np.array([0.5, 0.5]), 30, 30, "contour")
    assert (found & inside).sum() == inside.sum()
    assert (found & ~inside).sum() <= 50  # the line itself, as wide as a pixel
    assert np.array_equal(found, mask_of(corners + np.array([0.99, 0.01]), 30, 30, "contour"))


@pytest.mark.parametrize(("size", "side"), [(400, 640), (500, 640), (427, 160), (64, 64)])
def test_a_corner_lies_in_the_pixel_of_its_exact_place(size, side):
    """Where a bin's centre is the border of a pixel, rounding must not put it into the one before."""
    for token in range(1000):
        exact = Fraction(2 * token + 1, 2000) * size  # of the bin's centre
        column = to_image(points_of(np.array([token, 0]), 1000, side, "centre"), size, size, side)[0, 0]
        points = np.array([[column, 0.5], [column, 1.5], [column, 2.5]])
        found = mask_of(points, 3, size, "contour")
        assert found[1].nonzero()[0].tolist() == [floor(exact)]
        assert np.array_equal(found, mask_of(points.round(3), 3, size, "contour"))


def test_cocos_rasteriser_takes_pixels_as_places():
    points = contour_points(disc(40, 13.3), 12, "arc")
    corners = [(points - 0.5).ravel().tolist()]
    runs = rle.frPyObjects(corners, 40, 40)
    found = mask_of(points, 40, 40, "coco")
    assert rle.iou(runs, rle.encode(np.asfortranarray(found.astype(np.uint8))[:, :, None]), [0]).tolist() == [[1.0]]
    assert found.sum() == rle.area(runs)[0] > 400


@pytest.mark.parametrize("fill", ["contour", "coco"])
def test_what_lies_outside_the_image_is_cut_off(fill):
    corners = np.array([[-20.0, 5.0], [50.0, 5.0], [50.0, 80.0], [-20.0, 80.0]])
    found = mask_of(corners, 20, 30, fill)
    assert found[6:].all()
    assert not found[:4].any()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (37, 37), (100, 7)])
def test_image_and_square_and_back(height, width):
    points = np.random.default_rng(0).random((20, 2)) * [width, height]
    there = to_square(points, height, width, 640)
    assert np.abs(to_image(there, height, width, 640) - points).max() < 1e-9
    assert there == pytest.approx(points * 640 / max(height, width))
    assert to_square(np.array([[width, height]]), height, width, 640).max() == pytest.approx(640)


def test_a_ceiling_is_the_score_of_the_masks_own_points():
    mask = blob(3)
    fine = SequenceConfig(points=1024, bins=1 << 16)
    assert ceiling(mask, fine, 640) == 1
    coarse = SequenceConfig(points=6, bins=64)
    assert ceiling(mask, coarse, 64) == pytest.approx(iou(round_trip(mask, coarse, 64), mask))
    assert 0.3 < ceiling(mask, coarse, 64) < 0.95
    assert ceiling(np.zeros((9, 9), dtype=bool), coarse, 64) == 0


def test_a_ceiling_grows_with_points():
    masks = [blob(seed) for seed in range(10)]
    means = [np.mean([ceiling(m, SequenceConfig(points=n), 640) for m in masks]) for n in (4, 8, 16, 32)]
    assert means == sorted(means)


@pytest.mark.slow
def test_ceilings_on_photographs_are_reproduced(coco_mini):
    masks = [mask for mask, _ in photographed_masks(coco_mini)]
    assert len(masks) == 1339
    arc = SequenceConfig(bins=1 << 16)  # bins that do not count
    coco = replace(arc, points=12, fill="coco")
    cases = {
        0.799: replace(arc, points=8),
        0.869: replace(arc, points=12),
        0.914: replace(arc, points=18),
        0.953: replace(arc, points=36),
        0.840: coco,
        0.827: replace(coco, bins=1000, read_back="floor"),
        0.835: replace(coco, bins=1000),
    }
    for expected, sequence in cases.items():
        found = np.mean([ceiling(mask, sequence, 640) for mask in masks])
        assert found == pytest.approx(expected, abs=0.005), sequence
    whole = [iou(mask_of(outer_contour(mask) + 0.5, *mask.shape, "contour"), mask) for mask in masks]
    assert np.mean(whole) == pytest.approx(0.982, abs=0.005)
