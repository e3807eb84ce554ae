"""LVIS's federated annotation: what of an image's detections may be judged (Gupta et al., "LVIS", CVPR 2019, §3).

An LVIS image was searched for some of the categories only: those it has objects of, and those listed as absent from it
(`neg_category_ids`). Whether it shows any other is not known. Of the categories in `not_exhaustive_category_ids` not
every object is annotated.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mal.data.annotations import CocoDict
from mal.data.census import FREQUENCIES, lvis_problem
from mal.errors import AnnotationError

__all__ = ["FREQUENCIES", "Federation", "check_federated", "federation"]

CELLS = 500_000  # pairs of an image and a category evaluated at once, about .6 GB
WAY_OUT = "give an LVIS file (v0.5 or v1), or choose data.format=coco"


@dataclass(frozen=True)
class Federation:
    """By image id, the categories it was searched for, and those of which it may have further objects."""

    searched: dict[int, set[int]]
    not_exhaustive: dict[int, set[int]]

    def judged(self, detections: list[dict[str, Any]], *, max_detections: int) -> list[dict[str, Any]]:
        """The detections that count: of each image the best by score, whatever their categories, and of these the
        ones whose category the image was searched for. Equal scores keep their order."""
        by_image = defaultdict(list)
        for item in detections:
            by_image[item["image_id"]].append(item)
        return [
            item
            for image, here in by_image.items()
            for item in sorted(here, key=lambda item: -item["score"])[:max_detections]
            if item["category_id"] in self.searched[image]
        ]

    def parts(self, categories: list[int]) -> Iterator[tuple[set[int], set[int]]]:
        """The categories in parts, each with the images that were searched for any of it: at most `CELLS` pairs a part
        (one category alone may have more). Categories that no image was searched for are in none."""
        images_of: dict[int, set[int]] = {category: set() for category in categories}
        for image, searched in self.searched.items():
            for category in searched & images_of.keys():
                images_of[category].add(image)
        chosen: set[int] = set()
        images: set[int] = set()
        for category in sorted(filter(images_of.get, categories), key=lambda category: -len(images_of[category])):
            if chosen and (len(chosen) + 1) * len(images | images_of[category]) > CELLS:
                yield chosen, images
                chosen, images = set(), set()
            chosen, images = chosen | {category}, images | images_of[category]
        yield chosen, images


def federation(human: CocoDict) -> Federation:
    """What an LVIS file says of its images; `check_federated` has found nothing missing."""
    searched, not_exhaustive = {}, {}
    for image in human["images"]:
        searched[image["id"]] = set(image["neg_category_ids"])
        not_exhaustive[image["id"]] = set(image["not_exhaustive_category_ids"])
    for annotation in human["annotations"]:
        searched[annotation["image_id"]].add(annotation["category_id"])
    return Federation(searched, not_exhaustive)


def check_federated(human: CocoDict) -> None:
    """Refuse a file that LVIS's protocol cannot judge on.

    Raises:
        AnnotationError: it is no LVIS file: images lack their two lists, or categories their frequency.
    """
    problem = lvis_problem(human)
    if problem is not None:
        raise AnnotationError(f"LVIS's evaluation needs what is missing: {problem}; {WAY_OUT}")
