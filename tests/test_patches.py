"""Patches by a matrix product, the form for GPUs, against torch's convolution."""

import pytest
import torch
from torch import nn

from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import Encoder
from mal.encoders.patches import PatchConvolution, cut_patches_by_products


@pytest.mark.parametrize("size", [(32, 48), (35, 50)], ids=["whole", "with a rest"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_the_convolution_and_so_are_its_gradients(size, bias):
    convolution = nn.Sequential(nn.Conv2d(3, 6, (4, 8), stride=(4, 8), bias=bias)).double()
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = convolution(images)
    expected.square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in convolution.parameters()]
    convolution.zero_grad()
    cut_patches_by_products(convolution)
    (patches,) = convolution
    assert isinstance(patches, PatchConvolution)
    assert torch.equal(patches(images), expected), "a CPU goes on with the convolution"
    found = patches.as_product(images)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    for parameter, gradient in zip(convolution.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_tiny_patch16_224", 1), ("swin_tiny_patch4_window7_224", 1), ("convnext_atto", 1), ("mobilenetv2_100", 0)],
)
def test_only_what_cuts_images_into_patches_is_a_product(name, count):
    encoder = Encoder(EncoderConfig("timm", name, pretrained=False), image_size=64)
    assert sum(isinstance(module, PatchConvolution) for module in encoder.modules()) == count
