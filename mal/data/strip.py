"""A file without its masks."""

from typing import Any

from mal.data.mask_formats import is_rle

GEOMETRY = ("segmentation", "segmentations")  # keys below which points are a mask's
LEAST_NUMBERS = 6  # of the smallest polygon


def strip(coco: dict[str, Any]) -> dict[str, Any]:
    """A file without its masks.

    From every annotation goes `segmentation`, and `area`, which in a COCO file is the human mask's; and masks that lie
    deeper in an annotation, which are told by what they are: run lengths (RLE) under whatever name, and points below a
    key `segmentation`. Nothing else goes: keypoints, captions and attributes are not masks, also if they have such
    names, and phase 1 reads none of them.

    Args:
        coco: a COCO file that `annotations.read` gave.

    Returns:
        A new dict with new annotations; images, categories and other lists are the given ones, not copies.
    """
    pixels = {image["id"]: image["height"] * image["width"] for image in coco["images"]}
    return {**coco, "annotations": [_stripped(annotation, pixels) for annotation in coco["annotations"]]}


def _stripped(annotation: dict[str, Any], pixels: dict[int, int]) -> dict[str, Any]:
    area = pixels.get(annotation["image_id"])
    kept = {key: value for key, value in annotation.items() if key not in ("segmentation", "area")}
    if not any(isinstance(value, dict | list) for key, value in kept.items() if key != "bbox"):
        return kept
    return _without_masks(kept, area, within=False)


def _without_masks(value: Any, area: int | None, *, within: bool) -> Any:
    """A JSON value without the masks inside it.

    Args:
        area: of the image, in pixels. within: whether the value lies below a key of `GEOMETRY`.
    """
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            below = within or key.casefold() in GEOMETRY
            if not _is_mask(inner, area, within=below):
                kept[key] = _without_masks(inner, area, within=below)
        return kept
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        rest = (inner for inner in value if not _is_mask(inner, area, within=within))
        return [_without_masks(inner, area, within=within) for inner in rest]
    return value


def _is_mask(value: Any, area: int | None, *, within: bool) -> bool:
    if isinstance(value, dict):
        return is_rle(value, area=area)
    return within and isinstance(value, list) and _numbers(value) >= LEAST_NUMBERS


def _numbers(value: Any) -> int:
    """How many numbers are in nested lists, or points {"x": …, "y": …}, of nothing but numbers; else 0."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return 1
    if isinstance(value, dict):
        value = list(value.values()) if {"x", "y"} <= value.keys() else []
    if not isinstance(value, list):
        return 0
    counts = [_numbers(inner) for inner in value]
    return sum(counts) if all(counts) else 0
