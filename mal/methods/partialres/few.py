"""The few objects whose human masks training sees."""

from collections.abc import Collection, Sequence
from typing import Any

from mal.data.annotations import CocoDict, decode_mask, encode_mask
from mal.data.mask_formats import mask_problem
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError, ConfigError
from mal.methods.partialres.objects import Referred


def draw(objects: Sequence[Referred], percent: float, seed: int) -> list[int]:
    """The ids of some of the objects, ascending; they follow from the objects' ids, the share and the seed.

    A larger share of the same objects and seed contains a smaller one's.

    Args:
        percent: in [0, 100], of the objects; their number is rounded.

    Raises:
        ConfigError: that is none.
    """
    count = round(len(objects) * percent / 100)
    if not count:
        least = -(-5000 // max(1, len(objects))) / 100  # half an object, which rounds to none
        raise ConfigError(
            f"partialres.few.percent={percent:g} of {len(objects)} objects is none, and masks are learned from at "
            f"least one; set it to {least + 0.01:g} or more, or name more training objects"
        )
    ids = sorted(each.id for each in objects)
    order = numpy_generator(seed, "partialres few masks").permutation(len(ids))
    return sorted(ids[place] for place in order[:count])


def human_masks(human: CocoDict, ids: Collection[int]) -> list[dict[str, Any]]:
    """The human masks of some objects, and nothing else of the file.

    Those that have none, or an empty one, are left out.

    Args:
        human: a file with masks. ids: of its annotations.

    Returns:
        `id` and `segmentation` (run lengths) of each, sorted by id.

    Raises:
        AnnotationError: a mask cannot be read, or none is left.
    """
    chosen = set(ids)
    sizes = {image["id"]: (image["height"], image["width"]) for image in human["images"]}
    found = []
    for annotation in human["annotations"]:
        segmentation = annotation.get("segmentation")
        if annotation["id"] not in chosen or not segmentation:
            continue
        height, width = sizes[annotation["image_id"]]
        if problem := mask_problem(segmentation, height=height, width=width):
            raise AnnotationError(f"annotation {annotation['id']}: {problem}")
        mask = decode_mask(segmentation, height=height, width=width)
        if mask.any():
            found.append({"id": int(annotation["id"]), "segmentation": encode_mask(mask)})
    if not found:
        raise AnnotationError(
            f"none of the {len(chosen)} objects that were drawn to be learned from has a mask; draw theirs in the "
            "annotation file, raise partialres.few.percent, or set another seed"
        )
    return sorted(found, key=lambda row: row["id"])
