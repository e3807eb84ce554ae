"""Geometry of boxes, crop windows and grids."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.data import boxes
from mal.errors import ConfigError


def paste(values: torch.Tensor, window: tuple[int, int, int, int], image_size: tuple[int, int]) -> torch.Tensor:
    """Put a window's values back where they came from.

    Args:
        values: (y1 − y0, x1 − x0) at the window's own size.
        window: x0, y0, x1, y1.
        image_size: height, width.

    Returns:
        (H, W), zero outside the window; what the window shows beyond the image is dropped.
    """
    x0, y0, x1, y1 = window
    height, width = image_size
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    image = values.new_zeros(height, width)
    if right > left and bottom > top:
        image[top:bottom, left:right] = values[top - y0 : bottom - y0, left - x0 : right - x0]
    return image


@st.composite
def placed_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], list[float]]:
    """An image size (height, width) and a box (xywh) inside it; borders, 1-pixel and full-image boxes included."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    x = draw(st.one_of(st.just(0.0), st.floats(0, width - 1, width=32)))
    y = draw(st.one_of(st.just(0.0), st.floats(0, height - 1, width=32)))
    w = draw(st.one_of(st.just(width - x), st.floats(0.01, width - x, width=64)))
    h = draw(st.one_of(st.just(height - y), st.floats(0.01, height - y, width=64)))
    return (height, width), [x, y, w, h]


draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6)


@settings(deadline=None, max_examples=200)
@given(placed_boxes(), draws, st.sampled_from(boxes.EXPANSIONS), st.floats(0, 2))
def test_an_expanded_window_contains_its_box(placed, uniform, form, theta):
    _, (x, y, w, h) = placed
    window = boxes.expand(
        torch.tensor([[x, y, w, h]], dtype=torch.float64),
        torch.tensor([uniform], dtype=torch.float64),
        theta=theta,
        form=form,
    )
    x0, y0, x1, y1 = window[0].tolist()
    assert x0 <= x
    assert y0 <= y
    assert x1 >= x + w
    assert y1 >= y + h


@settings(deadline=None, max_examples=100)
@given(placed_boxes(), draws, st.sampled_from(boxes.EXPANSIONS))
def test_no_window_grows_by_more_than_theta_times_half_the_box(placed, uniform, form):
    _, (x, y, w, h) = placed
    theta = 1.2
    box, draw = torch.tensor([[x, y, w, h]], dtype=torch.float64), torch.tensor([uniform], dtype=torch.float64)
    x0, y0, x1, y1 = boxes.expand(box, draw, theta=theta, form=form)[0].tolist()
    slack = 4  # floor, ceil, + 1 px on both sides
    assert (x1 - x0) <= w + theta * w / 2 + slack
    assert (y1 - y0) <= h + theta * h / 2 + slack


def test_paper_expansion_splits_one_draw_over_the_two_sides():
    box = torch.tensor([[100.0, 200.0, 40.0, 80.0]], dtype=torch.float64)
    uniform = torch.tensor([[0.5, 1.0, 0.25, 0.5, 0.0, 0.0]], dtype=torch.float64)
    # θx = .6, βx = .15, βx' = .45, half width 20: left −3, right +9; θy = 1.2, βy = βy' = .6, half height 40: ±24
    assert boxes.expand(box, uniform, theta=1.2, form="paper")[0].tolist() == [97, 176, 150, 305]


def test_released_expansion_gates_the_sides_of_an_axis():
    box = torch.tensor([[100.0, 200.0, 40.0, 80.0]], dtype=torch.float64)
    uniform = torch.tensor([[0.25, 1.0, 0.5, 0.5, 1.0, 1.0]], dtype=torch.float64)
    # left: .6·.25·20 = 3, right: 1.2·.75·20 = 18, top: .6·1·40 = 24, bottom: 1.2·0·40 = 0
    assert boxes.expand(box, uniform, theta=1.2, form="released")[0].tolist() == [97, 176, 159, 281]


def test_an_unknown_expansion_is_refused():
    with pytest.raises(ConfigError, match="choose one of paper, released"):
        boxes.expand(torch.ones(1, 4), torch.zeros(1, 6), theta=1.0, form="both")


def test_labelling_window_is_thirty_percent_of_half_the_box_a_side():
    window = boxes.expand_fixed(torch.tensor([[10.0, 20.0, 20.0, 40.0]], dtype=torch.float64), 0.3)
    assert window[0].tolist() == [7, 14, 34, 67]  # ∓3 and ∓6, right and bottom + 1 px


