"""The convolution that cuts an image into patches, as what it is: one matrix product."""

from torch import Tensor, nn
from torch.nn import functional as F


class PatchConvolution(nn.Conv2d):
    """A convolution whose kernel is as large as its stride, on images of three channels.

    On a GPU it is computed as a matrix product of the patches: for so few channels cuDNN has no fast kernel, and takes
    1.2 ms for a batch of 32 crops of 512² where the product takes .2 ms (H100, bf16).
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, width, H / side, W / side); what is left over at the right and below is dropped."""
        return self.as_product(images) if images.is_cuda else super().forward(images)

    def as_product(self, images: Tensor) -> Tensor:
        """See `forward`."""
        count, channels, height, width = images.shape
        down, across = self.kernel_size
        rows, columns = height // down, width // across
        patches = (
            images[..., : rows * down, : columns * across].unflatten(2, (rows, down)).unflatten(4, (columns, across))
        )
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(count * rows * columns, channels * down * across)
        return F.linear(patches, self.weight.flatten(1), self.bias).view(count, rows, columns, -1).permute(0, 3, 1, 2)


def cut_patches_by_products(backbone: nn.Module) -> None:
    """Turn every convolution that cuts an image into patches into a `PatchConvolution`; its parameters stay."""
    for module in backbone.modules():
        if type(module) is nn.Conv2d and _cuts(module):
            module.__class__ = PatchConvolution


def _cuts(convolution: nn.Conv2d) -> bool:
    return (
        convolution.in_channels == 3
        and convolution.kernel_size == convolution.stride
        and max(convolution.kernel_size) > 1
        and convolution.padding == (0, 0)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
