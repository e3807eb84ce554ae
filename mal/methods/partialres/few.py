"""The few objects whose human masks training sees."""

import sys
from collections.abc import Collection
from typing import Any

import numpy as np

from mal.data.annotations import CocoDict, decode_mask, encode_mask
from mal.data.mask_formats import decode_runs
from mal.data.mask_kinds import stands_for_box, verdicts
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError, ConfigError


def draw(masked: Collection[int], percent: float, seed: int) -> list[int]:
    """Some of the ids of objects that have a mask, ascending; they follow from the ids, the share and the seed.

    A larger share of the same ids and seed contains a smaller one's.

    Args:
        percent: in [0, 100], of the ids; their number is rounded.

    Raises:
        ConfigError: that is none.
    """
    count = round(len(masked) * percent / 100)
    if not count:
        least = -(-5000 // max(1, len(masked))) / 100  # half a mask, which rounds to none
        raise ConfigError(
            f"partialres.few.percent={percent:g} of {len(masked)} masks is none, and masks are learned from at least "
            f"one; set it to {least + 0.01:g} or more, or draw the masks of more training objects"
        )
    ids = sorted(masked)
    order = numpy_generator(seed, "partialres few masks").permutation(len(ids))
    return sorted(ids[place] for place in order[:count])


def masked(human: CocoDict, ids: Collection[int]) -> list[int]:
    """Which objects have a human mask that is not empty, ascending.

    Args:
        human: a file with masks. ids: of its annotations.

    Raises:
        AnnotationError: a mask cannot be read, or there is none.
    """
    sizes = _sizes(human)
    found = []
    for annotation in _those(human, ids):
        height, width = sizes[annotation["image_id"]]
        try:
            runs = decode_runs(annotation["segmentation"], height=height, width=width)
        except AnnotationError as error:
            raise AnnotationError(f"annotation {annotation['id']}: {error}") from error
        if np.any(runs[1::2]):
            found.append(int(annotation["id"]))
    if not found:
        raise AnnotationError(
            f"none of the {len(set(ids))} objects that have an expression has a mask to learn from; draw masks of some "
            "in the annotation file"
        )
    return sorted(found)


def look(human: CocoDict, drawn: Collection[int]) -> None:
    """Say on standard error how many of the drawn masks are polygons that only repeat their box, as tools write boxes.

    Raises:
        AnnotationError: all are, so that boxes would be learned in place of shapes.
    """
    rows = _those(human, drawn)
    kinds = [kind for kind, _ in verdicts({**human, "annotations": rows})]
    boxes = [row["id"] for row, kind in zip(rows, kinds, strict=True) if stands_for_box(row, kind)]
    if not boxes:
        return
    text = f"{len(boxes)} of the {len(rows)} masks that are learned from are polygons that only repeat their box"
    if len(boxes) == len(rows):
        raise AnnotationError(f"{text}; draw the shapes of some objects, or set partialres.few.percent higher")
    print(f"note: {text} (such as that of annotation {min(boxes)}): they teach boxes", file=sys.stderr, flush=True)


def human_masks(human: CocoDict, ids: Collection[int]) -> list[dict[str, Any]]:
    """The human masks of some objects, and nothing else of the file.

    Args:
        human: a file with masks. ids: of its annotations that have one, see `masked`.

    Returns:
        `id` and `segmentation` (run lengths) of each, sorted by id.
    """
    sizes = _sizes(human)
    found = []
    for annotation in _those(human, ids):
        height, width = sizes[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], height=height, width=width)
        found.append({"id": int(annotation["id"]), "segmentation": encode_mask(mask)})
    return sorted(found, key=lambda row: row["id"])


def _those(human: CocoDict, ids: Collection[int]) -> list[dict[str, Any]]:
    """The annotations of some ids that have a segmentation."""
    chosen = set(ids)
    return [a for a in human["annotations"] if a["id"] in chosen and a.get("segmentation")]


def _sizes(human: CocoDict) -> dict[int, tuple[int, int]]:
    """Id of an image → height and width."""
    return {image["id"]: (image["height"], image["width"]) for image in human["images"]}
