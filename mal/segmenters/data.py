"""Images and targets of phase 2, the same for every supervision but for the masks.

Which instances are trained on, their boxes, the order of the images and what augmentation does to them depend on
boxes, crowd flags, the seed and the position in training: never on a mask. So two runs on the same images, one with
human masks and one with pseudo-labels, differ in their mask targets and in nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from mal.data.annotations import CocoDict, annotations_by_image, decode_mask
from mal.data.images import load_for
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError
from mal.segmenters.config import ScaleConfig
from mal.segmenters.crop import GREY, View, padded, random_view
from mal.segmenters.sampling import by_aspect, copies, repeat_factors

MIN_SIDE = 1.0  # pixels; a box whose part inside the image is narrower is left out, as MMDetection does
FURTHER_COPY = 1 << 32  # more epochs than a run has


@dataclass
class Sample:
    """One image as a segmenter sees it, and what it should find there."""

    image: Tensor  # (3, h, w) uint8 RGB, resized
    boxes_xyxy: Tensor  # (n, 4) float32, pixels of the resized image
    labels: Tensor  # (n,) int64, 1 to the number of classes
    masks: Tensor  # (n, h, w) uint8, 0 or 1; all zero where the label file's mask is empty; (0, h, w) if unread
    image_id: int

    def to(self, device: torch.device) -> Self:
        """The sample on a device; from page-locked memory the copy runs beside what comes next."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The sample in page-locked memory; torch's loaders call this by name."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            image=change(self.image),
            boxes_xyxy=change(self.boxes_xyxy),
            labels=change(self.labels),
            masks=change(self.masks),
        )


def instances(coco: CocoDict) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The images to train on, sorted by id, each with its annotations in the order of the file.

    Crowds are left out, and boxes narrower than a pixel inside the image, and images with nothing left.

    Raises:
        AnnotationError: nothing is left.
    """
    by_image = annotations_by_image(coco)
    kept = []
    for image in sorted(coco["images"], key=lambda image: image["id"]):
        usable = [
            annotation
            for annotation in by_image[image["id"]]
            if not annotation.get("iscrowd", 0) and _seen(annotation["bbox"], _whole(image))
        ]
        if usable:
            kept.append((image, usable))
    if not kept:
        raise AnnotationError(
            "no image has an object that is not a crowd and at least a pixel wide: nothing to train on"
        )
    return kept


def _whole(image: dict[str, Any]) -> View:
    return View(left=0, top=0, right=image["width"], bottom=image["height"])


def _seen(bbox: list[float], view: View) -> bool:
    left, top, right, bottom = view.clip(bbox)
    return min(right - left, bottom - top) >= MIN_SIDE


def order(
    count: int,
    *,
    seed: int,
    first: int,
    stop: int,
    factors: NDArray[np.float64] | None = None,
    tall: NDArray[np.bool_] | None = None,
    batch: int = 1,
) -> Iterator[tuple[int, int]]:
    """(draw, index) of the positions `first` to `stop` in an endless sequence of shuffled epochs of `count` images.

    With `factors` (see `sampling`) an epoch has copies of some images. The draw is what augmentation follows: the
    epoch, but for the n-th further copy of an image epoch + n · 2³², so that copies are augmented differently. With
    `tall`, (count,), the `batch` images from each multiple of it on are grouped by aspect (see `sampling.by_aspect`).
    """
    epoch, start = 0, 0
    while start < stop:
        often = np.ones(count, dtype=np.int64) if factors is None else copies(factors, seed=seed, epoch=epoch)
        length = int(often.sum())
        if first < start + length:
            images = np.repeat(np.arange(count), often)
            draws = epoch + FURTHER_COPY * (np.arange(length) - np.repeat(often.cumsum() - often, often))
            permutation = numpy_generator(seed, "segmenter order", epoch).permutation(length)
            if tall is not None:
                grouped = by_aspect(
                    tall[images[permutation]],
                    first=start,
                    batch=batch,
                    mostly_tall=bool(2 * tall.sum() > count),
                    generator=numpy_generator(seed, "segmenter aspects", epoch),
                )
                permutation = permutation[grouped]
            for place in permutation[max(first - start, 0) : stop - start].tolist():
                yield int(draws[place]), int(images[place])
        epoch, start = epoch + 1, start + length


def parts_of_batches(positions: Iterator[tuple[int, int]], size: int, part: slice) -> Iterator[list[tuple[int, int]]]:
    """What `order` gives, `size` at a time, and of each batch one process's part."""
    return iter(lambda: list(islice(positions, size))[part], [])


