"""Images, their class maps and their tags, as training sees them, together with their references."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mal.data.images import load_for
from mal.data.semantic import IGNORED, MappedImage, SemanticFile, visible
from mal.engine.runtime import numpy_generator, sent
from mal.errors import AnnotationError, ConfigError
from mal.methods.simformer.augment import augmented, batch_size
from mal.methods.simformer.config.augment import AugmentConfig, reads_truth
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.references import References, reads_base
from mal.segmenters.crop import GREY, padded


@dataclass
class Sample:
    """What a step sees of one image, before padding."""

    image: Tensor  # (3, h, w) uint8 RGB
    labels: Tensor  # (h, w) uint8: a class to learn, or 255
    truth: Tensor | None  # likewise, hidden classes included; read by released rules alone
    base: list[int]  # classes to learn that have pixels, ascending
    tags: list[int]  # novel classes that are said to be there, ascending
    image_id: int


@dataclass
class Batch:
    """Images padded to one size: inputs, then, where they are paired, their references in the same order."""

    images: Tensor  # (B, 3, H, W) RGB in [0, 1]; H and W are multiples of 32
    labels: Tensor  # (B, H, W) int64: a class to learn, or 255; 255 on the padding
    inside: Tensor  # (B, H, W) bool: no padding
    # (B, H, W) int64, hidden classes included; read by released rules alone, which draw points on the CPU
    truth: Tensor | None
    base: list[list[int]]  # of each image, the classes of its labels: known to the host, which then asks no GPU
    tags: list[list[int]]
    ids: list[int]
    pairs: list[tuple[int, int]]  # positions of the images whose pixels are compared

    def to(self, device: torch.device) -> Self:
        """What the network learns from on a device, without `truth`; to a GPU through page-locked memory, so that it
        goes on while they are copied."""

        moved = partial(sent, device=device)
        return replace(
            self, images=moved(self.images), labels=moved(self.labels), inside=moved(self.inside), truth=None
        )


class TrainingImages(Dataset[tuple[Sample, ...]]):
    """Inputs with their references by (draw, index), as `segmenters.data.order` gives them: the same pair, the same
    samples, in any process and order.

    Args:
        weak: class maps of what is known, with tags.
        images: folder of the images.
        truth: class maps with nothing hidden, of the same images; only released rules read them.
        base: `base_classes` of `weak`, where they are known; None: found here if pairs need them.

    Raises:
        ConfigError: a released rule reads `truth`, and there is none.
        AnnotationError: `truth` is of other images; a map cannot be read; or see `References`.
    """

    def __init__(
        self,
        weak: SemanticFile,
        images: Path,
        *,
        pairs: PairsConfig,
        augment: AugmentConfig,
        seed: int,
        truth: SemanticFile | None = None,
        base: np.ndarray | None = None,
    ) -> None:
        if weak.novel:
            augment = replace(augment, true_masks_after=None)  # a rule of re-training, where nothing is hidden
        self.weak, self.images, self.augment, self.seed = weak, images, augment, seed
        self.truth = truth
        if truth is None and reads_truth(augment):
            raise ConfigError(
                "simformer.augment has tags=crop, redraw=released or true_masks_after, which look at hidden masks, and "
                f"{weak.folder} has none; choose tags=image, redraw=paper and true_masks_after=null"
            )
        if truth is not None and [each.id for each in truth.images] != [each.id for each in weak.images]:
            raise AnnotationError(
                f"{truth.folder} and {weak.folder} hold class maps of different images; make the second from the first"
            )
        self.references: References | None = None
        if pairs.kind != "none":
            tags = [image.tags or () for image in weak.images]
            if base is None and reads_base(pairs.kind):
                base = base_classes(weak)
            self.references = References(tags, base, pairs, seed=seed)

    def __len__(self) -> int:
        return len(self.weak.images)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Sample, ...]:
        draw, index = at
        own = self._sample(index, numpy_generator(self.seed, "simformer augment", draw, index))
        if self.references is None:
            return (own,)
        generator = numpy_generator(self.seed, "simformer augment reference", draw, index)
        return own, self._sample(self.references.of(draw, index), generator)

    def _sample(self, index: int, generator: np.random.Generator) -> Sample:
        entry = self.weak.images[index]
        maps = [_map(self.weak, entry)]
        if self.truth is not None:
            maps.append(_map(self.truth, self.truth.images[index]))
        tags = list(entry.tags or ())
        image, shown = augmented(
            load_for(entry.entry, self.images), maps, tagged=bool(tags), config=self.augment, generator=generator
        )
        truth = shown[1] if self.truth is not None else None
        if self.augment.tags == "crop":
            assert truth is not None
            tags = sorted(set(visible(truth.numpy())) & set(self.weak.novel or ()))
        return Sample(image, shown[0], truth, list(visible(shown[0].numpy())), tags, entry.id)


def base_classes(file: SemanticFile) -> np.ndarray:
    """(images, classes) bool: the classes that each map has pixels of. Decodes them all."""
    found = np.zeros((len(file.images), len(file.classes)), dtype=bool)
    for row, image in zip(found, file.images, strict=True):
        row[list(visible(file.map_of(image)))] = True
    return found


def _map(file: SemanticFile, image: MappedImage) -> Tensor:
    return torch.from_numpy(file.map_of(image))


def inputs_of(batch: int, kind: str) -> int:
    """How many of a batch's images are inputs; the others are their references.

    Raises:
        ConfigError: one has no reference.
    """
    if kind == "none":
        return batch
    if batch % 2:
        raise ConfigError(
            f"simformer.learning.batch={batch} is odd, and with simformer.pairs.kind={kind} one half of a batch refers "
            "to the other; choose an even one"
        )
    return batch // 2


PAIRED: dict[str, Callable[[int], list[tuple[int, int]]]] = {  # by kind: number of inputs → positions in the batch
    **{kind: lambda inputs: [(i, inputs + i) for i in range(inputs)] for kind in ("cross", "random", "base")},
    "self": lambda inputs: [(i, i) for i in range(2 * inputs)],
    "sampler": lambda _: [],
    "none": lambda _: [],
}


def collate(items: list[tuple[Sample, ...]], kind: str, augment: AugmentConfig) -> Batch:
    """Inputs with their references, as `TrainingImages` gives them, → a batch on the CPU.

    Args:
        kind: of the pairs.
    """
    samples = [sample for role in zip(*items, strict=True) for sample in role]
    size = batch_size([(sample.image.shape[-2], sample.image.shape[-1]) for sample in samples], augment)
    inside = [torch.ones(sample.labels.shape, dtype=torch.uint8) for sample in samples]
    truths = [sample.truth for sample in samples if sample.truth is not None]
    return Batch(
        images=torch.stack([padded(sample.image, size, GREY) for sample in samples]).float() / 255,
        labels=_stacked([sample.labels for sample in samples], size),
        inside=torch.stack([padded(each, size, 0) for each in inside]).bool(),
        truth=_stacked(truths, size) if truths else None,
        base=[sample.base for sample in samples],
        tags=[sample.tags for sample in samples],
        ids=[sample.image_id for sample in samples],
        pairs=PAIRED[kind](len(items)),
    )


def _stacked(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    return torch.stack([padded(values, size, IGNORED) for values in maps]).long()
