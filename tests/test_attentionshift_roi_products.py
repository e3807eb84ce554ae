"""RoIAlign by matrix products, against torchvision's kernel: values and gradients."""

import pytest
import torch
from torchvision.ops import roi_align

from mal.methods.attentionshift.roi_products import AT_ONCE, roi_align_by_products

SCALE = 1 / 8


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


def same(boxes: list[torch.Tensor], *, size: tuple[int, int] = (9, 11), cells: int = 3) -> None:
    """Both read the same of maps (B, 4, h, w), and send the same gradients back."""
    features = maps(len(boxes), 4, *size)
    found = roi_align_by_products(features, boxes, cells=cells, scale=SCALE)
    expected = roi_align(features, boxes, cells, SCALE, 0, True)
    torch.testing.assert_close(found, expected)
    weight = maps(*expected.shape).detach()
    gradients = [torch.autograd.grad((result * weight).sum(), features)[0] for result in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("cells", [1, 3, 7])
def test_random_boxes_of_several_images(cells):
    """Up to 40 pixels outside an image of 72×88."""
    draw = torch.Generator().manual_seed(cells)
    corners = torch.rand(2, 150, 2, 2, generator=draw, dtype=torch.float64) * 170 - 40
    boxes = torch.cat([corners.amin(2), corners.amax(2)], 2)
    assert len(boxes[0]) > 2 * AT_ONCE
    same([boxes[0], boxes[1, :0], boxes[1, :5]], cells=cells)


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0, 88, 72],  # the whole image
        [-8, -8, 96, 80],  # a pixel of the map beyond it
        [30, 20, 30, 60],  # of no width: nothing is read
        [30, 20, 30.001, 20.001],
        [50, 40, 20, 10],  # inside out
        [88, 72, 120, 90],  # beside the image
        [-300, -300, 400, 400],
        [24, 16, 48, 40],  # edges on those of pixels, as many points as cells
    ],
)
def test_boxes_at_the_limits(box):
    same([torch.tensor([box], dtype=torch.float64)])


def test_a_map_of_one_pixel_and_no_box_at_all():
    same([torch.tensor([[0.0, 0, 8, 8], [2, 2, 30, 30]], dtype=torch.float64)], size=(1, 1))
    same([torch.zeros(0, 4, dtype=torch.float64)] * 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_products_in_full_precision(dtype):
    features, boxes = maps(1, 4, 9, 11).float(), [torch.tensor([[3.0, 5, 70, 60]])]
    with torch.autocast("cpu", dtype=dtype):
        found = roi_align_by_products(features, boxes, cells=7, scale=SCALE)
    assert found.dtype == torch.float32
    assert torch.equal(found, roi_align_by_products(features, boxes, cells=7, scale=SCALE))
