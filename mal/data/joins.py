"""Two files joined: by names and boxes where their numbers do not mean the same, or not at all."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mal.data.annotation_checks import CocoDict, file_name
from mal.data.box_findings import mask_extent
from mal.data.census import Category
from mal.engine.findings import some
from mal.errors import AnnotationError

CLOSE = 1.0  # pixels by which two boxes of one object may differ at each side: rounding
INSIDE = 0.5  # share of the smaller of a box and a label that the two have in common
SLIPS = 0.2  # share of masks beside their boxes up to which they are bad masks, not other objects

Annotation = dict[str, Any]
Box = Sequence[float]


@dataclass(frozen=True)
class CategoryDifferences:
    """How the categories of validation images differ from those that are learned; unused ones are left out."""

    renumbered: list[str]  # the same name under another id, or one id with two names
    lacking: list[Category]  # learned, and not in the validation file
    unlearned: list[Category]  # annotated in the validation file, and not in the training one


def compare_categories(learned: Iterable[Category], scored: Iterable[Category]) -> CategoryDifferences:
    """Compare two lists of categories by id and by name; case and spaces around a name do not matter."""
    here, there = list(learned), list(scored)
    by_id = {category.id: category for category in there}
    by_name = {plain_name(category.name): category for category in there}
    own_names = {plain_name(category.name) for category in here}
    renumbered, lacking = [], []
    for category in here:
        other = by_id.get(category.id)
        if other is not None and plain_name(other.name) == plain_name(category.name):
            continue
        namesake = by_name.get(plain_name(category.name))
        if not category.annotations and not (namesake or other or category).annotations:
            continue
        if namesake is not None:
            renumbered.append(f"{category.name!r} has id {category.id} in the first and {namesake.id} in the second")
        elif other is not None and category.annotations and plain_name(other.name) not in own_names:
            renumbered.append(f"id {category.id} is {category.name!r} in the first and {other.name!r} in the second")
        elif category.annotations:
            lacking.append(category)
    ids = {category.id for category in here}
    unlearned = [c for c in there if c.annotations and c.id not in ids and plain_name(c.name) not in own_names]
    return CategoryDifferences(renumbered, lacking, unlearned)


def plain_name(name: str) -> str:
    """A name in the form in which two spellings of it are equal."""
    return unicodedata.normalize("NFC", name).strip().casefold()


@dataclass(frozen=True)
class Joined:
    """Labels by the id of the box they belong to, and what must be said about how they were joined."""

    labels: dict[int, Annotation]
    remark: str | None = None
    by_id: bool = True


def join_labels(found: CocoDict, coco: CocoDict, *, source: str | Path) -> Joined:
    """Find the label of every box: by annotation id where the ids mean the same, else by image name and box.

    Ids mean the same where the images of a number have the same name and size, and the labels lie in the boxes whose
    number they bear. A file that was numbered anew is joined by file name and box, within a pixel, where this gives
    every box one label; of several equal boxes that with the same category's name.

    Args:
        found: a checked file with masks: the labels.
        coco: the boxes to be labelled; `source` is the file of the labels.

    Raises:
        AnnotationError: boxes have no label, or it is not certain which; says how many, and the first few.
    """
    images = _join_images(found, coco, source)
    by_id = {annotation["id"]: annotation for annotation in found["annotations"]}
    fault = _fault_of_ids(by_id, coco, images, source)
    if fault is None:
        return Joined({a["id"]: by_id[a["id"]] for a in coco["annotations"]}, _renamed(images, source))
    if fault.slips:
        return Joined({a["id"]: by_id[a["id"]] for a in coco["annotations"]}, fault.text)
    labels = _join_boxes(found, coco, images)
    lost = [a["id"] for a in coco["annotations"] if a["id"] not in labels]
    if lost:
        raise AnnotationError(
            f"{fault.text}; {fault.advice}. (By image name and box instead of ids, {len(lost)} would have no label, or "
            f"several: ids {some(lost, most=5)}.)"
        )
    beside = strays_of(labels, coco["annotations"])
    if len(beside) > SLIPS * len(labels):
        raise AnnotationError(
            f"{source}: the masks of {len(beside)} of {len(labels)} labels do not lie in the labels' own boxes: ids "
            f"{some((labels[key]['id'] for key in beside), most=5)}; do box and mask belong to the same object?"
        )
    text = (
        f"{source}: its annotations are numbered otherwise; all {len(labels)} labels are joined by image name and box"
    )
    return Joined(labels, text, by_id=False)


@dataclass(frozen=True)
class _Fault:
    """Why ids do not join labels to boxes."""

    text: str
    advice: str
    slips: bool = False  # the ids may be right all the same: some masks are bad


def _fault_of_ids(
    by_id: dict[int, Annotation], coco: CocoDict, images: dict[int, int], source: str | Path
) -> _Fault | None:
    boxes = coco["annotations"]
    missing = [a["id"] for a in boxes if a["id"] not in by_id]
    if missing:
        return _Fault(
            f"{source} lacks {len(missing)} of the {len(boxes)} annotations that are to be labelled: ids "
            f"{some(missing, most=5)}",
            "label the same boxes and keep their ids (a box without a mask needs one too: fill it)",
        )
    moved = [a["id"] for a in boxes if by_id[a["id"]]["image_id"] != images[a["image_id"]]]
    if moved:
        return _Fault(
            f"{source} has {len(moved)} of the annotations on other images: ids {some(moved, most=5)}",
            "it seems to number another set: label the same file",
        )
    strays = strays_of(by_id, boxes)
    if strays:
        return _Fault(
            f"{source}: {len(strays)} of {len(boxes)} labels do not lie in the boxes whose ids they bear: ids "
            f"{some(strays, most=5)}",
            "label the same file and keep its ids",
            slips=len(strays) <= SLIPS * len(boxes) and not any(strays.values()),
        )
    return None


def strays_of(by_id: dict[int, Annotation], boxes: list[Annotation]) -> dict[int, bool]:
    """Ids of the boxes whose label does not lie there: neither its own box nor its mask has half of the smaller one in
    common with the box, or its own box is another's of the image. The latter is certain to be a mistake: True.

    Args:
        by_id: labels; `boxes`' ids are among its keys. A mask in them is valid.
    """
    others = defaultdict(list)
    for box in boxes:
        others[box["image_id"]].append(box["bbox"])
    strays = {}
    for box in boxes:
        label, own = by_id[box["id"]], box["bbox"]
        given = label.get("bbox")
        if given is not None and not close(given, own):
            if any(close(given, other) for other in others[box["image_id"]]):
                strays[box["id"]] = True
                continue
            if not _common(given, own):
                strays[box["id"]] = False
                continue
        around = mask_extent(label["segmentation"]) if label.get("segmentation") else None
        if around is not None and not _common(
            [around[0], around[1], around[2] - around[0], around[3] - around[1]], own
        ):
            strays[box["id"]] = False
    return strays


def close(first: Box, second: Box) -> bool:
    """Whether two xywh boxes differ by a pixel at most at each side."""
    sides = ((b[0], b[1], b[0] + b[2], b[1] + b[3]) for b in (first, second))
    return all(abs(a - b) <= CLOSE for a, b in zip(*sides, strict=True))


def _common(first: Box, second: Box) -> bool:
    """Whether two xywh boxes have half of the smaller one in common; sides under a pixel count as one."""
    (x, y, w, h), (u, v, a, b) = ((*box[:2], max(box[2], 1), max(box[3], 1)) for box in (first, second))
    inside = max(0.0, min(x + w, u + a) - max(x, u)) * max(0.0, min(y + h, v + b) - max(y, v))
    return inside >= INSIDE * min(w * h, a * b)


def _join_images(found: CocoDict, coco: CocoDict, source: str | Path) -> dict[int, int]:
    """Image ids here → there: the same numbers where they bear the same names, else by name."""
    used = {annotation["image_id"] for annotation in coco["annotations"]}
    here = {image["id"]: image for image in coco["images"] if image["id"] in used}
    there = {image["id"]: image for image in found["images"]}
    same = {key for key, image in here.items() if key in there and same_file(image, there[key])}
    pairs = {key: key for key in here}
    if len(same) < len(here):
        named: dict[str, list[int]] = defaultdict(list)
        for key, image in there.items():
            named[last_name(image)].append(key)
        for key, image in here.items():
            whole = [other for other in named[last_name(image)] if full_name(there[other]) == full_name(image)]
            matching = whole if len(whole) == 1 else named[last_name(image)]
            if len(matching) != 1:
                lost = [k for k, i in here.items() if len(named[last_name(i)]) != 1]
                known = f" and {file_name(there[lost[0]])!r} there" if lost[0] in there else ""
                raise AnnotationError(
                    f"{source} has no image, or several, of the file name of {len(lost)} of the {len(here)} images: "
                    f"image {lost[0]} is {file_name(here[lost[0]])!r} here{known}; label the same images and keep "
                    "their names"
                )
            pairs[key] = matching[0]
    for key, image in here.items():
        other = there[pairs[key]]
        if (other["width"], other["height"]) != (image["width"], image["height"]):
            raise AnnotationError(
                f"{source}: image {pairs[key]} is {other['width']} x {other['height']} pixels there and "
                f"{image['width']} x {image['height']} here (width x height); make the masks at the images' own size"
            )
    return pairs


def same_file(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two image entries name one file; the folders before it do not matter."""
    return last_name(first) == last_name(second)


