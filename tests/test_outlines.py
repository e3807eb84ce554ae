"""Crops' probabilities → masks in images, against pasting into whole images and pycocotools' encoder."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.nn import functional as F

from mal.data.config import RoiConfig
from mal.data.mask_formats import decode_mask, encode_mask, encode_runs
from mal.data.rois import RoiBatch, geometry, label_windows
from mal.methods.mal.config import LabelConfig
from mal.methods.mal.outlines import _at_once, _axis_by_axis, edges_in_images, outlines
from tests.test_boxes import paste

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def rois_of(xywh: list[list[float]], sizes: list[tuple[int, int]], windows: Tensor | None = None) -> RoiBatch:
    """Boxes in images of (height, width); their crops are left blank."""
    config = RoiConfig(size=8, label_expansion=0.3, border="wrap")
    given_boxes, image_sizes = torch.tensor(xywh, dtype=torch.float64), torch.tensor(sizes)
    if windows is None:
        windows = label_windows(given_boxes, image_sizes, config)
    about = geometry(given_boxes, image_sizes, windows, ids=list(range(len(xywh))), config=config)
    return RoiBatch(pixels=torch.zeros(len(xywh), 3, 8, 8, dtype=torch.uint8), **about)


def pasted(values: Tensor, rois: RoiBatch, row: int, threshold: float) -> dict[str, Any]:
    """A label the long way: the whole image's probabilities, then its pixels, then their code."""
    x0, y0, x1, y1 = rois.windows[row].tolist()
    _, _, width, height = rois.images[row].tolist()
    at_size = F.interpolate(values[None, None], size=(y1 - y0, x1 - x0), mode="bilinear", antialias=True)[0, 0]
    image = paste(at_size, (x0, y0, x1, y1), (height, width))
    left, top, right, bottom = rois.spans[row].tolist()
    region = image[top:bottom, left:right].numpy()
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = region > threshold
    inside = region[region > threshold]
    return {
        "segmentation": encode_mask(mask),
        "area": int(mask.sum()),
        "score": float(inside.mean()) if inside.size else 0.0,
    }


@st.composite
def placed(draw: st.DrawFn) -> tuple[list[list[float]], list[tuple[int, int]]]:
    """Up to five boxes in images of their own: at the borders, a pixel wide, the whole image, a little beyond it."""
    xywh, sizes = [], []
    for _ in range(draw(st.integers(1, 5))):
        height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        x = draw(st.one_of(st.just(0.0), st.just(-0.7), st.floats(0, width - 1, width=32)))
        y = draw(st.one_of(st.just(0.0), st.just(-0.7), st.floats(0, height - 1, width=32)))
        w = draw(st.one_of(st.just(width - x), st.just(0.5), st.floats(0.01, width - x + 1, width=64)))
        h = draw(st.one_of(st.just(height - y), st.just(0.5), st.floats(0.01, height - y + 1, width=64)))
        xywh.append([x, y, w, h])
        sizes.append((height, width))
    return xywh, sizes


@pytest.mark.parametrize("size", [(5, 6), (3, 3), (1, 2), (300, 4), (2, 700), (512, 512)])
def test_one_axis_after_the_other_is_both_at_once(size: tuple[int, int]) -> None:
    """The form for GPUs, strong reductions as products included."""
    values = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_axis_by_axis(values, *size), _at_once(values, *size), atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=200)
@given(placed(), st.integers(0, 2**31), st.sampled_from((0.0, 0.3, 0.5, 0.999)))
def test_a_label_is_that_of_the_mask_pasted_into_its_image(where, seed, threshold):
    rois = rois_of(*where)
    values = torch.from_numpy(np.random.default_rng(seed).random((len(rois), 8, 8), dtype=np.float32))
    labels = outlines(values, rois, LabelConfig(threshold=[threshold] * 3)).labels()
    assert labels == [pasted(values[row], rois, row, threshold) for row in range(len(rois))]


