"""Maps and an expression become tokens, each of which knows where it lies."""

import math

import pytest
import torch
from torch.nn import functional as F

from mal.methods.partialres.config.network import NetworkConfig
from mal.methods.partialres.fusion import Fusion, joined_strides
from mal.methods.partialres.positions import padding_of, sine_positions, valid_cells


def test_the_papers_widths_come_out_of_its_backbones():
    fusion = Fusion(NetworkConfig(width=256), channels=(256, 512, 1024), language=1024)
    shapes = [tuple(each.shape) for each in fusion.parameters() if each.dim() == 4]
    assert shapes == [(256, 256, 3, 3), (768, 768, 3, 3), (1792, 1792, 3, 3), (1024, 1792, 1, 1)]
    assert fusion.norm.num_groups == 32


def test_a_map_is_joined_from_itself_and_two_finer_ones():
    assert joined_strides(32) == [8, 16, 32]
    assert joined_strides(16) == [4, 8, 16]
    assert joined_strides(8) == [4, 8]


def test_tokens_are_products_of_tanhs_and_the_expression_is_the_last():
    torch.manual_seed(0)
    fusion = Fusion(NetworkConfig(width=12), channels=(3, 5), language=7).double().eval()
    fine, coarse = torch.randn(2, 3, 8, 4, dtype=torch.float64), torch.randn(2, 5, 4, 2, dtype=torch.float64)
    language = torch.randn(2, 7, dtype=torch.float64)
    found = fusion([fine, coarse], language)
    assert found.shape == (2, 9, 12)

    def normal(x):  # batch statistics at their start: mean 0, variance 1
        return F.leaky_relu(x / math.sqrt(1 + 1e-5), 0.1)

    pooled = fine.unflatten(2, (4, 2)).unflatten(4, (2, 2)).mean((3, 5))
    kernels = [each for each in fusion.parameters() if each.dim() == 4]
    joined = torch.cat([normal(F.conv2d(pooled, kernels[0], padding=1)), coarse], dim=1)
    v = normal(F.conv2d(normal(F.conv2d(joined, kernels[1], padding=1)), kernels[2]))
    tokens = [v[:, :, y, x].tanh() * language.tanh() for y in range(4) for x in range(2)] + [language.tanh()]
    projected = torch.stack([each @ fusion.project.weight.T for each in tokens], dim=1)
    groups = projected.unflatten(2, (4, 3))  # gcd(32, 12) = 4 groups of 3
    mean, variance = groups.mean((1, 3), keepdim=True), groups.var((1, 3), unbiased=False, keepdim=True)
    expected = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_without_a_language_token_the_pixels_alone_are_left():
    fusion = Fusion(NetworkConfig(width=12, language_token=False), channels=(3, 5), language=7)
    assert fusion([torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)], torch.randn(2, 7)).shape == (2, 16, 12)


@pytest.mark.parametrize(
    ("share", "count", "cells"), [(0.5, 8, 4), (0.51, 8, 5), (1, 8, 8), (0.01, 8, 1), (0.6, 20, 12)]
)
def test_a_cell_is_valid_where_the_image_begins_to_fill_it(share, count, cells):
    valid = torch.tensor([[share, 1.0]])
    assert valid_cells(valid, (3, count)).tolist() == [[cells, 3]]
    padding = padding_of(valid_cells(valid, (3, count)), (3, count))
    assert (~padding[0]).sum(1).tolist() == [cells] * 3


def test_rows_and_columns_are_told_apart_in_padding():
    padding = padding_of(torch.tensor([[2, 1]]), (2, 3))
    assert padding[0].tolist() == [[False, False, True], [True, True, True]]


def test_positions_are_sines_over_the_valid_part():
    cells, grid, width = torch.tensor([[3, 2], [5, 4]]), (4, 5), 12
    found = sine_positions(cells, grid, width)
    assert found.shape == (2, 4, 5, 12)
    for image in range(2):
        columns, rows = cells[image].tolist()
        for y in range(rows):
            for x in range(columns):
                expected = []
                for place, count in ((y, rows), (x, columns)):
                    for k in range(3):
                        angle = 2 * math.pi * (place + 1) / count / 10_000 ** (2 * k / 6)
                        expected += [math.sin(angle), math.cos(angle)]
                assert found[image, y, x].tolist() == pytest.approx(expected, abs=1e-6)
