"""Resizing as matrix products, the form for GPUs, against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from mal.encoders.bilinear import resize, resize_by_products


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
@pytest.mark.parametrize(
    ("old", "new"), [((32, 32), (16, 16)), ((16, 16), (32, 32)), ((7, 9), (20, 5)), ((3, 4), (3, 8)), ((1, 1), (2, 3))]
)
def test_products_are_torchs_interpolation_and_so_are_their_gradients(old, new, layout):
    maps = torch.rand(3, 5, *old, dtype=torch.float64).to(memory_format=layout)
    ours, theirs = (maps.clone().requires_grad_() for _ in range(2))
    found = resize_by_products(ours, new)
    expected = F.interpolate(theirs, size=new, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_doubling_and_halving_round_only_once(dtype):
    """The weights of factors of two are exact in half precision."""
    maps = torch.rand(2, 4, 8, 8).to(dtype)
    for new in ((16, 16), (4, 4)):
        exact = F.interpolate(maps.double(), size=new, mode="bilinear", align_corners=False)
        found = resize_by_products(maps, new)
        assert found.dtype == dtype
        # two products, each rounded to the type once
        torch.testing.assert_close(found.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_map_of_the_right_size_is_returned_as_it_is():
    maps = torch.rand(1, 2, 3, 4)
    assert resize(maps, (3, 4)) is maps
