"""Suppression in matrix form is the loop over pairs that the paper writes down."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from torch import Tensor

from mal.segmenters.solov2.matrix_nms import mask_ious, matrix_nms, points_nms


def rectangles(seed: int, *, count: int, side: int = 24) -> Tensor:
    """(count, side, side) bool: rectangles that overlap a lot."""
    rng = np.random.default_rng(seed)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        y, x = rng.integers(0, 8, 2)
        mask[y : y + rng.integers(4, 16), x : x + rng.integers(4, 16)] = True
    return masks


def by_the_paper(masks: Tensor, labels: list[int], scores: list[float]) -> list[float]:
    """The decay pair by pair in float64, its Gaussian as in the paper's listing: exp(−IoU² / .5)."""
    pixels = [set(np.flatnonzero(mask)) for mask in masks.numpy()]

    def iou(a: int, b: int) -> float:
        return len(pixels[a] & pixels[b]) / max(len(pixels[a] | pixels[b]), 1)

    def gaussian(value: float) -> float:
        return math.exp(-(value**2) / 0.5)

    def better(j: int) -> list[int]:
        return [i for i in range(j) if labels[i] == labels[j]]

    decayed = []
    for j, score in enumerate(scores):
        factors = [1.0]
        for i in better(j):
            own = max((iou(k, i) for k in better(i)), default=0.0)
            factors.append(gaussian(iou(i, j)) / gaussian(own))
        decayed.append(score * min(factors))
    return decayed


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), classes=st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_matrix_nms_is_the_papers_loop(seed: int, count: int, classes: int) -> None:
    masks = rectangles(seed, count=count)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    scores = np.sort(rng.uniform(0.1, 1, count))[::-1].copy()
    decayed = matrix_nms(masks, torch.from_numpy(labels), torch.from_numpy(scores), sigma=2.0)
    expected = by_the_paper(masks, labels.tolist(), scores.tolist())
    np.testing.assert_allclose(decayed.numpy(), expected, rtol=1e-5)


def test_a_copy_decays_in_its_own_class_only() -> None:
    masks = rectangles(0, count=1).repeat(3, 1, 1)
    decayed = matrix_nms(masks, torch.tensor([5, 5, 6]), torch.tensor([0.9, 0.8, 0.7]), sigma=2.0)
    torch.testing.assert_close(decayed, torch.tensor([0.9, 0.8 * math.exp(-2), 0.7]))


def test_what_is_suppressed_suppresses_less() -> None:
    masks = torch.zeros(3, 1, 12, dtype=torch.bool)
    masks[0, 0, :8], masks[1, 0, 2:10], masks[2, 0, 8:12] = True, True, True  # the third overlaps the second alone
    third = matrix_nms(masks, torch.zeros(3), torch.tensor([0.9, 0.8, 0.7]), sigma=2.0)[2]
    alone = matrix_nms(masks[1:], torch.zeros(2), torch.tensor([0.8, 0.7]), sigma=2.0)[1]
    assert alone < third == pytest.approx(0.7)


def test_without_detections_there_is_nothing_to_suppress() -> None:
    empty = torch.zeros(0)
    assert matrix_nms(torch.zeros(0, 4, 4, dtype=torch.bool), empty.long(), empty, sigma=2.0).shape == (0,)


def test_mask_ious_are_pycocotools() -> None:
    masks = torch.cat([rectangles(3, count=7), torch.zeros(2, 24, 24, dtype=torch.bool)])
    coded = rle.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8)))
    expected = rle.iou(coded, coded, [0] * len(coded))
    np.testing.assert_allclose(mask_ious(masks).numpy()[:7, :7], expected[:7, :7], rtol=1e-6)
    assert mask_ious(masks)[7:].abs().sum() == 0


@given(seed=st.integers(0, 10_000), side=st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_points_nms_keeps_what_no_neighbour_above_or_left_exceeds(seed: int, side: int) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).integers(0, 6, (2, 3, side, side)) / 8)  # with ties
    kept = points_nms(scores)
    for image, kind, row, column in np.ndindex(*scores.shape):
        window = scores[image, kind, max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1]
        here = scores[image, kind, row, column]
        assert kept[image, kind, row, column] == (here if here == window.max() else 0)
