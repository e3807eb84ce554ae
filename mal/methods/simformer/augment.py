"""What training shows of an image: scale, crop, colours, flip, and the padding of a batch."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from mal.data.semantic import IGNORED
from mal.methods.simformer.config.augment import AugmentConfig
from mal.segmenters.crop import View
from mal.segmenters.data import resize

MULTIPLE = 32  # of which the sides are that the network sees


def augmented(
    image: Tensor, maps: list[Tensor], *, tagged: bool, config: AugmentConfig, generator: np.random.Generator
) -> tuple[Tensor, list[Tensor]]:
    """An image scaled, cropped, its colours changed, and flipped.

    Args:
        image: (3, H, W) uint8 RGB.
        maps: of class maps (H, W) uint8 the one to learn, and the one with hidden masks where a released rule reads it.
        tagged: whether the image has tags.

    Returns:
        (3, h, w) uint8, and each map (h, w).
    """
    scale = float(generator.choice(config.scales)) if config.crop else 1.0
    image = resize(image, short=max(1, round(config.side * scale)), long=config.long_side)
    size = list(image.shape[-2:])
    nearest = InterpolationMode.NEAREST_EXACT
    maps = [transforms.resize(values[None], size, interpolation=nearest)[0] for values in maps]
    if config.crop:
        view, maps = crop(maps, tagged=tagged, config=config, generator=generator)
        image = view.cut(image)
    if config.colour:
        image = ssd_colour(image, config, generator)
    if generator.random() < config.flip:
        image, maps = image.flip(-1), [values.flip(-1) for values in maps]
    return image, maps


def crop(
    maps: list[Tensor], *, tagged: bool, config: AugmentConfig, generator: np.random.Generator
) -> tuple[View, list[Tensor]]:
    """A square of `config.side`, smaller where the image is, that shows something to learn if a few tries find one.

    Returns:
        The crop, and the maps in it; the first of them is the last where `true_masks_after` says so.
    """
    height, width = maps[0].shape
    for tried in range(config.tries):
        top, left = (int(generator.integers(max(0, length - config.side) + 1)) for length in (height, width))
        view = View(left, top, min(left + config.side, width), min(top + config.side, height))
        shown = [view.cut(values) for values in maps]
        if config.true_masks_after is not None:
            seen = shown[-1] if tried >= config.true_masks_after else shown[0]
            shown[0] = seen
        else:
            seen = shown[-1] if config.redraw == "released" else shown[0]
        if (tagged and config.redraw == "paper") or bool((seen != IGNORED).any()):
            break
    return view, shown


def ssd_colour(image: Tensor, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """The colours of SSD (Liu et al., 2016): brightness, contrast, saturation and hue, each by chance; contrast second
    or last.

    Args:
        image: (3, H, W) uint8 RGB.
    """
    colours = image.float() / 255
    if generator.random() < config.colour_chance:
        colours = (colours + float(generator.uniform(-config.brightness, config.brightness)) / 255).clamp(0, 1)
    contrast_last = generator.random() < 0.5
    if not contrast_last:
        colours = _contrast(colours, config, generator)
    if generator.random() < config.colour_chance:
        colours = scale_saturation(colours, float(generator.uniform(config.saturation[0], config.saturation[1])))
    if generator.random() < config.colour_chance:
        colours = transforms.adjust_hue(colours, float(generator.uniform(-config.hue, config.hue)) / 180)
    if contrast_last:
        colours = _contrast(colours, config, generator)
    return (colours * 255).round().to(torch.uint8)


def _contrast(colours: Tensor, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    if generator.random() < config.colour_chance:
        return (colours * float(generator.uniform(config.contrast[0], config.contrast[1]))).clamp(0, 1)
    return colours


def scale_saturation(colours: Tensor, factor: float) -> Tensor:
    """The saturation of HSV times a factor, 1 at most; hue and value stay. (3, H, W) in [0, 1]."""
    value, low = colours.amax(0), colours.amin(0)
    saturation = (value - low) / value.clamp(min=1e-8)
    factors = torch.where(saturation * factor > 1, 1 / saturation.clamp(min=1e-8), factor)
    return (value - (value - colours) * factors).clamp(0, 1)


def batch_size(shapes: list[tuple[int, int]], config: AugmentConfig) -> tuple[int, int]:
    """(H, W) that images of these sizes are padded to: a whole crop, or the smallest that holds them all."""
    least = config.side if config.crop else 1
    height, width = (-(-max(least, *sides) // MULTIPLE) * MULTIPLE for sides in zip(*shapes, strict=True))
    return height, width
