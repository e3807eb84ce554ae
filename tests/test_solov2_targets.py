"""Every cell learns the object that the paper gives it, checked cell by cell."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from mal.segmenters.config import GridConfig
from mal.segmenters.solov2.targets import centers, mask_targets, owners

CANVAS = (96, 128)  # of images of 90 × 121
GRID = GridConfig(cells=[12, 9, 7, 5, 3], scales=[[1, 16], [12, 28], [20, 48], [40, 80], [64, 200]], center=0.4)


def objects(seed: int, *, count: int) -> tuple[Tensor, Tensor]:
    """Random lopsided objects: boxes (n, 4) xyxy and masks (n, 90, 121), whose extents are not the boxes."""
    rng = np.random.default_rng(seed)
    masks = torch.zeros(count, 90, 121, dtype=torch.uint8)
    boxes = torch.zeros(count, 4)
    for mask, box in zip(masks, boxes, strict=True):
        w, h = np.exp(rng.uniform(np.log(4), np.log(90), 2))
        x, y = rng.uniform(0, 121 - w), rng.uniform(0, 90 - h)
        box[:] = torch.tensor([x, y, x + w, y + h])
        inside = mask[int(y) : int(y + h), int(x) : int(x + w)]
        inside[:] = torch.from_numpy(rng.random(tuple(inside.shape)) < np.linspace(0.1, 1, inside.shape[1]))
    return boxes, masks


def by_hand(boxes: Tensor, masks: Tensor, grid: GridConfig) -> list[int]:
    """The owner of each cell in float64: its rectangle, against the center region of each object."""
    found = []
    for cells, (low, high) in zip(grid.cells, grid.scales, strict=True):
        cell_h, cell_w = CANVAS[0] / cells, CANVAS[1] / cells
        for row in range(cells):
            for column in range(cells):
                claims = []
                for index, (box, mask) in enumerate(zip(boxes.double().tolist(), masks.numpy(), strict=True)):
                    w, h = box[2] - box[0], box[3] - box[1]
                    if not mask.any() or not low <= math.sqrt(w * h) <= high:
                        continue
                    cy, cx = (value + 0.5 for value in ndimage.center_of_mass(mask))
                    touches_x = cx - grid.center * w / 2 < (column + 1) * cell_w
                    touches_x &= cx + grid.center * w / 2 >= column * cell_w
                    touches_y = cy - grid.center * h / 2 < (row + 1) * cell_h
                    touches_y &= cy + grid.center * h / 2 >= row * cell_h
                    near = abs(int(cx / cell_w) - column) <= 1 and abs(int(cy / cell_h) - row) <= 1
                    if touches_x and touches_y and near:
                        claims.append((w * h, index))
                found.append(min(claims)[1] if claims else -1)
    return found


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_each_cell_belongs_to_the_object_whose_center_region_touches_it(seed: int, count: int) -> None:
    boxes, masks = objects(seed, count=count)
    assert owners(boxes, masks, canvas=CANVAS, grid=GRID).tolist() == by_hand(boxes, masks, GRID)


def test_centers_are_scipys_at_pixel_centers() -> None:
    _, masks = objects(4, count=5)
    expected = [[value + 0.5 for value in reversed(ndimage.center_of_mass(mask))] for mask in masks.numpy()]
    np.testing.assert_allclose(centers(masks).numpy(), expected, rtol=1e-5)


def square(side: int, *, x: int = 40, y: int = 30) -> tuple[Tensor, Tensor]:
    masks = torch.zeros(1, 90, 121, dtype=torch.uint8)
    masks[0, y : y + side, x : x + side] = 1
    return torch.tensor([[x, y, x + side, y + side]]).float(), masks


@pytest.mark.parametrize(
    ("side", "levels"), [(1, [0]), (12, [0, 1]), (16, [0, 1]), (17, [1]), (28, [1, 2]), (40, [2, 3]), (64, [3])]
)
def test_an_object_goes_to_every_level_whose_range_holds_its_size(side: int, levels: list[int]) -> None:
    grid = GridConfig(cells=GRID.cells, scales=[*GRID.scales[:4], [65, 200]], center=0.2)
    owner = owners(*square(side, x=10, y=10), canvas=CANVAS, grid=grid)
    parts = owner.split([cells**2 for cells in grid.cells])
    assert [level for level, part in enumerate(parts) if (part >= 0).any()] == levels


def test_an_object_of_no_level_or_without_pixels_owns_nothing() -> None:
    grid = GridConfig(cells=GRID.cells, scales=[[1, 8], [8, 10], [20, 30], [30, 40], [40, 80]])
    boxes, masks = square(15)
    assert owners(boxes, masks, canvas=CANVAS, grid=grid).unique().tolist() == [-1]
    assert 0 in owners(boxes, masks, canvas=CANVAS, grid=GRID)
    assert owners(boxes, masks * 0, canvas=CANVAS, grid=GRID).unique().tolist() == [-1]
    nothing = owners(boxes[:0], masks[:0], canvas=CANVAS, grid=GRID)
    assert nothing.tolist() == [-1] * sum(cells**2 for cells in GRID.cells)


def test_a_cell_that_two_objects_claim_goes_to_the_smaller() -> None:
    (small, inner), (large, outer) = square(13, x=43, y=33), square(16, x=41, y=31)
    for boxes, masks, winner in (([small, large], [inner, outer], 0), ([large, small], [outer, inner], 1)):
        owner = owners(torch.cat(boxes), torch.cat(masks), canvas=CANVAS, grid=GRID)
        assert owner[: GRID.cells[0] ** 2].unique().tolist() == [-1, winner]


def test_binary_targets_are_opencvs_shrunken_masks() -> None:
    """mmcv.imrescale is cv2.resize, bilinear and without antialiasing, of 8-bit masks."""
    masks = (torch.rand(4, 90, 121, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
    targets = mask_targets(masks, canvas=CANVAS, binary=True)
    padded = np.zeros((4, *CANVAS), dtype=np.uint8)
    padded[:, :90, :121] = masks
    for target, mask in zip(targets, padded, strict=True):
        shrunken = cv2.resize(mask, (CANVAS[1] // 4, CANVAS[0] // 4), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(target, shrunken)
    assert targets.dtype == torch.float32
    assert mask_targets(masks[:0], canvas=CANVAS, binary=True).shape == (0, 24, 32)


def test_mask_targets_are_the_share_of_each_cell() -> None:
    _, masks = objects(7, count=3)
    targets = mask_targets(masks, canvas=CANVAS)
    assert targets.shape == (3, 24, 32)
    padded = np.zeros((3, *CANVAS))
    padded[:, :90, :121] = masks
    for index, row, column in np.ndindex(*targets.shape):
        share = padded[index, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean()
        assert targets[index, row, column] == share
    assert mask_targets(masks[:0], canvas=CANVAS).shape == (0, 24, 32)
