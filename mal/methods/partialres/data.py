"""Training samples: an image in the square, a random one of an object's expressions, and the target tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mal.data.images import load_for
from mal.engine.runtime import numpy_generator, sent
from mal.methods.partialres.augment import Placed, augmented, box_shares, mask_shares, mirrored, placed, small_mask
from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.contours import contour_points
from mal.methods.partialres.objects import Referred
from mal.methods.partialres.sequences import (
    TASKS,
    Targets,
    Tokens,
    box_targets,
    mask_targets,
    padded,
    quantise,
    shuffled,
    taskwise_targets,
)
from mal.methods.partialres.text.lexicon import Lexicon, side_by_side

MASK_STRIDE = 4  # of the rival's masks


@dataclass(frozen=True)
class Sample:
    """One object."""

    image: Tensor  # (3, S, S) uint8 RGB
    words: list[int]  # ids, see `Lexicon`
    valid: tuple[float, float]  # shares of the square's sides, x and y, that the image takes
    targets: Targets
    box: tuple[float, ...]  # x1, y1, x2, y2 as shares of S, of the part that is seen
    mask: Tensor | None  # (S / 4, S / 4) float32 in [0, 1], where the rival learns one
    id: int  # of the object


@dataclass(frozen=True)
class Batch:
    """Objects side by side."""

    pixels: Tensor  # (B, 3, S, S) uint8 RGB
    words: Tensor  # (B, T) int64, 0 behind the last id; always on the CPU, see `TextEncoder`
    valid: Tensor  # (B, 2) float32
    inputs: Tensor  # (B, L) int64
    labels: Tensor  # (B, L) int64
    weights: Tensor  # (B, L) float32
    boxes: Tensor  # (B, 4) float32
    masks: Tensor | None  # (B, S / 4, S / 4) float32
    ids: list[int]

    @property
    def images(self) -> Tensor:
        """(B, 3, S, S) float32 RGB in [0, 1]."""
        return self.pixels.float() / 255

    def to(self, device: torch.device) -> Self:
        """The batch on a device, but for its words; to a GPU through page-locked memory, so that it goes on while they
        are copied."""

        moved = partial(sent, device=device)
        return replace(
            self,
            pixels=moved(self.pixels),
            valid=moved(self.valid),
            inputs=moved(self.inputs),
            labels=moved(self.labels),
            weights=moved(self.weights),
            boxes=moved(self.boxes),
            masks=None if self.masks is None else moved(self.masks),
        )


class TrainingObjects(Dataset[Sample]):
    """Samples by (draw, index), as `segmenters.data.order` gives them: the same pair, the same sample, in any process.

    Expression, flip, scale and window, and the order of the points, are drawn anew each time.

    Args:
        objects: to learn, each at its index.
        images: folder of the image files.
        config: `image`, `sequence`, `network.text.words`, `network.model`, `rec.first` and `res.end` are used.
        task: `box`: x1 y1 x2 y2 END. `mask`: points of the contour; every object is in `masks`. `taskwise`: both in
            one, without scale and window (R); objects that are not in `masks` have labels for their box alone.
        masks: id of an object → its mask (H, W) of the image. An empty one is a sequence of nothing but END.
        seed: of what is drawn.
    """

    def __init__(
        self,
        objects: Sequence[Referred],
        images: Path,
        config: PartialresConfig,
        lexicon: Lexicon,
        *,
        task: str,
        masks: Mapping[int, NDArray[np.bool_]],
        seed: int,
    ) -> None:
        assert task in TASKS, task
        self.objects, self.images, self.config, self.lexicon = objects, images, config, lexicon
        self.task, self.masks, self.seed = task, masks, seed

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        draw, index = at
        own, this = self.config, self.objects[index]
        side = own.image.side
        generator = numpy_generator(self.seed, "partialres augment", draw, index)
        words = this.expressions[int(generator.integers(len(this.expressions)))]
        image, box, mask = load_for(this.entry, self.images), this.box, self._mask(this)
        if own.image.flip and generator.random() < 0.5:
            image, box, mask, words = mirrored(image, box, mask, words)
        if own.image.crop and self.task != "taskwise":
            shares = box_shares(box) if mask is None else mask_shares(mask)
            shown = augmented(image, shares, side=side, config=own.image, generator=generator)
        else:
            shown = placed(image, side)
        corners = shown.box_in_square(box)
        contour = None if mask is None else self._contour(mask, shown, generator)
        learns_pixels = own.network.model == "query"
        return Sample(
            image=shown.image,
            words=self.lexicon.encode(words, own.network.text.words),
            valid=shown.valid,
            targets=self._targets(quantise(corners, own.sequence.bins, side), contour),
            box=tuple((corners / side).ravel().tolist()),
            mask=small_mask(mask, shown, MASK_STRIDE) if learns_pixels and mask is not None else None,
            id=this.id,
        )

    def _mask(self, this: Referred) -> NDArray[np.bool_] | None:
        """(H, W) of the image; None where the task has none to learn."""
        if self.task == "box" or (self.task == "taskwise" and this.id not in self.masks):
            return None
        return self.masks[this.id]

    def _contour(self, mask: NDArray[np.bool_], shown: Placed, generator: np.random.Generator) -> Tokens:
        """(2N,) tokens of what is seen of a mask (H, W)."""
        sequence, view = self.config.sequence, shown.view
        seen = mask[view.top : view.bottom, view.left : view.right]
        points = contour_points(seen, sequence.points, sequence.sampler) + np.array([view.left, view.top])
        tokens = quantise(shown.to_square(points), sequence.bins, self.config.image.side)
        if generator.random() < sequence.shuffle:
            tokens = shuffled(tokens, sequence.bins, generator)
        return padded(tokens, 2 * sequence.points, sequence.bins)

    def _targets(self, box: Tokens, contour: Tokens | None) -> Targets:
        bins, first = self.config.sequence.bins, self.config.rec.first
        if self.task == "box":
            return box_targets(box, bins, first=first)
        if self.task == "taskwise":
            return taskwise_targets(box, contour, bins, points=self.config.sequence.points, first=first)
        assert contour is not None
        return mask_targets(contour, bins, end_weight=self.config.res.end)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one task → a batch on the CPU."""
    inputs, labels, weights = (np.stack(each) for each in zip(*(sample.targets for sample in samples), strict=True))
    masks = [sample.mask for sample in samples if sample.mask is not None]
    return Batch(
        pixels=torch.stack([sample.image for sample in samples]),
        words=side_by_side([sample.words for sample in samples]),
        valid=torch.tensor([sample.valid for sample in samples], dtype=torch.float32),
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        weights=torch.from_numpy(weights),
        boxes=torch.tensor([sample.box for sample in samples], dtype=torch.float32),
        masks=torch.stack(masks) if masks else None,
        ids=[sample.id for sample in samples],
    )
