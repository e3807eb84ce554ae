"""What of an image a training sample shows: all of it, a random crop (as in DETR), or, with large-scale jitter
(Ghiasi et al., 2021), what of it fits into a square, which is filled up where the image is smaller."""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from torch import Tensor
from torch.nn import functional as F

Box = tuple[float, float, float, float]  # xyxy
GREY = 128  # of the padding of images, in 0 … 255: what MaskFormer and Mask2Former are trained with


@dataclass(frozen=True)
class View:
    """A window of whole pixels of an image: rows `top` to `bottom`, columns `left` to `right`, the last excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def cut(self, maps: Tensor) -> Tensor:
        """(…, H, W) → (…, height, width)."""
        return maps[..., self.top : self.bottom, self.left : self.right]

    def clip(self, bbox: list[float]) -> Box:
        """xyxy, in the view's pixels, of the part of an xywh box that is seen; its sides are negative if none is."""
        x, y, width, height = bbox
        left, top = max(x - self.left, 0.0), max(y - self.top, 0.0)
        return left, top, min(x + width - self.left, self.width), min(y + height - self.top, self.height)


def random_view(
    height: int, width: int, *, shown: tuple[int, int], sides: tuple[int, int], generator: np.random.Generator
) -> View:
    """A crop whose sides are drawn between two lengths, independently, anywhere in the image.

    Args:
        height: of the image, in pixels. width: likewise.
        shown: (height, width) the image would be resized to, in whose pixels lengths are meant.
        sides: shortest and longest. An image shorter than that is kept whole along that axis.

    Returns:
        The crop in pixels of the image itself, so that it need not be resized twice; rounded outwards.
    """
    starts, stops = [], []
    for length, small in zip((height, width), shown, strict=True):
        side = int(generator.integers(min(sides[0], small), min(sides[1], small) + 1))
        start = int(generator.integers(small - side + 1))
        starts.append(floor(start * length / small))
        stops.append(min(ceil((start + side) * length / small), length))
    return View(left=starts[1], top=starts[0], right=stops[1], bottom=stops[0])


def padded(values: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """(…, h, w) → (…, H, W), not smaller, filled to the right and below."""
    return F.pad(values, (0, size[1] - values.shape[-1], 0, size[0] - values.shape[-2]), value=fill)