@pytest.mark.parametrize("device", DEVICES)
def test_a_mask_at_its_windows_own_size_comes_back_pixel_by_pixel(device):
    values = torch.from_numpy(np.random.default_rng(0).random((1, 20, 20), dtype=np.float32))
    rois = rois_of([[0.0, 7.0, 14.5, 14.2]], [(30, 40)], torch.tensor([[-3, 5, 17, 25]]))
    (label,) = outlines(values.to(device), rois, LabelConfig(threshold=[0.4, 0.4, 0.4])).labels()
    shown = values[0, 2:17, 3:18].numpy()  # rows 7 to 22 and columns 0 to 15 of the image
    expected = np.zeros((30, 40), dtype=bool)
    expected[7:22, 0:15] = shown > 0.4
    assert np.array_equal(decode_mask(label["segmentation"], height=30, width=40), expected)
    assert label["area"] == expected.sum()
    assert label["score"] == pytest.approx(shown[shown > 0.4].mean())


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_is_labelled_outside_the_box_and_an_empty_mask_scores_zero(device):
    rois = rois_of([[5.0, 5.0, 9.5, 9.5]] * 2, [(20, 20)] * 2, torch.tensor([[0, 0, 20, 20]] * 2))
    values = torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]).to(device)
    full, empty = outlines(values, rois, LabelConfig(threshold=[0.5, 0.5, 0.5])).labels()
    expected = np.zeros((20, 20), dtype=bool)
    expected[5:15, 5:15] = True
    assert full == {"segmentation": encode_mask(expected), "area": 100, "score": 1.0}
    assert empty == {"segmentation": encode_mask(np.zeros((20, 20), dtype=bool)), "area": 0, "score": 0.0}


def test_each_size_has_its_threshold():
    rois = rois_of([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 50.0, 50.0], [0.0, 0.0, 120.0, 120.0]], [(200, 200)] * 3)
    labels = outlines(torch.full((3, 8, 8), 0.5), rois, LabelConfig(threshold=[0.4, 0.5, 0.6])).labels()
    assert [label["area"] > 0 for label in labels] == [True, False, False]
    labels = outlines(torch.full((3, 8, 8), 0.5), rois, LabelConfig(threshold=[0.6, 0.45, 0.4])).labels()
    assert [label["area"] > 0 for label in labels] == [False, True, True]


def test_a_window_that_misses_its_box_gives_an_empty_mask():
    rois = rois_of([[3.0, 3.0, 4.0, 4.0]], [(20, 20)], torch.tensor([[10, 10, 15, 15]]))
    (label,) = outlines(torch.ones(1, 8, 8), rois, LabelConfig(threshold=[0.5, 0.5, 0.5])).labels()
    assert (label["area"], label["score"]) == (0, 0.0)


@st.composite
def regions(draw: st.DrawFn) -> list[tuple[np.ndarray, tuple[int, int], tuple[int, int]]]:
    """Up to four (mask, (left, top), image's (height, width)); some masks as high, as wide or as large as theirs."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        top = draw(st.one_of(st.just(0), st.integers(0, height - 1)))
        left = draw(st.one_of(st.just(0), st.integers(0, width - 1)))
        h = draw(st.one_of(st.just(height - top), st.integers(1, height - top)))
        w = draw(st.one_of(st.just(width - left), st.integers(1, width - left)))
        mask = draw(st.one_of(st.just(np.ones((h, w), dtype=bool)), arrays(bool, (h, w))))
        found.append((mask, (left, top), (height, width)))
    return found


@settings(deadline=None, max_examples=500)
@given(regions())
def test_runs_of_regions_are_those_of_their_images(found):
    spans = np.array([[x, y, x + mask.shape[1], y + mask.shape[0]] for mask, (x, y), _ in found])
    columns = [np.pad(mask, ((0, 1), (0, 0))).T.ravel() for mask, _, _ in found]
    laid_out = np.concatenate([[False], *columns]).astype(np.uint8)
    runs = edges_in_images(laid_out, spans, np.array([size[0] for _, _, size in found]))
    for edges, (mask, (x, y), (height, width)) in zip(runs, found, strict=True):
        image = np.zeros((height, width), dtype=bool)
        image[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        assert encode_runs(edges, height=height, width=width) == encode_mask(image)
        assert edges[1::2].sum() - edges[::2].sum() == image.sum()


def test_runs_of_a_large_image_are_coded_like_its_pixels():
    """Long runs, whose code takes several characters, and differences of both signs."""
    image = np.random.default_rng(0).random((700, 900)) > 0.999
    image[100:600, 300:310] = True
    flat = np.pad(image.T.ravel().astype(np.int8), 1)
    edges = np.flatnonzero(np.diff(flat))
    assert encode_runs(edges, height=700, width=900) == encode_mask(image)
