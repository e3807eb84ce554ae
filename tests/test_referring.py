"""Masks and boxes of expressions measured: against loops, pycocotools, and resamples drawn one by one."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from mal.data.annotations import encode_mask
from mal.errors import MalError
from mal.metrics.bootstrap import image_weights
from mal.metrics.referring import (
    Scores,
    box_metrics,
    box_overlap,
    crowd_iou,
    interval,
    is_in_parts,
    mask_metrics,
    mask_overlap,
    of_mean,
    of_overall,
    of_precision,
    scores,
    write_scores,
)

RNG = np.random.default_rng(3)


def some_scores(seed: int = 0, expressions: int = 40, images: int = 9) -> Scores:
    rng = np.random.default_rng(seed)
    image_ids = np.random.default_rng(99).integers(0, images, expressions) * 7
    union = rng.integers(1, 500, expressions)
    common = (union * rng.random(expressions)).astype(int)
    return scores([*zip(range(expressions), image_ids, common, union, strict=True)])


def test_overlaps_of_masks_are_counted_pixel_by_pixel() -> None:
    for _ in range(20):
        first, second = RNG.random((2, 7, 9)) < 0.4
        both = sum(bool(a and b) for a, b in zip(first.flat, second.flat, strict=True))
        either = sum(bool(a or b) for a, b in zip(first.flat, second.flat, strict=True))
        assert mask_overlap(first, second) == (both, either)


def test_overlaps_of_boxes_are_areas() -> None:
    for _ in range(50):
        first, second = RNG.integers(0, 12, (2, 4))
        grid = np.zeros((2, 30, 30), dtype=bool)
        for plane, (x, y, w, h) in zip(grid, (first, second), strict=True):
            plane[y : y + h, x : x + w] = True
        assert box_overlap(first, second) == mask_overlap(*grid)
    assert box_overlap([0, 0, 1.5, 2], [1, 1, 1, 1]) == (0.5, 3.5)
    assert box_overlap([5, 5, -3, 4], [0, 0, 9, 9]) == (0, 81)


def test_the_iou_of_nothing_with_nothing_is_none() -> None:
    found = scores([(1, 1, 0, 0), (2, 1, 3, 4)])
    np.testing.assert_array_equal(found.iou, [0, 0.75])


def test_the_crowd_column_is_what_pycocotools_gives_for_crowds() -> None:
    for _ in range(30):
        predicted, truth = RNG.random((2, 8, 11)) < 0.5
        coded = [encode_mask(mask) for mask in (predicted, truth)]
        for in_parts in (True, False):
            expected = rle.iou([coded[0]], [coded[1]], [int(in_parts)])[0, 0]
            assert crowd_iou(predicted, truth, in_parts=in_parts) == pytest.approx(expected, abs=1e-12)
    one = np.zeros((8, 11), dtype=bool)
    assert crowd_iou(one, truth, in_parts=True) == 0
    one[tuple(np.argwhere(truth)[0])] = True
    assert crowd_iou(one, truth, in_parts=True) == 1


def test_a_truth_is_in_parts_by_its_polygons_or_by_what_hangs_together() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[:2, :2] = True
    triangle = [0, 0, 3, 0, 0, 3]
    assert not is_in_parts([triangle], mask)
    assert is_in_parts([triangle, triangle], mask)
    assert not is_in_parts(encode_mask(mask), mask)
    mask[2, 2] = True  # by a corner
    assert not is_in_parts(encode_mask(mask), mask)
    mask[5, 5] = True
    assert is_in_parts(encode_mask(mask), mask)


def test_measures_are_those_of_loops() -> None:
    found = some_scores()
    metrics = mask_metrics(found, resamples=50)
    ious = [i / u for i, u in zip(found.intersection, found.union, strict=True)]
    assert metrics["mean_iou"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    assert metrics["overall_iou"] == pytest.approx(sum(found.intersection) / sum(found.union), abs=1e-12)
    for name in (50, 60, 70, 80, 90):
        assert metrics[f"pr{name}"] == pytest.approx(np.mean([iou >= name / 100 for iou in ious]), abs=1e-12)
    assert metrics["expressions"] == 40
    assert all(metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"] for name in ("mean_iou", "pr50"))


def test_an_iou_at_a_threshold_counts() -> None:
    found = scores([(1, 1, 1, 2), (2, 1, 6, 10), (3, 2, 9, 10), (4, 2, 49, 100)])
    assert box_metrics(found, resamples=2)["rec_accuracy"] == 0.75
    assert [interval(found, of_precision(k), resamples=2).value for k in (0.6, 0.9)] == [0.5, 0.25]


@pytest.mark.parametrize("measure", [of_mean, of_overall, of_precision(0.5)])
def test_intervals_are_of_images_drawn_with_all_of_their_expressions(measure) -> None:
    found, resamples = some_scores(), 40
    images = sorted({*found.image_ids.tolist()})
    drawn = []
    for counts in image_weights(len(images), resamples, seed=5):
        rows = [
            row
            for image, count in zip(images, counts, strict=True)
            for row in np.flatnonzero(found.image_ids == image).tolist() * count
        ]
        part = Scores(found.ids[rows], found.image_ids[rows], found.intersection[rows], found.union[rows])
        above, below = measure(part)
        drawn.append(above.sum() / below.sum())
    one = interval(found, measure, resamples=resamples, seed=5)
    np.testing.assert_allclose((one.low, one.high), np.quantile(drawn, [0.025, 0.975]), atol=1e-12)


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(MalError, match="there is no expression to measure on"):
        mask_metrics(scores([]))


def test_a_file_of_scores_has_all_of_them(tmp_path: Path) -> None:
    found = some_scores()
    write_scores(tmp_path / "iou.npz", found, crowd_iou=found.iou)
    with np.load(tmp_path / "iou.npz") as held:
        for name in ("ids", "image_ids", "intersection", "union", "iou"):
            np.testing.assert_array_equal(held[name], getattr(found, name))
        assert "crowd_iou" in held
