"""What is odd in an annotation file and yet usable: counted and said, so that nobody is surprised by what comes out."""

from collections.abc import Hashable, Iterable
from typing import Any

from mal.data.box_checks import is_left_over
from mal.data.image_names import file_name
from mal.engine.faults import NAMED, show


def remarks(coco: dict[str, Any]) -> list[str]:
    """A sentence for each oddity of a file that `annotation_checks.check` accepts."""
    found = [_left_over(coco["annotations"]), _root(coco), *_doubles(coco)]
    return [sentence for sentence in found if sentence]


def _left_over(annotations: list[dict[str, Any]]) -> str:
    ids = [annotation["id"] for annotation in annotations if is_left_over(annotation)]
    if not ids:
        return ""
    return (
        f"{len(ids)} of {len(annotations)} annotations have a box without area and no mask, as tools leave them behind "
        f"(ids {_first(ids)}): no mask can be made of them, and nothing is learned from them or measured on them"
    )


def _root(coco: dict[str, Any]) -> str:
    """Roboflow exports the project itself as category 0, above all others."""
    used = {annotation["category_id"] for annotation in coco["annotations"]}
    above = {category.get("supercategory") for category in coco["categories"] if category["id"] in used}
    for category in coco["categories"]:
        if category["id"] not in used and above == {category["name"]}:
            return (
                f"category {category['id']} ({show(category['name'])}) is the supercategory of all others and has no "
                "annotation, as Roboflow's root has none: it stays in the list of categories and counts nowhere"
            )
    return ""


def _doubles(coco: dict[str, Any]) -> Iterable[str]:
    names = _repeated((category["name"], category["id"]) for category in coco["categories"])
    if names:
        name, ids = names[0]
        yield (
            f"names that belong to several categories: {len(names)}, such as {show(name)} to {_first(ids)}; categories "
            "are told apart by their ids"
        )
    files = _repeated((file_name(image), image["id"]) for image in coco["images"])
    if files:
        name, ids = files[0]
        yield (
            f"image files that are listed several times: {len(files)}, such as {show(name)} as images {_first(ids)}; "
            "each entry is an image of its own"
        )


def _repeated(pairs: Iterable[tuple[Hashable, int]]) -> list[tuple[Hashable, list[int]]]:
    """Names that belong to several ids, with these ids."""
    pairs = list(pairs)
    if len({name for name, _ in pairs}) == len(pairs):
        return []
    ids: dict[Hashable, list[int]] = {}
    for name, key in pairs:
        ids.setdefault(name, []).append(key)
    return [(name, keys) for name, keys in ids.items() if len(keys) > 1]


def _first(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")
