"""The pyramid over a plain ViT has the strides it is told, each level from its own block."""

import pytest
import torch
from torch import Tensor, nn

from mal.errors import ConfigError
from mal.methods.attentionshift.neck import Neck, resizing


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("strides", [[4, 8, 16, 32], [2, 4, 8, 16]])
def test_levels_have_their_strides(patch: int, strides: list[int]) -> None:
    neck = Neck(6, width=10, patch=patch, strides=strides)
    levels = neck([torch.randn(2, 6, 128 // patch, 192 // patch) for _ in range(4)])
    every = [*strides, 2 * strides[-1]]
    assert [tuple(level.shape) for level in levels.values()] == [
        (2, 10, -(-128 // stride), -(-192 // stride)) for stride in every
    ]


def test_at_patches_of_16_the_finest_level_is_upsampled_twice_with_a_norm_between() -> None:
    kinds = {
        stride: [type(layer) for layer in resizing(6, patch=16, stride=stride).children()] for stride in (4, 8, 16, 32)
    }
    up = nn.ConvTranspose2d
    assert kinds == {4: [up, nn.BatchNorm2d, nn.GELU, up], 8: [up], 16: [], 32: []}
    x = noise(1, 6, 4, 4)
    assert torch.equal(resizing(6, patch=16, stride=16)(x), x)


def test_a_finer_map_has_four_weighted_cells_of_each_patch() -> None:
    layer = resizing(3, patch=16, stride=8).double()
    x = noise(1, 3, 4, 5)
    weight, bias = layer[0].weight, layer[0].bias
    expected = torch.stack(
        [
            torch.stack(
                [x[0, :, row // 2, column // 2] @ weight[:, :, row % 2, column % 2] + bias for column in range(10)]
            )
            for row in range(8)
        ]
    ).permute(2, 0, 1)
    torch.testing.assert_close(layer(x)[0], expected)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarser_map_has_the_largest_of_its_patches(factor: int) -> None:
    x = noise(1, 3, 8, 4)
    blocks = x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    assert torch.equal(resizing(3, patch=8, stride=8 * factor)(x), blocks.amax(dim=(3, 5)))


def test_each_level_adds_the_coarser_ones_to_its_own_block() -> None:
    neck = Neck(3, width=3, patch=16, strides=[8, 16, 32, 64]).double()
    for module in neck.pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
    neck.resize[0] = nn.Upsample(scale_factor=2)
    maps = [noise(1, 3, 8, 8, seed=seed) for seed in range(4)]

    def spread(level: Tensor) -> Tensor:
        return level.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    fourth = nn.functional.max_pool2d(maps[3], 4)
    third = nn.functional.max_pool2d(maps[2], 2) + spread(fourth)
    second = maps[1] + spread(third)
    expected = [spread(maps[0]) + spread(second), second, third, fourth, fourth[:, :, ::2, ::2]]
    for found, wanted in zip(neck(maps).values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("stride", [12, 24, 5, 48])
def test_a_stride_that_no_doubling_reaches_is_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"detector.neck.strides has {stride}, which is not the patch of 16 pixels"):
        Neck(4, width=4, patch=16, strides=[4, 8, 16, stride])