def resized(height: int, width: int, *, short: float, long: float) -> tuple[int, int]:
    """(height, width) with the short side at `short`, or smaller where the long side would exceed `long`."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: Tensor, *, short: int, long: int) -> Tensor:
    """(3, H, W) uint8 → (3, h, w) uint8, bilinear with antialiasing; training and test use the same."""
    size = list(resized(*image.shape[-2:], short=short, long=long))
    return transforms.resize(image, size, antialias=True)


class TrainingSet(Dataset[Sample]):
    """Samples by (draw, index), as `order` gives them: the same pair, the same sample, in any process and order.

    Args:
        coco: a COCO file with masks, human or pseudo.
        images: folder of its images.
        scale: sizes, crops and flip.
        seed: of the augmentation.
        masks: false leaves the masks unread; samples then carry none.
        class_agnostic: every label is 1.
    """

    def __init__(
        self, coco: CocoDict, *, images: Path, scale: ScaleConfig, seed: int, masks: bool, class_agnostic: bool
    ) -> None:
        self.entries = instances(coco)
        self.category_ids = sorted(int(category["id"]) for category in coco["categories"])
        self.labels = {category: 1 if class_agnostic else i for i, category in enumerate(self.category_ids, start=1)}
        self.classes = 1 if class_agnostic else len(self.category_ids)
        self.images, self.scale, self.seed, self.masks = images, scale, seed, masks

    def __len__(self) -> int:
        return len(self.entries)

    def repeat_factors(self, threshold: float | None, rounding: str = "random") -> NDArray[np.float64] | None:
        """How often an epoch shows each image, on average (see `sampling`); None without a threshold."""
        if threshold is None:
            return None
        shown = [[self.labels[int(annotation["category_id"])] for annotation in there] for _, there in self.entries]
        return repeat_factors(shown, threshold=threshold, rounding=rounding)

    def tall(self) -> NDArray[np.bool_]:
        """Of each image whether it is not wider than it is high."""
        return np.array([entry["width"] <= entry["height"] for entry, _ in self.entries])

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        draw, index = at
        entry, annotations = self.entries[index]
        generator = numpy_generator(self.seed, "segmenter augment", draw, index)
        short = int(generator.choice(self.scale.short_sides))
        flip = generator.random() < self.scale.flip
        view, size = self._view(entry, short, generator)
        annotations = [annotation for annotation in annotations if _seen(annotation["bbox"], view)]
        image = transforms.resize(view.cut(load_for(entry, self.images)), list(size), antialias=True)
        boxes = _boxes(view, annotations, size)
        masks = _masks(entry, view, annotations if self.masks else [], size)
        if flip:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes = torch.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], dim=1)
        if self.scale.jitter:
            image, masks = (
                padded(maps, (self.scale.long_side, self.scale.long_side), fill)
                for maps, fill in ((image, GREY), (masks, 0))
            )
        numbers = [self.labels[int(annotation["category_id"])] for annotation in annotations]
        labels = torch.tensor(numbers, dtype=torch.int64)
        return Sample(image=image, boxes_xyxy=boxes, labels=labels, masks=masks, image_id=int(entry["id"]))

    def _view(self, entry: dict[str, Any], short: int, generator: np.random.Generator) -> tuple[View, tuple[int, int]]:
        """The whole image or a crop of it, which may hold no object, and the (height, width) it is resized to."""
        scale, height, width, long = self.scale, entry["height"], entry["width"], self.scale.long_side
        if scale.jitter:
            factor = generator.uniform(scale.jitter[0], scale.jitter[1])
            shown = resized(height, width, short=short * factor, long=long * factor)
            view = random_view(height, width, shown=shown, sides=(long, long), generator=generator)
            return view, (min(long, shown[0]), min(long, shown[1]))
        view = _whole(entry)
        if scale.crop > 0 and generator.random() < scale.crop:
            shown = resized(height, width, short=int(generator.choice(scale.crop_short_sides)), long=long)
            sides = (scale.crop_sides[0], scale.crop_sides[1])
            view = random_view(height, width, shown=shown, sides=sides, generator=generator)
        return view, resized(view.height, view.width, short=short, long=long)


def _boxes(view: View, annotations: list[dict[str, Any]], size: tuple[int, ...]) -> Tensor:
    """(n, 4) xyxy of the annotations' own boxes (not their masks' extents) in the resized view."""
    boxes = [view.clip(annotation["bbox"]) for annotation in annotations]
    across, down = size[1] / view.width, size[0] / view.height
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4) * torch.tensor([across, down, across, down])


def _masks(entry: dict[str, Any], view: View, annotations: list[dict[str, Any]], size: tuple[int, ...]) -> Tensor:
    """(n, h, w) uint8: a pixel belongs to an object where the nearest pixel of the original's view does."""
    if not annotations:
        return torch.empty(0, *size, dtype=torch.uint8)
    height, width = entry["height"], entry["width"]
    masks = [decode_mask(annotation["segmentation"], height=height, width=width) for annotation in annotations]
    seen = view.cut(torch.stack([torch.from_numpy(mask.view("uint8")) for mask in masks]))
    if tuple(seen.shape[-2:]) != size:
        seen = transforms.resize(seen, list(size), interpolation=InterpolationMode.NEAREST_EXACT)
    return seen
