"""Image-level tags of a user's: from a file of image names and class names, or from annotations without a mask."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mal.data.annotation_checks import check
from mal.data.annotation_text import parse
from mal.data.annotations import CocoDict
from mal.data.box_checks import is_absent, is_left_over
from mal.engine.faults import show
from mal.engine.findings import some
from mal.errors import AnnotationError

Tags = Mapping[str, tuple[int, ...]]  # file name of an image → places of classes, ascending
HEADERS = ("image", "file_name")  # the first cell of a CSV's first line where that names the columns
LAYOUT = 'a CSV file has lines such as `x.jpg,dog,cat`, a JSON file is an object such as {"x.jpg": ["dog", "cat"]}'


def read_tags(path: Path, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Image names with the classes that the images are said to show, from a JSON file (by its ending), else a CSV file.

    In a CSV file several lines of one image add up, and a line of a name alone says that the image shows none.

    Args:
        classes: names, by whose places the result names them.

    Raises:
        AnnotationError: the file cannot be read, is laid out otherwise, or names an unknown class.
    """
    named = _json(path) if path.suffix.lower() == ".json" else _csv(path)
    tags = {}
    for image, names in named.items():
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise AnnotationError(
                f"{path}: {image} is tagged {some(map(repr, unknown))}, and the classes are {some(classes, most=12)}; "
                "correct the name, or add it to the classes"
            )
        tags[image] = tuple(sorted({classes.index(name) for name in names}))
    return tags


def check_names(tags: Tags, images: Collection[str], source: Path) -> None:
    """Refuse tags of images that there are not.

    Args:
        images: file names.
        source: of the tags.

    Raises:
        AnnotationError: names the first few.
    """
    known = {*images}
    unknown = [name for name in tags if name not in known]
    if unknown:
        raise AnnotationError(
            f"{source} tags {some(unknown)}, and there is no such image; name images as their files are, such as "
            f"{some(images, most=1)}"
        )


def read_partly_masked(path: Path) -> CocoDict:
    """A COCO file of which some annotations may lack a mask, and then say no more than that their image shows their
    class; boxes are not looked at.

    Raises:
        AnnotationError: the file cannot be read or trusted, or none of its annotations has a mask.
    """
    coco = parse(path).value
    listed = coco.get("annotations") if isinstance(coco, dict) else None
    entries: list[Any] = listed if isinstance(listed, list) else []
    if not any(map(is_tag, entries)):
        check(coco, source=path, masks=True, boxes=False)
    else:
        # their ids and what they refer to count, and no box of theirs
        shown = [{**it, "bbox": [0, 0, 1, 1]} if is_tag(it) else it for it in entries]
        check({**coco, "annotations": shown}, source=path, masks=False, boxes=False)
        masked = [it for it in entries if not is_tag(it)]
        check({**coco, "annotations": masked or entries}, source=path, masks=True, boxes=False)
    coco["annotations"] = [it for it in coco["annotations"] if not is_left_over(it)]
    return coco


def is_tag(annotation: Any) -> bool:
    """Whether an annotation has no mask, and is not what tools leave behind."""
    bare = isinstance(annotation, dict) and is_absent(annotation.get("segmentation"))
    return bare and not is_left_over(annotation)


def _json(path: Path) -> dict[str, list[str]]:
    value = parse(path).value
    named = isinstance(value, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value.values()
    )
    if not named:
        raise AnnotationError(f"{path} holds {show(value)}, no classes by image name; {LAYOUT}")
    return value


def _csv(path: Path) -> dict[str, list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"the tags {path} cannot be read ({error}); {LAYOUT}") from error
    if rows and rows[0] and rows[0][0].lower() in HEADERS:
        rows = rows[1:]
    named: dict[str, list[str]] = {}
    for image, *names in filter(None, rows):
        if not image and any(names):
            raise AnnotationError(f"{path}: a line with {some(names)} names no image; {LAYOUT}")
        named.setdefault(image, []).extend(name for name in names if name)
    named.pop("", None)
    if not named:
        raise AnnotationError(f"{path} tags no image; {LAYOUT}")
    return named
