"""Masks by the rectangle that holds them, against the same of whole images."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mal.data.mask_formats import decode_mask, encode_mask, encode_runs
from mal.data.mask_windows import MaskWindow, area_inside, decode_edges, decode_window, encode_window, in_common
from mal.errors import AnnotationError
from mal.metrics.masks import boundary_iou, iou

MASKS = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
PAIRS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(*2 * [st_numpy.arrays(np.bool_, shape)])
)


def as_counts(mask: np.ndarray) -> dict:
    """The same mask with its run lengths as a list, every pixel of foreground a run of its own."""
    counts, last = [], False
    for value in mask.T.ravel().tolist():
        if value == last and not value:
            counts[-1:] = [counts[-1] + 1] if counts else [1]
        elif value == last:
            counts += [0, 1]
        else:
            counts += [1] if counts or not value else [0, 1]
        last = value
    return {"size": list(mask.shape), "counts": counts}


@settings(max_examples=300)
@given(mask=MASKS)
@example(mask=np.ones((4, 3), bool))
@example(mask=np.zeros((4, 3), bool))
@example(mask=np.eye(5, dtype=bool)[::-1])
@example(mask=np.array([[0, 1], [1, 0]], bool))  # the foot of a column and the head of the next
def test_a_window_is_the_smallest_that_holds_the_mask_and_codes_it_like_the_whole_image(mask):
    size = {"height": mask.shape[0], "width": mask.shape[1]}
    for segmentation in (encode_mask(mask), as_counts(mask)):
        window = decode_window(segmentation, **size)
        np.testing.assert_array_equal(window.pasted(**size), mask)
        assert window.area == mask.sum()
        if mask.any():
            for axis in (0, 1):
                assert window.mask.any(axis=axis)[[0, -1]].all()
        assert encode_window(window, **size) == encode_mask(mask)
        edges = decode_edges(segmentation, **size)
        assert (np.diff(edges) > 0).all()
        assert area_inside(edges) == mask.sum()
        assert encode_runs(edges, **size) == encode_mask(mask)


@given(mask=MASKS, above=st.integers(0, 5), left=st.integers(0, 5), below=st.integers(0, 5), right=st.integers(0, 5))
def test_a_window_may_have_empty_rows_and_columns_and_touch_the_border(mask, above, left, below, right):
    height, width = mask.shape[0] + above + below, mask.shape[1] + left + right
    window = MaskWindow(mask, left, above)
    assert encode_window(window, height=height, width=width) == encode_mask(window.pasted(height, width))


@given(st.lists(st.floats(-3, 23), min_size=6, max_size=16).filter(lambda values: len(values) % 2 == 0))
def test_a_polygon_s_window_is_that_of_its_pixels(polygon):
    size = {"height": 17, "width": 20}
    np.testing.assert_array_equal(decode_window([polygon], **size).pasted(**size), decode_mask([polygon], **size))


@pytest.mark.parametrize("counts", ["zz", "05", [3, 4], [3, -1, 18]])
def test_what_is_no_mask_is_refused_as_decode_mask_does(counts):
    given_mask = {"size": [4, 5], "counts": counts}
    with pytest.raises(AnnotationError) as expected:
        decode_mask(given_mask, height=4, width=5)
    with pytest.raises(AnnotationError) as raised:
        decode_window(given_mask, height=4, width=5)
    assert str(raised.value) == str(expected.value)


@given(PAIRS)
def test_iou_and_boundary_iou_of_two_windows_are_those_of_the_whole_image(masks):
    size = {"height": masks[0].shape[0], "width": masks[0].shape[1]}
    first, second = in_common(*(decode_window(encode_mask(mask), **size) for mask in masks))
    assert iou(first, second) == iou(*masks)
    assert boundary_iou(first, second, image_size=masks[0].shape) == boundary_iou(*masks)


def test_a_small_mask_in_an_image_of_gigapixels_costs_nothing():
    size = {"height": 60_000, "width": 70_000}
    window = MaskWindow(np.eye(40, dtype=bool), 69_000, 51_000)
    found = decode_window(encode_window(window, **size), **size)
    np.testing.assert_array_equal(found.mask, window.mask)
    assert (found.left, found.top) == (window.left, window.top)
