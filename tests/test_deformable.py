"""A deformable convolution starts as the plain one it replaces, and reads where it is told to."""

import pytest
import torch
from torch import nn

from mal.segmenters.deformable import DeformableConv, deform


def random_conv(*, groups: int = 1, stride: int = 1, dilation: int = 1, bias: bool = False) -> nn.Conv2d:
    torch.manual_seed(groups + 10 * stride + 100 * dilation)
    return nn.Conv2d(8, 12, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=bias)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation", "bias"), [(1, 1, False), (2, 1, True), (1, 2, False)])
def test_it_starts_as_the_plain_convolution(groups: int, stride: int, dilation: int, bias: bool) -> None:
    plain = random_conv(groups=groups, stride=stride, dilation=dilation, bias=bias).double()
    expected = plain(x := torch.randn(2, 8, 9, 7, dtype=torch.float64))
    deformable = DeformableConv(plain).double()
    torch.testing.assert_close(deformable(x), expected)
    assert deformable.weight is plain.weight  # loaded weights are kept, not drawn anew
    assert deformable.bias is plain.bias


@pytest.mark.parametrize("groups", [1, 4])
def test_a_displaced_and_weakened_tap_reads_elsewhere(groups: int) -> None:
    plain = random_conv(groups=groups).double()
    x = torch.zeros(1, 8, 12, 12, dtype=torch.float64)
    x[:, :, 4:8, 4:8] = torch.randn(1, 8, 4, 4, dtype=torch.float64)  # far from the border, where nothing is read
    deformable = DeformableConv(plain).double()
    assert deformable.sampling.bias is not None
    with torch.no_grad():
        deformable.sampling.bias[0 : 2 * 9 : 2] = 2.0  # every tap looks two rows down …
        deformable.sampling.bias[1 : 2 * 9 : 2] = -1.0  # … and one column to the left
        deformable.sampling.bias[2 * 9 :] = torch.tensor(0.25).logit()  # at 2 × .25 of its strength
    expected = 0.5 * plain(x.roll((-2, 1), dims=(2, 3)))
    torch.testing.assert_close(deformable(x), expected)


def test_displacements_learn_from_the_start() -> None:
    deformable = DeformableConv(random_conv(groups=2))
    deformable(torch.randn(1, 8, 6, 6)).square().sum().backward()
    gradient = deformable.sampling.weight.grad
    assert gradient is not None
    by_output = gradient.abs().sum(dim=(1, 2, 3))
    assert (by_output > 0).all()


def test_only_three_by_three_convolutions_are_replaced() -> None:
    stage = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()))
    deform([stage])
    assert type(stage[0]) is nn.Conv2d
    assert isinstance(stage[1], nn.Sequential)
    assert isinstance(stage[1][0], DeformableConv)


def test_bf16_hands_on_bf16() -> None:
    deformable, x = DeformableConv(random_conv()), torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = deformable(x.bfloat16())
    assert lower.dtype == torch.bfloat16
    torch.testing.assert_close(lower.float(), deformable(x), rtol=0.02, atol=0.02)
