"""Masks of a mask head reach the image where their boxes lie."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mal.segmenters.rcnn.pasting import paste


@given(st.integers(0, 10_000), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_a_mask_is_read_bilinearly_over_its_box(seed: int, cells: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(3, cells, cells, generator=generator)
    low = torch.rand(3, 2, generator=generator) * 24 - 6
    boxes = torch.cat([low, low + 0.3 + torch.rand(3, 2, generator=generator) * 16], dim=1)
    found = paste(masks, boxes, height=20, width=23, threshold=0.4)
    for mask, (left, top, right, bottom), pixels in zip(masks, boxes, found, strict=True):
        y = 2 * (torch.arange(20) + 0.5 - top) / (bottom - top) - 1
        x = 2 * (torch.arange(23) + 0.5 - left) / (right - left) - 1
        grid = torch.stack([x.expand(20, 23), y[:, None].expand(20, 23)], dim=-1)
        wanted = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        clear = (wanted - 0.4).abs() > 1e-4  # from rounding
        assert np.array_equal(pixels[clear], (wanted >= 0.4).numpy()[clear])


def test_a_full_mask_covers_the_pixels_whose_middle_its_box_holds() -> None:
    boxes = torch.tensor([[2.7, 1.2, 6.4, 4.6], [-3.0, -3.0, 99.0, 2.0], [4.0, 4.0, 4.0, 4.0]])
    found = paste(torch.ones(3, 28, 28), boxes, height=8, width=9, threshold=0.5)
    rows, columns = np.mgrid[:8, :9] + 0.5
    for pixels, (left, top, right, bottom) in zip(found, boxes.tolist(), strict=True):
        assert np.array_equal(pixels, (columns > left) & (columns < right) & (rows > top) & (rows < bottom))
