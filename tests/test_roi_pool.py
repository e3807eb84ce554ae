"""The fast RoI pooling is torchvision's, to the last digits, gradients included."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from mal.segmenters.rcnn.roi_pool import RoiPool

NAMES, STRIDES, HEIGHT, WIDTH = ["0", "1", "2"], (4, 8, 16), 96, 64


def pyramid(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(3, 4, HEIGHT // stride, WIDTH // stride, generator=generator, dtype=torch.float64)
        for name, stride in zip(NAMES, STRIDES, strict=True)
    }


Forward = Callable[[list[Tensor], list[Tensor]], Tensor]


def pooled(forward: Forward, boxes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The cells, and the gradient of a fixed random function of them in each map."""
    maps = {name: map_.requires_grad_() for name, map_ in pyramid(0).items()}
    cells = forward(list(maps.values()), boxes)
    direction = torch.randn(cells.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return cells.detach(), list(torch.autograd.grad((cells * direction).sum(), list(maps.values())))


def assert_equal(boxes: list[Tensor], *, samples: int, aligned: bool) -> None:
    """Both of ours with each other and, where it has the same, with torchvision's pooling over levels."""
    pool = RoiPool(NAMES, strides=STRIDES, cells=5, samples=samples, canonical_side=40, aligned=aligned)

    def over_levels(levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        return MultiScaleRoIAlign.forward(pool, dict(zip(NAMES, levels, strict=True)), boxes, [(HEIGHT, WIDTH)] * 3)

    cells, gradients = pooled(pool.as_table, boxes)
    for other in [pool.as_torchvision, *([] if aligned else [over_levels])]:
        expected, expected_gradients = pooled(other, boxes)
        torch.testing.assert_close(cells, expected, rtol=1e-10, atol=1e-10)
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


coordinate = st.floats(-20, 120, width=32)
box = st.tuples(coordinate, coordinate, st.floats(0.03125, 130, width=32), st.floats(0.03125, 130, width=32))


@settings(deadline=None, max_examples=40)
@given(
    found=st.lists(st.lists(box, max_size=4), min_size=3, max_size=3).filter(any),
    samples=st.integers(1, 2),
    aligned=st.booleans(),
)
def test_any_box_inside_or_beyond_the_border_is_pooled_as_torchvision_does(
    found: list[list[tuple[float, float, float, float]]], samples: int, aligned: bool
) -> None:
    boxes = [
        torch.tensor([[x, y, x + w, y + h] for x, y, w, h in image], dtype=torch.float64).reshape(-1, 4)
        for image in found
    ]
    assert_equal(boxes, samples=samples, aligned=aligned)


@pytest.mark.parametrize("side", [10.0, 19.999, 20.0, 20.001, 40.0, 500.0])
def test_the_level_changes_at_the_same_sizes(side: float) -> None:
    empty = torch.empty(0, 4, dtype=torch.float64)
    found = torch.tensor([[3.0, 4.0, 3.0 + side, 4.0 + side]], dtype=torch.float64)
    assert_equal([empty, found, empty], samples=1, aligned=False)


@pytest.mark.parametrize("aligned", [True, False])
def test_pooling_a_linear_map_gives_its_value_at_the_cell_centres(aligned: bool) -> None:
    """Of a map that says where it is in the image: aligned exactly, else as if the image were moved by half a pixel."""
    rows, columns = torch.meshgrid(torch.arange(24.0) + 0.5, torch.arange(16.0) + 0.5, indexing="ij")
    maps = {"0": torch.stack([columns, rows])[None] * 4 - (0 if aligned else 2)}
    pool = RoiPool(["0"], strides=(4,), cells=3, samples=2, canonical_side=40, aligned=aligned)
    cells = pool(maps, [torch.tensor([[12.0, 20.0, 42.0, 80.0]])], [(HEIGHT, WIDTH)])
    torch.testing.assert_close(cells[0, 0, 0], torch.tensor([17.0, 27.0, 37.0]))
    torch.testing.assert_close(cells[0, 1, :, 0], torch.tensor([30.0, 50.0, 70.0]))


def at(map_: Tensor, y: float, x: float) -> Tensor:
    """(C,): the map's bilinear value; the border's pixel counts up to a pixel beyond, and nothing farther out."""
    height, width = map_.shape[-2:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(map_[:, 0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    above = (1 - right) * map_[:, top, left] + right * map_[:, top, left + 1]
    below = (1 - right) * map_[:, top + 1, left] + right * map_[:, top + 1, left + 1]
    return (1 - down) * above + down * below


@pytest.mark.parametrize("box", [(3.0, 4.0, 22.0, 90.0), (-9.0, 30.0, 70.0, 47.0), (5.0, 6.0, 5.5, 6.25)])
def test_without_a_number_of_samples_a_cell_has_one_to_a_pixel_of_its_map(box: tuple[float, ...]) -> None:
    """Along each side as many as the cell has pixels, rounded up: five cells of 4.3 pixels have five each."""
    map_, cells = pyramid(2)["0"][:1], 5
    pool = RoiPool(["0"], strides=(4,), cells=cells, samples=0, canonical_side=40, aligned=True)
    found = pool({"0": map_}, [torch.tensor([box], dtype=torch.float64)])[0]
    left, top, right, bottom = (side / 4 - 0.5 for side in box)
    width, height = (right - left) / cells, (bottom - top) / cells
    columns, rows = math.ceil(width), math.ceil(height)
    for row in range(cells):
        for column in range(cells):
            points = [
                at(map_[0], top + height * (row + (i + 0.5) / rows), left + width * (column + (j + 0.5) / columns))
                for i in range(rows)
                for j in range(columns)
            ]
            torch.testing.assert_close(found[:, row, column], torch.stack(points).mean(dim=0))


def test_no_boxes_give_no_cells() -> None:
    pool = RoiPool(NAMES, strides=STRIDES, cells=5, samples=1, canonical_side=40, aligned=True)
    empty = [torch.empty(0, 4, dtype=torch.float64)] * 3
    assert pool(pyramid(0), empty, [(HEIGHT, WIDTH)] * 3).shape == (0, 4, 5, 5)
