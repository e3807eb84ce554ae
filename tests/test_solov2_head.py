"""The network's maps have the places, sizes and coordinates that the paper gives them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mal.config import Config
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.deformable import DeformableConv
from mal.segmenters.solov2.head import STRIDES, GridHead, MaskFeatures, Solov2, dynamic_masks, with_coordinates

Compose = Callable[..., Config]


@pytest.fixture
def config(compose: Compose) -> SegmenterConfig:
    small = ["pyramid.widths=[8,8,8,8]", "pyramid.channels=8", "grid.width=8", "grid.mask_width=8", "grid.kernel=4"]
    return compose("segmenter=solov2_tiny", *(f"segmenter.{change}" for change in small)).segmenter


def test_coordinates_run_from_minus_one_to_one_x_first() -> None:
    maps = torch.rand(2, 3, 4, 5)
    located = with_coordinates(maps)
    assert torch.equal(located[:, :3], maps)
    for image in located:
        for row, column in np.ndindex(4, 5):
            assert image[3, row, column] == pytest.approx(-1 + 2 * column / 4)
            assert image[4, row, column] == pytest.approx(-1 + 2 * row / 3, abs=1e-6)


def test_a_dynamic_mask_is_a_one_by_one_convolution_with_its_own_kernel() -> None:
    kernels, features = torch.randn(3, 6), torch.randn(6, 4, 5)
    masks = dynamic_masks(kernels, features)
    for index, row, column in np.ndindex(3, 4, 5):
        expected = sum(kernels[index, c].item() * features[c, row, column].item() for c in range(6))
        assert masks[index, row, column].item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(masks, F.conv2d(features[None], kernels[:, :, None, None])[0])
    assert dynamic_masks(kernels[:0], features).shape == (0, 4, 5)


def test_every_cell_of_every_grid_has_a_kernel_and_a_score(config: SegmenterConfig) -> None:
    model = Solov2(config, classes=3, load=True).eval()
    shapes: list[torch.Size] = []
    model.grid_head.register_forward_hook(lambda _, inputs, __: shapes.extend(x.shape[-2:] for x in inputs[0]))
    with torch.inference_mode():
        outputs = model(torch.randn(2, 3, 96, 160))
    cells = sum(side**2 for side in config.grid.cells)
    assert outputs.kernels.shape == (2, cells, 4)
    assert outputs.logits.shape == (2, cells, 3)
    assert outputs.features.shape == (2, 4, 24, 40)
    assert [tuple(shape) for shape in shapes] == [(96 // stride, 160 // stride) for stride in STRIDES]
    assert STRIDES == (8, 8, 16, 32, 32)


def test_kernels_know_where_they_are_and_categories_do_not(config: SegmenterConfig) -> None:
    torch.manual_seed(0)
    head = GridHead(8, config, classes=2)
    nothing = [torch.zeros(1, 8, 12, 20) for _ in STRIDES]
    with torch.inference_mode():
        kernels, logits = head(nothing)
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))  # focal loss's prior
    grid = kernels[0, : config.grid.cells[0] ** 2]
    assert len(grid.unique(dim=0)) == len(grid)


def test_cells_are_numbered_row_after_row(config: SegmenterConfig) -> None:
    torch.manual_seed(0)
    head = GridHead(8, config, classes=2)
    initialise_larger(head)
    maps = [torch.zeros(1, 8, 2 * side, 2 * side) for side in config.grid.cells]
    marked = [x.clone() for x in maps]
    marked[1][0, :, 0:2, 10:12] = 5  # the second level's cell in row 0, column 5
    with torch.inference_mode():
        changed = (head(marked)[1] - head(maps)[1]).abs().sum(dim=2)[0]
    first = config.grid.cells[0] ** 2
    last = first + config.grid.cells[1] ** 2
    assert changed[:first].sum() == changed[last:].sum() == 0
    level = changed[first:last].view(config.grid.cells[1], -1)
    near = level[:4, 2:9]  # as far as three convolutions reach; group norm carries a little everywhere
    assert near.mean() > 10 * (level.sum() - near.sum()) / (level.numel() - near.numel())


def initialise_larger(head: GridHead) -> None:
    for parameter in head.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)


def test_mask_features_lie_at_stride_four_and_know_where_they_are(config: SegmenterConfig) -> None:
    torch.manual_seed(0)
    branch = MaskFeatures(8, config)
    maps = [torch.zeros(1, 8, 96 // stride, 160 // stride) for stride in (4, 8, 16, 32)]
    with torch.inference_mode():
        features = branch(maps)
        assert features.shape == (1, 4, 24, 40)
        assert features.std() > 0
        for level in range(4):
            marked = [x.clone() for x in maps]
            marked[level] += torch.randn_like(marked[level])
            assert not torch.equal(branch(marked), features), f"P{level + 2} is not read"


def test_deformable_heads_start_as_the_plain_ones_and_keep_the_last_convolutions(compose: Compose) -> None:
    changes = ["pyramid={kind:resnet,name:resnet18,channels:8}", "grid={width:8,mask_width:8,kernel:4}"]

    def built(dcn: bool) -> Solov2:
        config = compose("segmenter=solov2_tiny", *(f"segmenter.{change}" for change in (*changes, f"dcn={dcn}")))
        return Solov2(config.segmenter, classes=2, load=True).eval()

    plain, deformable = built(False), built(True)
    names = {name for name, module in deformable.named_modules() if isinstance(module, DeformableConv)}
    assert len([name for name in names if name.startswith("grid_head.")]) == 2 * 2
    assert len([name for name in names if name.startswith("mask_features.levels.")]) == 1 + 1 + 2 + 3
    assert not names & {"grid_head.kernel", "grid_head.category", "mask_features.out.0"}
    rest = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert {key.split(".")[-2] for key in rest.missing_keys} == {"sampling"}
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for value, expected in zip(deformable(images), plain(images), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)
