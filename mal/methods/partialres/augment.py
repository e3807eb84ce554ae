"""Images in the square that the network sees: letterboxed, or at another scale and in a window; and mirrored.

A window is of whole pixels of the image, cut out before the image is resized, so that points and boxes follow exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from mal.methods.partialres.config.sequence import ImageConfig
from mal.methods.partialres.polygons import scale
from mal.methods.partialres.text.sides import swapped
from mal.segmenters.crop import GREY, View, padded

Box = tuple[float, float, float, float]  # xywh, pixels of the image
Shares = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], NDArray[np.float64]]

TRIES = 100  # windows that are drawn for each of
WANTED = (0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the object inside, one after the other
LEAST = 0.3  # of the object in the best of all these windows, else the image is shown whole


@dataclass(frozen=True)
class Placed:
    """What is seen of an image, in the upper left corner of the square."""

    image: Tensor  # (3, S, S) uint8 RGB, grey beside the image
    view: View  # of the image
    size: tuple[float, float]  # width and height of the view in the square, in its pixels

    @property
    def valid(self) -> tuple[float, float]:
        """Shares of the square's sides, x and y, that the view takes."""
        side = self.image.shape[-1]
        return self.size[0] / side, self.size[1] / side

    def to_square(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (k, 2) xy in pixels of the image → of the square; those outside the view lie outside its place."""
        view = self.view
        factors = np.array([self.size[0] / view.width, self.size[1] / view.height])
        return (points - np.array([view.left, view.top])) * factors

    def box_in_square(self, box: Box) -> NDArray[np.float64]:
        """(2, 2): the corners x1 y1, x2 y2 of the part of a box that is seen, in pixels of the square."""
        x, y, width, height = box
        corners = self.to_square(np.array([[x, y], [x + width, y + height]]))
        return np.clip(corners, 0, self.size)


def placed(image: Tensor, side: int, view: View | None = None, *, scaled: float = 1.0) -> Placed:
    """A view of an image in the square.

    Args:
        image: (3, H, W) uint8. side: S, of the square.
        view: is as large in the square as the whole image would be; None: the whole image.
        scaled: further factor, at most 1.
    """
    height, width = image.shape[-2:]
    factor = scale(height, width, side) * scaled
    view = view or View(left=0, top=0, right=width, bottom=height)
    size = (width * factor, height * factor)
    pixels = [max(1, round(size[1])), max(1, round(size[0]))]
    resized = transforms.resize(view.cut(image), pixels, antialias=True)
    return Placed(padded(resized, (side, side), GREY), view, size)


def letterbox(image: Tensor, side: int) -> tuple[Tensor, tuple[float, float]]:
    """An image as large as it fits into the square, in its upper left corner, grey beside it.

    Args:
        image: (3, H, W) uint8.

    Returns:
        (3, side, side) uint8, and the shares of the sides, x and y, that the image takes.
    """
    whole = placed(image, side)
    return whole.image, whole.valid


def augmented(
    image: Tensor, shares: Shares, *, side: int, config: ImageConfig, generator: np.random.Generator
) -> Placed:
    """An image at a random scale s of `config.scales` (R).

    Where s ≤ 1 the whole image is smaller. Else it is a window, 1/s of the image's sides, that holds enough of the
    object (`window`), or the whole image where none does.

    Args:
        image: (3, H, W) uint8.
        shares: how much of the object windows hold: `mask_shares` or `box_shares`.
    """
    height, width = image.shape[-2:]
    drawn = float(generator.uniform(config.scales[0], config.scales[1]))
    if drawn <= 1:
        return placed(image, side, scaled=drawn)
    return placed(image, side, window(shares, height, width, 1 / drawn, generator))


def window(shares: Shares, height: int, width: int, part: float, generator: np.random.Generator) -> View | None:
    """A random window that holds much of an object.

    A hundred are drawn for each share of `WANTED`, and the first that has it is taken; else the best of all if that has
    `LEAST`.

    Args:
        height, width: of the image. part: of the image's sides that a window has, below 1.
    """
    wide, high = max(1, round(width * part)), max(1, round(height * part))
    best, best_share = None, LEAST
    for wanted in WANTED:
        lefts = generator.integers(width - wide + 1, size=TRIES)
        tops = generator.integers(height - high + 1, size=TRIES)
        held = shares(lefts, tops, wide, high)
        enough = np.flatnonzero(held >= wanted)
        place = int(enough[0]) if len(enough) else int(held.argmax())
        if len(enough) or held[place] >= best_share:
            left, top = int(lefts[place]), int(tops[place])
            best, best_share = View(left, top, left + wide, top + high), float(held[place])
        if len(enough):
            break
    return best


def mask_shares(mask: NDArray[np.bool_]) -> Shares:
    """How much of a mask (H, W) windows hold; 0 of an empty one."""
    sums = cv2.integral(mask.astype(np.uint8, order="C"))
    total = max(1, int(sums[-1, -1]))

    def held(lefts: NDArray[np.int64], tops: NDArray[np.int64], wide: int, high: int) -> NDArray[np.float64]:
        rights, bottoms = lefts + wide, tops + high
        return (sums[bottoms, rights] - sums[tops, rights] - sums[bottoms, lefts] + sums[tops, lefts]) / total

    return held


def box_shares(box: Box) -> Shares:
    """How much of a box's area windows hold; 0 of one without an area."""
    x, y, width, height = box

    def held(lefts: NDArray[np.int64], tops: NDArray[np.int64], wide: int, high: int) -> NDArray[np.float64]:
        across = np.minimum(lefts + wide, x + width) - np.maximum(lefts, x)
        down = np.minimum(tops + high, y + height) - np.maximum(tops, y)
        area = width * height
        return np.maximum(across, 0) * np.maximum(down, 0) / area if area > 0 else np.zeros(len(lefts))

    return held


def mirrored(
    image: Tensor, box: Box, mask: NDArray[np.bool_] | None, words: Sequence[str]
) -> tuple[Tensor, Box, NDArray[np.bool_] | None, tuple[str, ...]]:
    """An image left to right, with its object's box and mask, and the expression with its sides swapped."""
    x, y, width, height = box
    turned = (image.shape[-1] - x - width, y, width, height)
    return image.flip(-1), turned, None if mask is None else mask[:, ::-1], swapped(words)


def small_mask(mask: NDArray[np.bool_], at: Placed, stride: int) -> Tensor:
    """A mask of an image as the square shows it: the share of each cell of `stride` × `stride` pixels that it covers.

    Args:
        mask: (H, W) of the image that was placed.

    Returns:
        (S / stride, S / stride) float32 in [0, 1]; 0 beside the image.
    """
    side = at.image.shape[-1]
    seen = at.view.cut(torch.from_numpy(np.ascontiguousarray(mask)))[None].float()
    pixels = [max(1, round(at.size[1])), max(1, round(at.size[0]))]
    whole = padded(transforms.resize(seen, pixels, antialias=True), (side, side), 0)
    return F.avg_pool2d(whole, stride)[0].clamp(0, 1)
