"""Box, ellipse and GrabCut: what needs no learning."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.data.annotations import CocoDict, annotations_by_image, encode_mask, only_images, read
from mal.data.images import load_for
from mal.methods.baselines import box, ellipse, grabcut
from mal.metrics.masks import iou, mask_quality, select_images

HEIGHT, WIDTH = 12, 17
BLANK = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)


def whole_masks(labeler: ModuleType, pixels: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """A labeler's masks, each as large as the image."""
    return [window.pasted(*pixels.shape[:2]) for window in labeler.masks(pixels, boxes)]


boxes_xywh = st.tuples(
    st.floats(-5, WIDTH + 5), st.floats(-5, HEIGHT + 5), st.floats(0.01, WIDTH + 9), st.floats(0.01, HEIGHT + 9)
)


@given(boxes_xywh)
@settings(deadline=None, max_examples=60)
def test_box_fills_truncated_start_to_rounded_up_end(xywh):
    x, y, w, h = xywh
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            expected[row, column] = int(x) <= column <= math.ceil(x + w) - 1 and int(y) <= row <= math.ceil(y + h) - 1
    (mask,) = whole_masks(box, BLANK, np.array([xywh]))
    np.testing.assert_array_equal(mask, expected)


@given(boxes_xywh)
@settings(deadline=None, max_examples=60)
def test_ellipse_holds_the_pixel_centres_inside_it(xywh):
    x, y, w, h = xywh
    (mask,) = whole_masks(ellipse, BLANK, np.array([xywh]))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            distance = ((column + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((row + 0.5 - y - h / 2) / (h / 2)) ** 2
            if abs(distance - 1) > 1e-9:
                assert mask[row, column] == (distance < 1)


@given(st.floats(0, 9), st.floats(0, 5), st.floats(1.4143, 7), st.floats(1.4143, 6))
@settings(deadline=None, max_examples=60)
def test_ellipse_wider_than_a_pixel_diagonal_is_never_empty(x, y, w, h):
    (mask,) = whole_masks(ellipse, BLANK, np.array([(x, y, w, h)]))
    assert mask.any()


def test_ellipse_covers_a_quarter_pi_of_its_box():
    (mask,) = whole_masks(ellipse, np.zeros((500, 700, 3), dtype=np.uint8), np.array([(20.3, 31.7, 600.5, 401.1)]))
    assert mask.sum() == pytest.approx(np.pi / 4 * 600.5 * 401.1, rel=1e-3)


@pytest.mark.parametrize("labeler", [box, ellipse, grabcut])
def test_every_box_gets_a_mask_even_where_there_are_none(labeler):
    assert whole_masks(labeler, BLANK, np.zeros((0, 4))) == []
    outside, inside = whole_masks(labeler, BLANK, np.array([(30.0, 2.0, 5.0, 5.0), (2.0, 2.0, 5.0, 5.0)]))
    assert outside.dtype == inside.dtype == bool
    assert outside.shape == inside.shape == (HEIGHT, WIDTH)
    assert not outside.any()
    assert inside.any()


def _disc(height: int, width: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def _photo(mask: np.ndarray) -> np.ndarray:
    """Reddish where the mask is, greenish elsewhere, noise on both."""
    noise = np.random.default_rng(0).normal(0, 12, (*mask.shape, 3))
    return np.clip(np.where(mask[:, :, None], (180, 60, 50), (60, 150, 70)) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("radius", [15, 140])  # the larger one's crop is shrunk to 256 pixels
def test_grabcut_finds_an_object_that_colour_separates(radius):
    side = 4 * radius
    disc = _disc(side, side, (side / 2, side / 2), radius)
    xywh = (side / 2 - radius, side / 2 - radius, 2 * radius + 1, 2 * radius + 1)
    (mask,) = whole_masks(grabcut, _photo(disc), np.array([xywh]))
    assert iou(mask, disc) > 0.95


def test_grabcut_stays_inside_the_box():
    disc = _disc(80, 80, (40, 40), 30)
    xywh = np.array([(20.0, 25.0, 30.0, 28.0)])
    (mask,) = whole_masks(grabcut, _photo(disc), xywh)
    (inside,) = whole_masks(box, _photo(disc), xywh)
    assert mask.any()
    assert not (mask & ~inside).any()


def test_grabcut_gives_the_box_where_it_finds_nothing():
    uniform = np.full((60, 60, 3), 90, dtype=np.uint8)
    xywh = np.array([(20.0, 20.0, 15.0, 12.0)])
    np.testing.assert_array_equal(whole_masks(grabcut, uniform, xywh), whole_masks(box, uniform, xywh))


def test_grabcut_gives_the_box_where_no_background_is_in_sight():
    photo = _photo(_disc(50, 60, (25, 30), 20))
    (mask,) = whole_masks(grabcut, photo, np.array([(0.0, 0.0, 60.0, 50.0)]))
    assert mask.all()


def test_a_grabcut_mask_depends_on_no_other_box():
    photo = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    boxes = np.array([(5.0, 5.0, 30.0, 30.0), (40.0, 20.0, 35.0, 40.0)])
    together = whole_masks(grabcut, photo, boxes)
    alone = whole_masks(grabcut, photo, boxes[1:])
    np.testing.assert_array_equal(together[1], alone[0])
    np.testing.assert_array_equal(together[0], whole_masks(grabcut, photo, boxes)[0])


def _score(labeler, folder: Path, *, every: int = 1) -> dict[str, tuple[dict[str, float], pd.DataFrame]]:
    human = read(folder / "annotations" / "instances_val2017_mini.json", masks=True)
    human = only_images(human, {image["id"] for image in human["images"][::every]})
    predicted: CocoDict = {**human, "annotations": []}
    annotations = annotations_by_image(human)
    for image in human["images"]:
        scored = [a for a in annotations[image["id"]] if not a["iscrowd"]]
        pixels = load_for(image, folder / "val2017").permute(1, 2, 0).numpy()
        masks = whole_masks(labeler, pixels, np.array([a["bbox"] for a in scored]).reshape(-1, 4))
        for annotation, mask in zip(scored, masks, strict=True):
            predicted["annotations"].append({**annotation, "segmentation": encode_mask(mask)})
    return {which: mask_quality(predicted, select_images(human, which)) for which in ("all", "even", "odd")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labeler", "everything", "even", "odd"), [(box, 0.565, 0.564, 0.567), (ellipse, 0.638, 0.638, 0.639)]
)
def test_reference_points_on_photographs_are_reproduced(coco_mini, labeler, everything, even, odd):
    scores = _score(labeler, coco_mini)
    assert [scores[which][0]["n"] for which in ("all", "even", "odd")] == [1816, 961, 855]
    measured = [scores[which][0]["iou"] for which in ("all", "even", "odd")]
    assert measured == pytest.approx([everything, even, odd], abs=1e-3)


@pytest.mark.slow
def test_grabcut_reference_point_on_photographs_is_reproduced(coco_mini):
    """On a quarter of them: it takes a second for twelve boxes."""
    metrics, _ = _score(grabcut, coco_mini, every=4)["all"]
    assert metrics["n"] == 530
    assert metrics["iou"] == pytest.approx(0.520, abs=0.03)
