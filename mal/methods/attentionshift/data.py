"""Images and their points, as the network sees them in training and at test time."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from mal.data.annotations import CocoDict, annotations_by_image, file_name
from mal.data.categories import Categories
from mal.data.images import load_for
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError
from mal.methods.attentionshift.config.network import ScaleConfig
from mal.methods.attentionshift.querying import Points
from mal.segmenters.data import resize


@dataclass
class Sample:
    """One image, and the points of its objects.

    Attributes:
        image: (3, h, w) uint8 RGB, resized.
        further: (m, 2) x and y in pixels, of each object: what a file gives beyond its first point.
    """

    image: Tensor
    points: Points
    further: list[Tensor]
    image_id: int

    def to(self, device: torch.device) -> Self:
        """The sample on a device; from page-locked memory the copy runs beside what comes next."""
        xy, labels = (each.to(device, non_blocking=True) for each in (self.points.xy, self.points.labels))
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            points=replace(self.points, xy=xy, labels=labels),
            further=[each.to(device, non_blocking=True) for each in self.further],
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
        most: the number of point tokens.
        agnostic: all categories count as one.

    Raises:
        AnnotationError: nothing is left, or an image has more points than there are tokens.
    """

    def __init__(
        self, coco: CocoDict, images: Path, *, scale: ScaleConfig, seed: int, most: int, agnostic: bool = False
    ) -> None:
        self.entries = objects_of(coco, most=most)
        if not self.entries:
            raise AnnotationError("no image has a point of an object that is not a crowd: nothing to train on")
        self.categories = Categories.of(coco, agnostic=agnostic)
        self.labels = self.categories.labels_of(coco, source="the training file")
        self.images, self.scale, self.seed = images, scale, seed

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        draw, index = at
        entry, annotations = self.entries[index]
        generator = numpy_generator(self.seed, "attentionshift augment", draw, index)
        short = int(generator.choice(self.scale.short_sides))
        flip = generator.random() < self.scale.flip
        sample = shown(entry, annotations, self.images, self.labels, short=short, long=self.scale.long_side)
        return flipped(sample) if flip else sample


def objects_of(coco: CocoDict, *, most: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The images that have objects other than crowds, sorted by id, each with these in the order of the file.

    Raises:
        AnnotationError: an image has more than `most`.
    """
    by_image, found = annotations_by_image(coco), []
    unreadable = set(coco.get("unreadable_images", ()))
    for image in sorted(coco["images"], key=lambda image: image["id"]):
        objects = [annotation for annotation in by_image[image["id"]] if not annotation.get("iscrowd", 0)]
        if len(objects) > most:
            fullest = max(sum(not a.get("iscrowd", 0) for a in every) for every in by_image.values())
            raise AnnotationError(
                f"image {image['id']} ({file_name(image)}) has {len(objects)} points, and the network {most} tokens "
                f"for them; set attentionshift.tokens.count={fullest} or more"
            )
        if objects and image["id"] not in unreadable:
            found.append((image, objects))
    return found


def shown(
    entry: dict[str, Any],
    annotations: list[dict[str, Any]],
    images: Path,
    labels: dict[int, int],
    *,
    short: int,
    long: int,
) -> Sample:
    """An image with the short side at `short`, or smaller where the long one would exceed `long`.

    Args:
        entry: of the image. annotations: of its objects, with `points`.
        labels: category id → label.
    """
    image = resize(load_for(entry, images), short=short, long=long)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    scale = torch.tensor([size[1] / entry["width"], size[0] / entry["height"]])
    placed = [torch.tensor(a["points"], dtype=torch.float32) * scale for a in annotations]
    xy = torch.stack([each[0] for each in placed]) if placed else torch.zeros(0, 2)
    numbers = torch.tensor([labels[int(a["category_id"])] for a in annotations], dtype=torch.int64)
    return Sample(image, Points(xy, numbers, size), [each[1:] for each in placed], int(entry["id"]))


def flipped(sample: Sample) -> Sample:
    """Left to right."""
    width = sample.points.size[1]

    def mirrored(xy: Tensor) -> Tensor:
        return torch.stack([(width - xy[:, 0]).clamp(max=width - 0.5), xy[:, 1]], dim=1)

    points = replace(sample.points, xy=mirrored(sample.points.xy))
    return replace(
        sample, image=sample.image.flip(-1), points=points, further=[mirrored(each) for each in sample.further]
    )


def batched(images: list[Tensor], *, multiple: int, fill: tuple[float, ...]) -> Tensor:
    """(3, h, w) uint8 of any sizes → (B, 3, H, W) in [0, 1], padded at the right and the bottom.

    Args:
        multiple: of which H and W are the smallest that hold all images.
        fill: the padding's colour; the mean that the network subtracts, so that it is 0 there.
    """
    height, width = (-(-max(int(each.shape[axis]) for each in images) // multiple) * multiple for axis in (-2, -1))
    colour = torch.tensor(fill, dtype=torch.float32, device=images[0].device)
    whole = colour[None, :, None, None].repeat(len(images), 1, height, width)
    for slot, image in zip(whole, images, strict=True):
        slot[:, : image.shape[-2], : image.shape[-1]] = image.float() / 255
    return whole


def mask_to_image(probabilities: Tensor, size: tuple[int, int], entry: dict[str, Any]) -> Tensor:
    """Maps over a padded image (n, H, W) → over the image itself (n, height, width).

    Args:
        size: (height, width) of the image in the padded one.
    """
    inside = probabilities[:, None, : size[0], : size[1]]
    whole = F.interpolate(inside, size=(entry["height"], entry["width"]), mode="bilinear", align_corners=False)
    return whole[:, 0]
