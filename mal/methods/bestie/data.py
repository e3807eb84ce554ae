"""Images, points and class maps, as the networks see them in training and at test time."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from mal.data.annotations import CocoDict, annotations_by_image
from mal.data.categories import Categories
from mal.data.images import load_for
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError
from mal.methods.bestie.config import ScaleConfig
from mal.methods.bestie.losses import UNKNOWN
from mal.methods.bestie.map_files import read_map
from mal.segmenters.data import resize

Entry = tuple[dict[str, Any], list[dict[str, Any]]]  # an image, and its objects
LONGEST = 1 << 30  # a training image is cropped, whatever its long side
COLOURS = {  # what is drawn of each, as factors, and of the hue as a share of the circle
    transforms.adjust_brightness: (0.875, 1.125),
    transforms.adjust_contrast: (0.5, 1.5),
    transforms.adjust_saturation: (0.5, 1.5),
    transforms.adjust_hue: (-0.05, 0.05),
}


@dataclass
class Sample:
    """A square of an image; S pixels a side, filled up at the right and at the bottom where the image is smaller.

    Attributes:
        image: (3, S, S) float32 RGB in [0, 1].
        inside: (S, S) bool, what is not filled up.
        xy: (n, 2) float32, points of objects in pixels, those outside of the square included.
        labels: (n,) int64, their classes from 0.
        first: (n,) bool, whether it is the first of its object.
        present: (K,) bool, the classes that the whole image has, see `present_in`.
        class_map: (S, S) int64, 0 the background, k + 1 class k, UNKNOWN where filled up; None without maps.
    """

    image: Tensor
    inside: Tensor
    xy: Tensor
    labels: Tensor
    first: Tensor
    present: Tensor
    image_id: int
    class_map: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """The sample on a device; from page-locked memory the copy runs beside what comes next."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            image=moved(self.image),
            inside=moved(self.inside),
            xy=moved(self.xy),
            labels=moved(self.labels),
            first=moved(self.first),
            present=moved(self.present),
            class_map=None if self.class_map is None else moved(self.class_map),
        )

    def pin_memory(self) -> Self:
        """The sample in page-locked memory; torch's loaders call this by name."""
        return replace(self, image=self.image.pin_memory())


