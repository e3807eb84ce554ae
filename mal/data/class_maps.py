"""COCO instances → class maps."""

from pathlib import Path

import numpy as np

from mal.data.annotations import CocoDict, annotations_by_image, file_name
from mal.data.mask_windows import MaskWindow, decode_window
from mal.data.semantic import IGNORED, MappedImage, SemanticFile, map_name, write_map, write_semantic
from mal.data.tags import Tags, is_tag
from mal.engine.findings import some
from mal.engine.progress import Progress
from mal.errors import AnnotationError

GROUND = "ground"  # the class of what no object covers
BACKGROUND = ("_background_", "background")  # categories by which tools mean no class


def class_list(coco: CocoDict, *, ground: str, groups: bool) -> tuple[list[str], dict[int, int]]:
    """The classes of an instance file, and each category's place among them.

    Args:
        coco: the file; a category named in BACKGROUND is no class.
        ground: of `config.GROUNDS`; `class` appends the class GROUND as the last one, else its pixels are unlabelled.
        groups: whether categories are merged to their supercategories, in the order in which these first appear.

    Raises:
        AnnotationError: two categories share a name, one lacks its supercategory, or the classes are too many.
    """
    categories = [category for category in coco["categories"] if category["name"] not in BACKGROUND]
    lacking = [category["name"] for category in categories if groups and not category.get("supercategory")]
    if lacking:
        raise AnnotationError(
            f"{some(lacking)}: no supercategory, by which data.semantic.groups merges categories; name it in the "
            "file, or leave the categories apart"
        )
    names = [str(category["supercategory"] if groups else category["name"]) for category in categories]
    classes = list(dict.fromkeys(names))
    if not groups and len(classes) < len(names):
        twice = next(name for name in classes if names.count(name) > 1)
        raise AnnotationError(f"two categories are named {twice!r}; name the classes differently, or merge them")
    places = {category["id"]: classes.index(name) for category, name in zip(categories, names, strict=True)}
    if ground == "class":
        if GROUND in classes:
            raise AnnotationError(
                f"a class of the file is named {GROUND!r}, as that of uncovered pixels is; rename it, or set "
                "data.semantic.ground=ignored"
            )
        classes.append(GROUND)
    if not 1 <= len(classes) <= IGNORED:
        raise AnnotationError(f"the file has {len(classes)} classes; a class map holds 1 to {IGNORED}")
    return classes, places


def class_map(objects: list[tuple[int, bool, MaskWindow]], *, height: int, width: int, uncovered: int) -> np.ndarray:
    """Instances painted on one map: the smaller on top, and of equal ones the later.

    A crowd is a region of its class, though a rough one: it lies below all single objects, whatever its size.

    Args:
        objects: class, whether it is a crowd, mask.
        uncovered: the value of pixels in no mask.

    Returns:
        uint8 (height, width).
    """
    values = np.full((height, width), uncovered, dtype=np.uint8)
    for place, _, window in sorted(objects, key=lambda it: (not it[1], -it[2].area)):
        values[window.place][window.mask] = place
    return values


def write_class_maps(
    path: Path, coco: CocoDict, *, ground: str, groups: bool, tags: Tags | None = None
) -> SemanticFile:
    """Write the class maps of an instance file beside `path`, and that file last.

    Annotations without a mask are tags of their image. An object that is known by a tag alone lies anywhere: where an
    image has one, its uncovered pixels are unlabelled, whatever `ground` is.

    Args:
        path: of the JSON file, see `mal.data.semantic`.
        coco: a file as `read` with masks or `tags.read_partly_masked` gives it.
        ground, groups: see `class_list`.
        tags: more of them.

    Returns:
        what was written.

    Raises:
        AnnotationError: as `class_list`, or a mask cannot be decoded; names the annotation.
        MalError: the disk is full or the folder cannot be written.
    """
    classes, places = class_list(coco, ground=ground, groups=groups)
    uncovered = len(classes) - 1 if ground == "class" else IGNORED
    annotations, more = annotations_by_image(coco), {} if tags is None else tags
    tagging = tags is not None or any(is_tag(it) for it in coco["annotations"])
    images = []
    with Progress("class maps", total=len(coco["images"]), unit="image") as progress:
        for index, image in enumerate(coco["images"]):
            height, width, name = image["height"], image["width"], file_name(image)
            known = [it for it in annotations[image["id"]] if it["category_id"] in places]
            objects = [
                (places[it["category_id"]], bool(it.get("iscrowd")), _window(it, height, width))
                for it in known
                if not is_tag(it)
            ]
            bare = {places[it["category_id"]] for it in known if is_tag(it)}
            hidden = bare | ({*more.get(name, ())} - {place for place, _, _ in objects})
            values = class_map(objects, height=height, width=width, uncovered=IGNORED if hidden else uncovered)
            said = tuple(sorted(bare | {*more.get(name, ())})) if tagging else None
            images.append(MappedImage(image["id"], name, width, height, map_name(index), said))
            write_map(path.parent / map_name(index), values)
            progress.advance()
    semantic = SemanticFile(tuple(classes), tuple(images), folder=path.parent)
    write_semantic(path, semantic)
    return semantic


def _window(annotation: dict, height: int, width: int) -> MaskWindow:
    try:
        return decode_window(annotation["segmentation"], height=height, width=width)
    except AnnotationError as error:
        raise AnnotationError(f"annotation {annotation['id']}: {error}") from error
