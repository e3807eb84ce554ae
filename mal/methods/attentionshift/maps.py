"""Step 5: foreground and background maps of each instance from prototypes that start at its attention map."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mal.methods.attentionshift.boxes import cells_inside
from mal.methods.attentionshift.config.steps import MapsConfig
from mal.methods.attentionshift.scaling import min_max, over_max, pixels_of, upsample
from mal.methods.attentionshift.similarity import cosines, patch_rows, unit


@dataclass
class InstanceMaps:
    """F and B', (n, H, W) each; the maximum of either is 1, of an F that found nothing 0."""

    foreground: Tensor
    background: Tensor


def instance_maps(
    features: Tensor,
    attention: Tensor,
    boxes: Tensor,
    points: Tensor,
    *,
    patch: int,
    generator: Generator,
    config: MapsConfig,
) -> InstanceMaps:
    """Cosine maps of each instance against all others and the background.

    Args:
        features: (C, h, w), detached.
        attention: (n, H, W), H = h·patch and W = w·patch: the map of each instance's chosen box, of any range.
        boxes: (n, 4) xyxy in pixels, the chosen ones.
        points: (n, 2) x, y in pixels.
        generator: on the CPU; the draws follow it.
    """
    count, _height, width = attention.shape
    if not count:
        return InstanceMaps(attention, attention)
    rows = patch_rows(features)
    columns = features.shape[2]
    maps = min_max(attention)

    inside = [_drawn_inside(each, point, generator, config) for each, point in zip(maps, points.tolist(), strict=True)]
    outside = [_drawn_outside(each, generator, config) for each in (*maps, maps.mean(0))]
    pixels = torch.stack(inside + outside)
    prototypes = rows[pixels // width // patch * columns + pixels % width // patch].mean(1)

    boxed = cells_inside(boxes, features.shape[1:], patch=patch).flatten(1)
    everywhere = torch.ones_like(boxed[:1]).expand(count + 1, -1)
    cosine, behind, shared = _refined(rows, prototypes, torch.cat([boxed, everywhere]), config).split([count, count, 1])
    winner = torch.cat([cosine, shared]).argmax(0)
    found = cosine * (winner == torch.arange(count, device=cosine.device)[:, None])

    found, behind = upsample(torch.cat([found, behind]).unflatten(1, features.shape[1:]), patch).split(count)
    foreground = over_max((1 - behind) * found)
    behind = over_max(behind)
    return InstanceMaps(foreground, over_max(behind + 1 - (foreground + behind) / 2))


def _refined(rows: Tensor, prototypes: Tensor, boxed: Tensor, config: MapsConfig) -> Tensor:
    """(P, C), (K, C) and (K, P) bool → (K, P): cosines to the prototypes after the rounds, 0 where not boxed."""
    units = unit(rows)
    cosine = cosines(prototypes, units)
    for _ in range(config.rounds):
        weight = cosine * (cosine >= config.share * cosine.amax(1, keepdim=True))
        total = weight.sum(1, keepdim=True)
        # nothing similar at all: the prototype stays what it was
        prototypes = torch.where(total > 0, weight @ rows / torch.where(total > 0, total, 1), prototypes)
        cosine = boxed * cosines(prototypes, units)
    return cosine


def _drawn_inside(attention: Tensor, point: list[float], generator: Generator, config: MapsConfig) -> Tensor:
    """(H, W) in 0…1 → indices of pixels above the threshold; if they are too few, all and then the point's."""
    height, width = attention.shape
    above = pixels_of(attention >= config.foreground)
    if len(above) >= config.draws:
        return _drawn(above, generator, config.draws)
    own = min(int(point[1]), height - 1) * width + min(int(point[0]), width - 1)
    return torch.cat([above, above.new_full((config.draws - len(above),), own)])


def _drawn_outside(attention: Tensor, generator: Generator, config: MapsConfig) -> Tensor:
    """(H, W) in 0…1 → indices of pixels below the threshold, which doubles until there are enough."""
    threshold = config.background
    below = pixels_of(attention < threshold)
    while len(below) < config.draws and threshold <= 1:
        threshold *= 2
        below = pixels_of(attention < threshold)
    return _drawn(below, generator, config.draws)


def _drawn(pixels: Tensor, generator: Generator, count: int) -> Tensor:
    """`count` of them with replacement."""
    return pixels[torch.randint(len(pixels), (count,), generator=generator).to(pixels.device)]
