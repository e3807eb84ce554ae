"""From expressions to points, masks and boxes, by a trained network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mal.data.images import load_for
from mal.engine.precision import autocast
from mal.methods.partialres.augment import letterbox
from mal.methods.partialres.checkpoint import Trained
from mal.methods.partialres.filling import mask_of
from mal.methods.partialres.memory import Memory
from mal.methods.partialres.network import PartialRes
from mal.methods.partialres.polygons import scale, to_image
from mal.methods.partialres.query import QueryNetwork
from mal.methods.partialres.sequences import BOX, points_of, task_box, task_mask
from mal.methods.partialres.text.lexicon import side_by_side

Box = tuple[float, float, float, float]  # xywh, pixels of the image


@dataclass(frozen=True)
class Asked:
    """An expression about an object of an image."""

    entry: dict[str, Any]  # of the image
    id: int  # of the object
    words: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What a network makes of an expression.

    Attributes:
        points: (k, 2) x and y of the contour in pixels of the image; of the rival (0, 2), it has none.
        mask: (height, width) of the image; it may be empty.
    """

    points: NDArray[np.float64]
    mask: NDArray[np.bool_]


class Shown:
    """Images as the network is shown them; the last one is kept, as expressions of an image follow each other."""

    def __init__(self, images: Path, side: int) -> None:
        self.images, self.side = images, side
        self._last: tuple[int, Tensor, tuple[float, float]] | None = None

    def __call__(self, entry: dict[str, Any]) -> tuple[Tensor, tuple[float, float]]:
        """(3, S, S) uint8, and which shares of its sides the image takes, (x, y)."""
        if self._last is None or self._last[0] != entry["id"]:
            self._last = (int(entry["id"]), *letterbox(load_for(entry, self.images), self.side))
        return self._last[1], self._last[2]


def batches(asked: Iterable[Asked], size: int) -> Iterator[list[Asked]]:
    """In order, `size` at a time."""
    rest = iter(asked)
    return iter(lambda: list(islice(rest, size)), [])


@dataclass(frozen=True)
class Inputs:
    """What a network is given of a batch of expressions, on its device but for the words."""

    images: Tensor  # (B, 3, S, S) float32 in [0, 1]
    words: Tensor  # (B, T) int64, on the CPU, see `TextEncoder`
    valid: Tensor  # (B, 2) float32


def inputs_of(trained: Trained, asked: Sequence[Asked], shown: Shown) -> Inputs:
    """The images and expressions of a batch."""
    images, valid = zip(*(shown(each.entry) for each in asked), strict=True)
    length, device = trained.config.partialres.network.text.words, device_of(trained.network)
    words = side_by_side([trained.lexicon.encode(each.words, length) for each in asked])
    return Inputs(torch.stack(images).to(device).float() / 255, words, torch.tensor(valid).to(device))


@torch.inference_mode()
def decoded(trained: Trained, given: Inputs, *, boxes: bool) -> tuple[Memory, NDArray[np.int64]]:
    """What a network remembers of a batch, and its tokens (B, steps): of boxes four, of contours 2N + 1."""
    sequence, network = trained.config.partialres.sequence, trained.network
    assert isinstance(network, PartialRes)
    with autocast(given.images.device, trained.dtype):
        memory = network.encode(given.images, given.words, given.valid)
        if boxes:
            tokens = network.greedy(memory, task_box(sequence.bins), BOX)
        else:
            tokens = network.greedy(memory, task_mask(sequence.bins), 2 * sequence.points + 1)
    return memory, tokens.cpu().numpy()


def find(trained: Trained, asked: Sequence[Asked], shown: Shown) -> list[Found]:
    """The contours, or the rival's pixels, of a batch of expressions."""
    own, given = trained.config.partialres, inputs_of(trained, asked, shown)
    if isinstance(trained.network, QueryNetwork):
        return _pixels(trained, given, asked)
    found = []
    for each, row in zip(asked, decoded(trained, given, boxes=False)[1], strict=True):
        height, width = each.entry["height"], each.entry["width"]
        square = points_of(row, own.sequence.bins, own.image.side, own.sequence.read_back)
        points = to_image(square, height, width, own.image.side)
        found.append(Found(points, mask_of(points, height, width, own.sequence.fill)))
    return found


@torch.inference_mode()
def locate(trained: Trained, asked: Sequence[Asked], shown: Shown) -> list[Box]:
    """The boxes of a batch of expressions, cut at the image's border."""
    own, given = trained.config.partialres, inputs_of(trained, asked, shown)
    side, sequence = own.image.side, own.sequence
    if isinstance(trained.network, QueryNetwork):
        with autocast(given.images.device, trained.dtype):
            outputs = trained.network(given.images, given.words, given.valid)
        corners = outputs.found().double().cpu().numpy().reshape(-1, 2, 2) * side
    else:
        rows = decoded(trained, given, boxes=True)[1]
        corners = np.stack([points_of(row, sequence.bins, side, sequence.read_back) for row in rows])
    return [_box(pair, each.entry, side) for pair, each in zip(corners, asked, strict=True)]


def device_of(network: nn.Module) -> torch.device:
    """Where a network is."""
    return next(network.parameters()).device


def _box(corners: NDArray[np.float64], entry: dict[str, Any], side: int) -> Box:
    """Two corners in the square, in any order, → xywh in the image."""
    size = np.array([entry["width"], entry["height"]], dtype=np.float64)
    inside = to_image(corners, entry["height"], entry["width"], side).clip(0, size)
    low, high = inside.min(axis=0), inside.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


@torch.inference_mode()
def _pixels(trained: Trained, given: Inputs, asked: Sequence[Asked]) -> list[Found]:
    """The surest query's pixels, each image's at its own size."""
    assert isinstance(trained.network, QueryNetwork)
    with autocast(given.images.device, trained.dtype):
        outputs = trained.network(given.images, given.words, given.valid)
    assert outputs.masks is not None, "a network for boxes alone has no pixels"
    side, found = int(given.images.shape[-1]), []
    square = F.interpolate(outputs.masks.float()[:, None], size=(side, side), mode="bilinear", align_corners=False)
    for each, whole in zip(asked, square, strict=True):
        height, width = each.entry["height"], each.entry["width"]
        rows, columns = (max(1, round(length * scale(height, width, side))) for length in (height, width))
        inside = F.interpolate(
            whole[None, :, :rows, :columns], size=(height, width), mode="bilinear", align_corners=False
        )
        found.append(Found(np.zeros((0, 2)), (inside[0, 0] > 0).cpu().numpy()))
    return found
