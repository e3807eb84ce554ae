"""Student-only photometrics, batched on the device, every parameter drawn per RoI from numbers the caller supplies.

The single operations follow torchvision's functional API (and through it Pillow); the batch applies them with one
factor and one order per RoI. `photometrics` computes each operation for the images that it was drawn for, which is
least work; `photometrics_of_all` computes every operation for every image and chooses, which torch.compile turns into
a few passes over the batch without a decision on the host.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.methods.mal.config import AugmentConfig


def photometrics(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Colour jitter in a random order, random grey, Gaussian blur (docs/method/mal.md, "student-only augmentation").

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        draws: (B, 12) uniform in [0, 1), on the CPU.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    drawn = _Drawn(draws, config)
    images = images.clone()
    for place in range(4):
        for number, operation in enumerate(JITTER):
            if config.jitter[number] > 0:
                _apply(images, drawn.jitter & (drawn.order[:, place] == number), operation, drawn.amounts[number])
    _apply(images, drawn.grey, lambda chosen, _: to_grey(chosen).expand_as(chosen), drawn.sigmas)
    _apply(images, drawn.blur, partial(gaussian_blur, largest=config.blur_sigma[1]), drawn.sigmas)
    return images


def photometrics_of_all(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """The same as `photometrics` but for rounding; draws: (B, 12) on the images' device."""
    drawn = _Drawn(draws, config)
    for place in range(4):
        jittered = images
        for number, operation in enumerate(JITTER):
            if config.jitter[number] > 0:
                here = drawn.jitter & (drawn.order[:, place] == number)
                jittered = _where(here, operation(images, drawn.amounts[number]), jittered)
        images = jittered
    images = _where(drawn.grey, to_grey(images).expand_as(images), images)
    return _where(drawn.blur, _blur_by_shifts(images, drawn.sigmas, largest=config.blur_sigma[1]), images)


class _Drawn:
    """What a RoI's 12 numbers stand for."""

    def __init__(self, draws: Tensor, config: AugmentConfig) -> None:
        factors = 2 * draws[:, 0:4] - 1  # in [-1, 1), scaled by each strength
        self.amounts = [factors[:, n] * config.jitter[n] + (0 if JITTER[n] is shift_hue else 1) for n in range(4)]
        self.order = draws[:, 4:8].argsort(dim=1)
        self.jitter, self.grey, self.blur = (
            draws[:, 8 + i] < p for i, p in enumerate((config.jitter_p, config.grey_p, config.blur_p))
        )
        low, high = config.blur_sigma
        self.sigmas = low + (high - low) * draws[:, 11]


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, images)


def _apply(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor], amounts: Tensor) -> None:
    """Replace the chosen images. What is chosen is known on the CPU, so a GPU is never waited for."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        here = rows.to(images.device, non_blocking=True)
        images[here] = operation(images[here], amounts[rows].to(images.device, images.dtype, non_blocking=True))


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
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, shift_hue)  # as `config.jitter` has their strengths


def gaussian_blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Separable Gaussian blur with one σ per image, edges mirrored.

    Args:
        images: (B, 3, H, W).
        sigmas: (B,) in pixels, > 0.
        largest: an upper bound of sigmas; the kernel reaches three times as far (less, where the image is smaller).
    """
    kernels = _gaussians(sigmas, largest=largest, side=min(images.shape[-2:]))
    reach = kernels.shape[1] // 2
    kernels = kernels.repeat_interleave(3, 0)[:, None]
    batch, channels, height, width = images.shape
    flat = images.reshape(1, batch * channels, height, width)
    padded = F.pad(flat, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, kernels[..., None, :], groups=batch * channels)
    return F.conv2d(rows, kernels[..., None], groups=batch * channels).reshape(images.shape)


def _blur_by_shifts(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """`gaussian_blur` as a sum of shifted images, one pass an axis once it is compiled."""
    kernels = _gaussians(sigmas, largest=largest, side=min(images.shape[-2:]))
    reach = kernels.shape[1] // 2
    for axis in (-1, -2):
        side = images.shape[axis]
        place = torch.arange(side, device=images.device)
        total = torch.zeros_like(images)
        for step in range(-reach, reach + 1):
            mirrored = (side - 1) - ((side - 1) - (place + step).abs()).abs()
            shifted = images[..., mirrored] if axis == -1 else images[..., mirrored, :]
            total = total + kernels[:, step + reach, None, None, None] * shifted
        images = total
    return images


def _gaussians(sigmas: Tensor, *, largest: float, side: int) -> Tensor:
    """(B, 2·reach + 1) weights that sum to 1; the reach is three times the largest σ, or what a side allows."""
    reach = min(max(1, int(3 * largest + 0.5)), side - 1)
    steps = torch.arange(-reach, reach + 1, device=sigmas.device, dtype=sigmas.dtype)
    weights = torch.exp(-0.5 * (steps / sigmas[:, None]).square())
    return weights / weights.sum(1, keepdim=True)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    factors = factors[:, None, None, None]
    return (factors * images + (1 - factors) * others).clamp(0, 1)
