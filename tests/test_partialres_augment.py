"""What the network is shown of an image, and where boxes, masks and points go with it."""

import numpy as np
import pytest
import torch

from mal.methods.partialres.augment import (
    LEAST,
    TRIES,
    WANTED,
    augmented,
    box_shares,
    letterbox,
    mask_shares,
    mirrored,
    placed,
    small_mask,
    swapped,
    window,
)
from mal.methods.partialres.config.sequence import ImageConfig
from mal.methods.partialres.polygons import to_square
from mal.segmenters.crop import GREY, View
from tests.partialres_masks import blob

SCALED = ImageConfig(side=64)


def dotted(height: int, width: int, places: list[tuple[int, int]]) -> torch.Tensor:
    """A black image with white squares of 7 × 7 pixels around some (x, y)."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for x, y in places:
        image[:, y - 3 : y + 4, x - 3 : x + 4] = 255
    return image


def white_centre(image: torch.Tensor) -> np.ndarray:
    """(x, y) of the middle of what is white, grey excluded."""
    weights = (image[0].double() * (image[0] != GREY)).numpy()
    y, x = np.mgrid[: image.shape[1], : image.shape[2]] + 0.5
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (32, 32)])
def test_a_letterboxed_image_is_in_the_corner_and_grey_lies_beside_it(height, width):
    image, valid = letterbox(torch.full((3, height, width), 10, dtype=torch.uint8), 64)
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert valid == pytest.approx((width / max(height, width), height / max(height, width)))
    wide, high = round(64 * valid[0]), round(64 * valid[1])
    assert (image[:, :high, :wide] == 10).all()
    assert (image[:, high:] == GREY).all()
    assert (image[:, :, wide:] == GREY).all()


def test_pixels_lie_where_points_are_said_to_lie():
    image = dotted(90, 150, [(110, 60)])
    centre = np.array([[110.5, 60.5]])
    whole = placed(image, 64)
    assert np.abs(whole.to_square(centre) - to_square(centre, 90, 150, 64)).max() < 1e-9
    for shown in (
        whole,
        placed(image, 64, scaled=0.6),
        placed(image, 64, View(left=70, top=20, right=70 + 75, bottom=20 + 45)),
    ):
        assert np.abs(white_centre(shown.image) - shown.to_square(centre)[0]).max() < 0.35


def test_a_window_is_as_large_as_the_whole_image_would_be():
    shown = placed(dotted(90, 150, []), 64, View(left=30, top=10, right=30 + 75, bottom=10 + 45))
    assert shown.size == pytest.approx((64, 64 * 90 / 150))
    assert shown.valid == pytest.approx((1, 0.6))
    corners = shown.to_square(np.array([[30.0, 10.0], [105.0, 55.0]]))
    assert corners == pytest.approx(np.array([[0, 0], [64, 38.4]]))


def test_boxes_are_cut_at_the_window():
    shown = placed(dotted(90, 150, []), 64, View(left=30, top=10, right=105, bottom=55))
    factor = 64 / 75
    assert shown.box_in_square((0.0, 20.0, 60.0, 100.0)) == pytest.approx(
        np.array([[0, 10 * factor], [30 * factor, 45 * factor]])
    )
    assert shown.box_in_square((110.0, 20.0, 10.0, 10.0))[:, 0].tolist() == [64, 64]  # beside it: no width


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_windows_against_counting(seed):
    mask, rng = blob(seed), np.random.default_rng(seed)
    lefts, tops = rng.integers(0, 30, 20), rng.integers(0, 25, 20)
    found = mask_shares(mask)(lefts, tops, 20, 15)
    for share, left, top in zip(found, lefts, tops, strict=True):
        assert share == pytest.approx(mask[top : top + 15, left : left + 20].sum() / mask.sum())
    whole = np.zeros((40, 50), dtype=bool)
    whole[5:25, 10:40] = True
    box = box_shares((10.0, 5.0, 30.0, 20.0))(lefts, tops, 20, 15)
    assert box == pytest.approx(mask_shares(whole)(lefts, tops, 20, 15))
    for empty in (mask_shares(np.zeros((40, 50), dtype=bool)), box_shares((10.0, 5.0, 0.0, 20.0))):
        assert empty(lefts, tops, 20, 15).tolist() == [0] * 20


def test_the_first_window_with_the_largest_share_that_any_has_is_taken():
    drawn: list[np.ndarray] = []

    def scripted(table: list[float]):
        """The n-th hundred of windows has a best share of table[n], at place 5, and at place 7."""

        def shares(lefts, tops, *_):
            held = np.zeros(len(lefts))
            held[[5, 7]] = table[len(drawn)]
            drawn.append(np.stack([lefts, tops], axis=1))
            return held

        return shares

    for table, taken in [
        ([0.95], 0),
        ([0.85, 0.85], 1),
        ([0.1, 0.2, 0.75], 2),
        ([0.3, 0.4, 0.2, 0.1, 0.1], 1),
        ([0.0, 0.0, 0.0, 0.0, 0.5], 4),
        ([0.29] * 5, None),
    ]:
        drawn.clear()
        found = window(scripted(table), 60, 90, 1 / 1.3, np.random.default_rng(0))
        assert len(drawn) == len(table)
        assert {len(each) for each in drawn} == {TRIES}
        if taken is None:
            assert found is None
        else:
            assert found is not None
            assert (found.left, found.top) == tuple(drawn[taken][5])
            assert (found.width, found.height) == (round(90 / 1.3), round(60 / 1.3))
            assert found.left >= 0
            assert found.right <= 90
            assert found.bottom <= 60


def test_scales_below_one_shrink_and_those_above_hold_enough_of_the_object():
    image = dotted(80, 100, [(50, 40)])
    mask = np.zeros((80, 100), dtype=bool)
    mask[30:60, 20:80] = True
    shrunk = cut = whole = 0
    for seed in range(200):
        shown = augmented(image, mask_shares(mask), side=64, config=SCALED, generator=np.random.default_rng(seed))
        assert shown.image.shape == (3, 64, 64)
        view = shown.view
        if (view.width, view.height) != (100, 80):
            cut += 1
            assert mask[view.top : view.bottom, view.left : view.right].sum() >= LEAST * mask.sum()
            assert 1 / 1.4 - 0.01 <= view.width / 100 < 1
            assert shown.size == pytest.approx((64, 51.2))
        else:
            shrunk, whole = shrunk + (shown.size[0] < 63), whole + 1
            assert 0.3 * 64 - 1e-9 <= shown.size[0] <= 64
            assert (shown.image[:, :, round(shown.size[0]) :] == GREY).all()
    assert cut == pytest.approx(200 * 0.4 / 1.1, abs=25)
    assert shrunk > 90


def test_an_object_that_no_window_holds_leaves_the_image_whole():
    config = ImageConfig(side=64, scales=[1.3, 1.4])
    for seed in range(5):
        empty = mask_shares(np.zeros((80, 100), dtype=bool))
        shown = augmented(dotted(80, 100, []), empty, side=64, config=config, generator=np.random.default_rng(seed))
        assert (shown.view.width, shown.view.height) == (100, 80)
        assert shown.valid == pytest.approx((1, 0.8))


def test_wanted_shares_fall_to_a_half_and_no_lower():
    assert WANTED == (0.9, 0.8, 0.7, 0.6, 0.5)
    assert LEAST == 0.3


def test_a_mirrored_image_swaps_left_and_right_and_nothing_else():
    image = dotted(40, 60, [(10, 20)])
    mask = np.zeros((40, 60), dtype=bool)
    mask[17:24, 7:14] = True
    turned, box, other, words = mirrored(image, (7.0, 17.0, 7.0, 7.0), mask, ("the", "leftmost", "red", "top", "star"))
    assert words == ("the", "rightmost", "red", "top", "star")
    assert other is not None
    assert white_centre(turned) == pytest.approx([49.5, 20.5])
    rows, columns = np.nonzero(other)
    assert box == (columns.min(), rows.min(), 7, 7)
    back = mirrored(turned, box, other, words)
    assert torch.equal(back[0], image)
    assert back[1] == (7, 17, 7, 7)
    assert np.array_equal(back[2], mask)
    assert swapped(("left", "right", "leftmost", "rightmost", "topmost", "alright")) == (
        "right", "left", "rightmost", "leftmost", "topmost", "alright",
    )  # fmt: skip


def test_small_masks_cover_the_same_share_as_the_mask():
    mask = np.zeros((80, 100), dtype=bool)
    mask[20:60, 10:50] = True
    shown = placed(torch.zeros(3, 80, 100, dtype=torch.uint8), 64)
    found = small_mask(mask, shown, 4)
    assert found.shape == (16, 16)
    assert found.dtype == torch.float32
    assert found.sum().item() * 16 == pytest.approx(1600 * 0.64**2, rel=0.02)
    assert 0 <= found.min() <= found.max() <= 1
    y, x = np.mgrid[:16, :16] * 4.0 + 2
    middle = np.array([(found.numpy() * x).sum(), (found.numpy() * y).sum()]) / found.sum().item()
    assert middle == pytest.approx([30 * 0.64, 40 * 0.64], abs=0.3)
    assert not found[13:].any()  # grey
    cut = placed(torch.zeros(3, 80, 100, dtype=torch.uint8), 64, View(left=20, top=30, right=70, bottom=70))
    assert small_mask(mask, cut, 4).sum().item() * 16 == pytest.approx(30 * 30 * 1.28**2, rel=0.02)