@settings(deadline=None, max_examples=200)
@given(placed_boxes(), st.sampled_from(("wrap", "reflect", "constant")), st.floats(0, 3))
def test_crop_then_paste_returns_the_pixels_of_the_box(placed, border, rate):
    (height, width), box = placed
    pixels = torch.arange(3 * height * width).reshape(3, height, width)
    window = tuple(boxes.expand_fixed(torch.tensor([box], dtype=torch.float64), rate)[0].tolist())
    region = boxes.crop(pixels, window, border=border)
    assert region.shape == (3, window[3] - window[1], window[2] - window[0])
    back = paste(region[0], window, (height, width))
    left, top, right, bottom = boxes.spans(torch.tensor([box]), torch.tensor([[height, width]]))[0].tolist()
    assert torch.equal(back[top:bottom, left:right], pixels[0, top:bottom, left:right])


@settings(deadline=None, max_examples=200)
@given(placed_boxes(), st.sampled_from(("wrap", "reflect", "constant")), st.floats(0, 9))
def test_a_pixel_of_a_crop_is_the_one_that_border_index_names(placed, border, rate):
    (height, width), box = placed
    pixels = torch.arange(3 * height * width).reshape(3, height, width)
    x0, y0, x1, y1 = boxes.expand_fixed(torch.tensor([box], dtype=torch.float64), rate)[0].tolist()
    rows = boxes.border_index(y0, y1, height, border)
    columns = boxes.border_index(x0, x1, width, border)
    assert torch.equal(boxes.crop(pixels, (x0, y0, x1, y1), border=border), pixels[:, rows][:, :, columns])


@settings(deadline=None, max_examples=100)
@given(placed_boxes(), st.floats(0, 3))
def test_a_clipped_window_lies_in_the_image_and_holds_the_box(placed, rate):
    (height, width), box = placed
    size = torch.tensor([[height, width]])
    window = boxes.expand_fixed(torch.tensor([box], dtype=torch.float64), rate)
    x0, y0, x1, y1 = boxes.clip_windows(window, size)[0].tolist()
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    left, top, right, bottom = boxes.spans(torch.tensor([box]), size)[0].tolist()
    assert (x0 <= left, y0 <= top, x1 >= right, y1 >= bottom) == (True, True, True, True)


@pytest.mark.parametrize(("border", "numpy_mode"), [("wrap", "wrap"), ("reflect", "symmetric"), ("constant", "edge")])
def test_borders_agree_with_numpy_padding(border, numpy_mode):
    size, before, after = 5, 7, 9
    expected = np.pad(np.arange(size), (before, after), mode=numpy_mode)
    assert boxes.border_index(-before, size + after, size, border).tolist() == expected.tolist()


@settings(deadline=None, max_examples=200)
@given(placed_boxes())
def test_spans_are_truncated_corners_inclusive(placed):
    (height, width), (x, y, w, h) = placed
    left, top, right, bottom = boxes.spans(
        torch.tensor([[x, y, w, h]], dtype=torch.float64), torch.tensor([[height, width]])
    )[0].tolist()
    assert (left, top) == (int(x), int(y))
    assert right == min(int(x + w) + 1, width)
    assert bottom == min(int(y + h) + 1, height)


@settings(deadline=None, max_examples=200)
@given(placed_boxes(), st.integers(1, 24), st.floats(0, 2))
def test_grid_lines_are_those_whose_centre_the_box_covers(placed, cells, rate):
    (height, width), box = placed
    window = boxes.expand_fixed(torch.tensor([box], dtype=torch.float64), rate)
    span = boxes.spans(torch.tensor([box], dtype=torch.float64), torch.tensor([[height, width]]))
    rows, columns = boxes.grid_inside(window, span, cells)
    for lines, axis in ((columns, 0), (rows, 1)):
        low, high = window[0, axis].item(), window[0, axis + 2].item()
        covered = [span[0, axis] <= low + (i + 0.5) * (high - low) / cells < span[0, axis + 2] for i in range(cells)]
        assert lines.any()  # a bag that is positive, however thin the box
        if any(covered):
            assert lines[0].tolist() == [bool(c) for c in covered]
        else:
            assert lines.sum() == 1


def test_wrapped_crop_counts_as_background():
    window = torch.tensor([[-10, 0, 10, 10]])  # ten columns from beyond the left border
    span = torch.tensor([[0, 0, 10, 10]])  # the box fills the image
    _, columns = boxes.grid_inside(window, span, 20)
    assert columns[0].tolist() == [False] * 10 + [True] * 10


def test_an_area_on_a_size_edge_belongs_above_it():
    areas = torch.tensor([0.0, 1023.9, 1024.0, 9215.9, 9216.0, 1e9])
    assert boxes.size_index(areas).tolist() == [0, 0, 1, 1, 2, 2]
    assert [boxes.size_class(a) for a in areas.tolist()] == ["S", "S", "M", "M", "L", "L"]