def last_name(image: dict[str, Any]) -> str:
    """The file name of an image entry without folders, in the form in which two spellings of it are equal."""
    return unicodedata.normalize("NFC", PurePosixPath(file_name(image).replace("\\", "/")).name)


def full_name(image: dict[str, Any]) -> str:
    """The file name of an image entry with its folders."""
    return unicodedata.normalize("NFC", file_name(image).replace("\\", "/"))


def _renamed(images: dict[int, int], source: str | Path) -> str | None:
    if all(here == there for here, there in images.items()):
        return None
    return f"{source}: its images are numbered otherwise; they are joined by file name"


def _join_boxes(found: CocoDict, coco: CocoDict, images: dict[int, int]) -> dict[int, Annotation]:
    """Labels by box id, of the boxes that have exactly one label of their place, which no other box claims."""
    theirs = {category["id"]: plain_name(category["name"]) for category in found["categories"]}
    ours = {category["id"]: plain_name(category["name"]) for category in coco["categories"]}
    at: dict[int, list[Annotation]] = defaultdict(list)
    for label in found["annotations"]:
        at[label["image_id"]].append(label)
    labels, claimed = {}, set()
    for box in coco["annotations"]:
        candidates = [label for label in at[images[box["image_id"]]] if close(label["bbox"], box["bbox"])]
        if len(candidates) > 1:
            candidates = [c for c in candidates if theirs[c["category_id"]] == ours[box["category_id"]]]
        if len(candidates) == 1 and candidates[0]["id"] not in claimed:
            claimed.add(candidates[0]["id"])
            labels[box["id"]] = candidates[0]
    return labels
