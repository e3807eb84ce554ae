"""Student-only photometrics, batched on the device, every parameter drawn per RoI from numbers the caller supplies.

The single operations follow torchvision's functional API (and through it Pillow); the batch applies them with one
factor and one order per RoI.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.config import AugmentConfig

DRAWS = 12  # uniform numbers that one RoI consumes
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GREY = (0.2989, 0.587, 0.114)


def normalise(images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> Tensor:
    """(B, 3, H, W) in [0, 1] → zero mean, unit variance by the given statistics."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]


def photometrics(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Colour jitter in a random order, random grey, Gaussian blur (MAL.md, "student-only augmentation").

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        draws: (B, 12) uniform in [0, 1), on the CPU.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    factors = 2 * draws[:, 0:4] - 1  # in [-1, 1), scaled by each strength
    order = draws[:, 4:8].argsort(dim=1)
    jitter, grey, blur = (draws[:, 8 + i] < p for i, p in enumerate((config.jitter_p, config.grey_p, config.blur_p)))
    images = images.clone()
    for place in range(4):
        for kind, operation in enumerate((adjust_brightness, adjust_contrast, adjust_saturation, shift_hue)):
            amounts = factors[:, kind] * config.jitter[kind] + (0 if kind == 3 else 1)
            if config.jitter[kind] > 0:
                _apply(images, jitter & (order[:, place] == kind), operation, amounts)
    _apply(images, grey, lambda chosen, _: to_grey(chosen).expand_as(chosen), draws[:, 9])
    low, high = config.blur_sigma
    _apply(images, blur, partial(gaussian_blur, largest=high), low + (high - low) * draws[:, 11])
    return images


def _apply(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor], amounts: Tensor) -> None:
    """Replace the chosen images. What is chosen is known on the CPU, so a GPU is never waited for."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        here = rows.to(images.device)
        images[here] = operation(images[here], amounts[rows].to(images))


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Scale towards black. images (B, 3, H, W) in [0, 1], factors (B,) >= 0."""
    return (images * factors[:, None, None, None]).clamp(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean of the grey image."""
    return _blend(images, to_grey(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the grey image."""
    return _blend(images, to_grey(images), factors)


def shift_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by `shifts` (B,) of a full circle, in [-.5, .5]."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = chroma.where(chroma > 0, torch.ones_like(chroma))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + shifts[:, None, None]) % 1.0
    # each channel of HSV → RGB in closed form: value − chroma·max(0, min(k, 4 − k, 1)), k = (n + 6·hue) mod 6
    channels = []
    for n in (5, 3, 1):
        k = (n + 6 * hue) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1).clamp(0, 1)


def to_grey(images: Tensor) -> Tensor:
    """Luma of Rec. 601: (B, 3, H, W) → (B, 1, H, W)."""
    return (images * images.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)


def gaussian_blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Separable Gaussian blur with one σ per image, edges mirrored.

    Args:
        images: (B, 3, H, W).
        sigmas: (B,) in pixels, > 0.
        largest: an upper bound of sigmas; the kernel reaches three times as far (less, where the image is smaller).
    """
    reach = min(max(1, int(3 * largest + 0.5)), min(images.shape[-2:]) - 1)
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (steps / sigmas[:, None]).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    batch, channels, height, width = images.shape
    flat = images.reshape(1, batch * channels, height, width)
    padded = F.pad(flat, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, kernels[..., None, :], groups=batch * channels)
    return F.conv2d(rows, kernels[..., None], groups=batch * channels).reshape(images.shape)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    factors = factors[:, None, None, None]
    return (factors * images + (1 - factors) * others).clamp(0, 1)