class TrainingImages(Dataset[Sample]):
    """Samples by (draw, index), as `segmenters.data.order` gives them: the same pair, the same sample, everywhere.

    Crowds are left out, and images with nothing else.

    Args:
        coco: a points view.
        images: folder of its images.
        fill: RGB in [0, 1] where an image is smaller than the square.
        agnostic: all categories count as one.
        maps: folder of class maps (see `map_files`), for samples with one.

    Raises:
        AnnotationError: nothing is left.
    """

    def __init__(
        self,
        coco: CocoDict,
        images: Path,
        *,
        scale: ScaleConfig,
        seed: int,
        fill: tuple[float, ...] = (0.5, 0.5, 0.5),
        agnostic: bool = False,
        maps: Path | None = None,
    ) -> None:
        self.entries = objects_of(coco)
        if not self.entries:
            raise AnnotationError("no image has a point of an object that is not a crowd: nothing to train on")
        self.categories = Categories.of(coco, agnostic=agnostic)
        self.labels = self.categories.labels_of(coco, source="the training file")
        self.present = present_in(coco, self.labels, classes=len(self.categories.ids))
        self.images, self.scale, self.seed, self.fill, self.maps = images, scale, seed, fill, maps

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        draw, index = at
        entry, annotations = self.entries[index]
        generator = numpy_generator(self.seed, "bestie augment", draw, index)
        short = max(1, round(self.scale.short_side * float(generator.choice(self.scale.scales))))
        image = resize(load_for(entry, self.images), short=short, long=LONGEST)
        xy, labels, first = points_of(annotations, self.labels, entry, (image.shape[-2], image.shape[-1]))
        classes = None
        if self.maps is not None:
            found = torch.from_numpy(read_map(self.maps, entry))
            size = [int(side) for side in image.shape[-2:]]
            classes = transforms.resize(found[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
        if self.scale.colour:
            image = recoloured(image, generator)
        image, xy, classes = self._cropped(image, xy, classes, generator)
        if generator.random() < self.scale.flip:
            image, classes = image.flip(-1), None if classes is None else classes.flip(-1)
            x = image.shape[-1] - xy[:, 0]
            xy = torch.stack([x.where(x != image.shape[-1], x - 0.5), xy[:, 1]], dim=1)  # of the first pixel's edge
        inside, present = torch.ones(image.shape[-2:], dtype=torch.bool), self.present[entry["id"]]
        return self._padded(Sample(image, inside, xy, labels, first, present, int(entry["id"]), classes))

    def _cropped(
        self, image: Tensor, xy: Tensor, classes: Tensor | None, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        side = self.scale.crop
        top, left = (int(generator.integers(max(0, length - side) + 1)) for length in image.shape[-2:])
        rows, columns = slice(top, top + side), slice(left, left + side)
        shown = None if classes is None else classes[rows, columns]
        return image[:, rows, columns], xy - torch.tensor([left, top], dtype=torch.float32), shown

    def _padded(self, sample: Sample) -> Sample:
        side, (height, width) = self.scale.crop, sample.image.shape[-2:]
        by = (0, side - width, 0, side - height)
        colour = torch.tensor(self.fill, dtype=torch.float32)[:, None, None].repeat(1, side, side)
        colour[:, :height, :width] = sample.image.float() / 255
        classes = sample.class_map
        return replace(
            sample,
            image=colour,
            inside=F.pad(sample.inside, by, value=False),
            class_map=None if classes is None else F.pad(classes, by, value=UNKNOWN),
        )


def recoloured(image: Tensor, generator: np.random.Generator) -> Tensor:
    """(3, h, w) uint8 with another brightness, contrast, saturation and hue, each by a chance of ½."""
    for change, (low, high) in COLOURS.items():
        amount = float(generator.uniform(low, high))
        if generator.random() < 0.5:
            image = change(image, amount)
    return image


def objects_of(coco: CocoDict) -> list[Entry]:
    """The images that have objects other than crowds, sorted by id, each with these in the order of the file."""
    by_image, found = annotations_by_image(coco), []
    unreadable = set(coco.get("unreadable_images", ()))
    for image in sorted(coco["images"], key=lambda image: image["id"]):
        objects = [annotation for annotation in by_image[image["id"]] if not annotation.get("iscrowd", 0)]
        if objects and image["id"] not in unreadable:
            found.append((image, objects))
    return found


def present_in(coco: CocoDict, labels: dict[int, int], *, classes: int) -> dict[int, Tensor]:
    """The classes that each image has an annotation of, a crowd's included: image id → (classes,) bool.

    Args:
        labels: category id → label.
    """
    found = {image["id"]: torch.zeros(classes, dtype=torch.bool) for image in coco["images"]}
    for annotation in coco["annotations"]:
        found[annotation["image_id"]][labels[int(annotation["category_id"])]] = True
    return found


def known_of(
    entry: dict[str, Any], annotations: list[dict[str, Any]], present: Tensor, labels: dict[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What is known of a whole image: its classes, the points of its objects in its own pixels, and their labels."""
    xy, numbers, _ = points_of(annotations, labels, entry, (entry["height"], entry["width"]))
    return present, xy, numbers


def points_of(
    annotations: list[dict[str, Any]], labels: dict[int, int], entry: dict[str, Any], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """All points of an image's objects: (n, 2) xy in its resized pixels, (n,) labels, (n,) whether first of its object.

    Args:
        labels: category id → label.
        entry: of the image. size: (height, width) that it is resized to.
    """
    each = [
        (point, labels[int(a["category_id"])], place == 0)
        for a in annotations
        for place, point in enumerate(a["points"])
    ]
    across = torch.tensor([size[1] / entry["width"], size[0] / entry["height"]])
    xy = torch.tensor([point for point, _, _ in each], dtype=torch.float32).view(-1, 2) * across
    return xy, torch.tensor([label for _, label, _ in each]), torch.tensor([first for _, _, first in each])


def padded(image: Tensor, *, multiple: int, fill: tuple[float, ...]) -> Tensor:
    """(3, h, w) uint8 → (3, H, W) in [0, 1], the next multiples, filled at the right and at the bottom."""
    height, width = (-(-int(side) // multiple) * multiple for side in image.shape[-2:])
    whole = torch.tensor(fill, dtype=torch.float32, device=image.device)[:, None, None].repeat(1, height, width)
    whole[:, : image.shape[-2], : image.shape[-1]] = image.float() / 255
    return whole
