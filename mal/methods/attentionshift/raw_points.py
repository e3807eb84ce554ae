"""Step 6: positive and negative points of each instance, drawn from its foreground and background maps."""

import torch
from torch import Generator, Tensor

from mal.methods.attentionshift.config.steps import MaskPointsConfig, RawPointsConfig
from mal.methods.attentionshift.maps import InstanceMaps
from mal.methods.attentionshift.scaling import eroded, pixels_of

PointPair = tuple[Tensor, Tensor]  # positives (p, 2) and negatives (q, 2): x, y in pixels, centres of pixels


def raw_points(
    maps: InstanceMaps, boxes: Tensor, *, patch: int, generator: Generator, config: RawPointsConfig
) -> list[PointPair]:
    """In each box's crop, points of the eroded foreground and of the background, in proportion to their areas.

    Args:
        maps: (n, H, W) each.
        boxes: (n, 4) xyxy in pixels.

    Returns:
        Per instance `config.count` points in all, repeated in turn if there are fewer pixels; none if there is none.
    """
    found = []
    for foreground, background, box in zip(maps.foreground, maps.background, boxes.tolist(), strict=True):
        crop, corner = crop_of(box, foreground.shape)
        inside, outside = foreground[crop], background[crop]
        positive = eroded((inside > config.positive * inside.max())[None], config.erosion, patch=patch)[0]
        negative = outside > config.negative * outside.max()
        found.append(_drawn(positive, negative, corner, config.count, generator, boxes.dtype))
    return found


def attention_points(
    attention: Tensor, boxes: Tensor, *, patch: int, generator: Generator, erosion: int, config: MaskPointsConfig
) -> list[PointPair]:
    """Table 2's baseline: the same from the attention map itself.

    Args:
        attention: (n, H, W) in 0…1.
    """
    found = []
    for each, box in zip(attention, boxes.tolist(), strict=True):
        crop, corner = crop_of(box, each.shape)
        positive = eroded((each[crop] > config.attention_positive)[None], erosion, patch=patch)[0]
        negative = each[crop] < config.attention_negative
        found.append(_drawn(positive, negative, corner, config.attention_count, generator, boxes.dtype))
    return found


def crop_of(box: list[float], size: torch.Size) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Slices of the pixels from a box's first to its last, both included, and the first one's x, y."""
    height, width = size
    x0, y0 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    x1, y1 = min(int(box[2]), width - 1), min(int(box[3]), height - 1)
    return (slice(y0, y1 + 1), slice(x0, x1 + 1)), (x0, y0)


def _drawn(
    positive: Tensor, negative: Tensor, corner: tuple[int, int], count: int, generator: Generator, dtype: torch.dtype
) -> PointPair:
    inside, outside = pixels_of(positive), pixels_of(negative)
    pixels = torch.cat([inside, outside])
    if not len(pixels):
        nothing = pixels.new_zeros(0, 2, dtype=dtype)
        return nothing, nothing
    chosen = torch.randperm(len(pixels), generator=generator)[:count]
    chosen = chosen[torch.arange(count) % len(chosen)].to(pixels.device)
    width = positive.shape[1]
    xy = torch.stack([pixels[chosen] % width, pixels[chosen] // width], 1)
    points = (xy + xy.new_tensor(corner)).to(dtype) + 0.5
    first = chosen < len(inside)
    return points[first], points[~first]
