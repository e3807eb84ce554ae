"""The objects that expressions speak of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mal.data.annotations import CocoDict
from mal.data.expressions import OR_TEMPLATES, words
from mal.errors import ConfigError


@dataclass(frozen=True)
class Referred:
    """An object and its expressions."""

    entry: dict[str, Any]  # of its image: id, file_name, width, height
    id: int  # of its annotation
    box: tuple[float, float, float, float]  # xywh, pixels of the image
    expressions: tuple[tuple[str, ...], ...]  # at least one, each of at least one normalised word, in the file's order


def referred(view: CocoDict) -> list[Referred]:
    """The objects of a file that have an expression, sorted by id.

    Objects of images that the view lists as unreadable are left out.

    Args:
        view: an expressions view (`mal.data.expressions`).

    Raises:
        ConfigError: there are none.
    """
    images = {image["id"]: image for image in view["images"]}
    unreadable = set(view.get("unreadable_images", ()))
    found = [
        Referred(
            images[annotation["image_id"]],
            int(annotation["id"]),
            _box(annotation["bbox"]),
            tuple(tuple(words(text)) for text in annotation["expressions"]),
        )
        for annotation in view["annotations"]
        if annotation.get("expressions") and annotation["image_id"] not in unreadable
    ]
    if not found:
        raise ConfigError(f"none of {len(view['annotations'])} objects has a referring expression; {OR_TEMPLATES}")
    return sorted(found, key=lambda each: each.id)


def _box(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return x, y, width, height
