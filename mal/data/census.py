"""A file's census: how many annotations, which of them have a human mask, and what else a run must know beforehand.

Whether a split "has human masks" is decided here and nowhere else.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from mal.data.annotation_checks import CocoDict, file_name
from mal.data.box_checks import is_left_over
from mal.data.box_findings import SMALLEST_SIDE, box_findings
from mal.data.mask_kinds import ABSENT, BOX, BROKEN, GIVEN, stands_for_box, verdicts
from mal.data.own_points import is_boxless
from mal.data.remarks import remarks
from mal.engine.findings import NOTE, Finding, number, some

VERSION = 4  # of what is counted; raised with every change, so that a remembered census is counted anew
MOSTLY = 0.9  # share of the masks from which on "nearly all" of them are crowds
SEEN = 500  # images whose headers a run looks at
SELECTIONS = ("all", "even", "odd")
FREQUENCIES = ("r", "c", "f")  # LVIS: rare, common, frequent, by the training images that a category is on


@dataclass(frozen=True)
class Category:
    """One of a file's categories, and how many annotations it has."""

    id: int
    name: str
    annotations: int

    def __str__(self) -> str:
        return f"{self.name} (id {self.id})"


@dataclass(frozen=True)
class Census:
    """What is in a file. Counts are of annotations unless they say otherwise."""

    images: int
    annotations: int
    masks: int  # that show something, crowds included
    repeats: int  # of these, no crowd and only their box again
    crowds: int  # iscrowd 1, with a mask or without
    crowd_masks: int  # of the masks
    brush_masks: int  # of the crowds' masks, run lengths
    usable: int  # masks to learn from and to compare with: no crowd, and no polygon that only repeats its box
    left_over: int  # neither a mask nor a box with an area
    unmasked: int  # no crowd, not left over, and no mask or one that shows nothing
    broken: int  # a segmentation that is no mask
    crowds_unmasked: int  # crowds without a mask
    bad_areas: int
    boxless: int  # of points alone: neither a box nor a mask
    most_objects: int  # on one image; crowds do not count
    most_objects_on: str  # that image's file name
    first_unmasked: list[str] = field(default_factory=list)
    first_broken: list[str] = field(default_factory=list)
    first_bad_area: list[str] = field(default_factory=list)
    selected: dict[str, dict[str, int]] = field(default_factory=dict)  # all, even, odd → images, objects, scored
    categories: list[Category] = field(default_factory=list)
    lvis_problem: str | None = None  # why LVIS's protocol cannot judge on the file
    findings: list[Finding] = field(default_factory=list)  # about boxes, and what is odd and yet usable
    sample: list[dict[str, Any]] = field(default_factory=list)  # file_name, width, height of images at equal steps

    @property
    def has_masks(self) -> bool:
        """Whether the file has human masks: some that are no crowd and no polygon that only repeats its box."""
        return self.usable > 0

    @property
    def single(self) -> int:
        """Masks of single objects."""
        return self.masks - self.crowd_masks

    @property
    def all_crowds(self) -> bool:
        """Whether (nearly) all masks are crowds, which nothing learns from and nothing is compared with."""
        return self.masks > 0 and self.crowd_masks >= MOSTLY * self.masks

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `restore` is the way back."""
        return asdict(self)

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> "Census":
        """A census from what `plain` gave."""
        categories = [Category(**entry) for entry in plain["categories"]]
        findings = [Finding(**entry) for entry in plain["findings"]]
        return cls(**{**plain, "categories": categories, "findings": findings})


def take(coco: CocoDict) -> Census:
    """Count what a checked file holds; 860,000 annotations take seconds.

    Args:
        coco: as `annotations.read` gives it; its segmentations may be anything.
    """
    kinds = verdicts(coco)
    tally: Counter[str] = Counter()
    first: dict[str, list[str]] = {"unmasked": [], "broken": [], "bad_areas": []}
    names = {image["id"]: file_name(image) for image in coco["images"]}
    odd = images_of(coco, "odd")
    objects, scored = dict.fromkeys(SELECTIONS, 0), dict.fromkeys(SELECTIONS, 0)
    objects_on: Counter[int] = Counter()

    def note(kind: str, annotation: dict[str, Any], reason: str = "") -> None:
        tally[kind] += 1
        if len(first[kind]) < 3:
            place = f"annotation {annotation['id']} (image {names[annotation['image_id']]})"
            first[kind].append(f"{place}: {reason}" if reason else place)

    for annotation, (kind, reason) in zip(coco["annotations"], kinds, strict=True):
        crowd = bool(annotation.get("iscrowd", 0))
        tally["crowds"] += crowd
        objects_on[annotation["image_id"]] += not crowd
        if kind in GIVEN:
            tally["masks"] += 1
            if crowd:
                tally["crowd_masks"] += 1
                tally["brush_masks"] += isinstance(annotation["segmentation"], dict)
            else:
                tally["usable"] += not stands_for_box(annotation, kind)
                tally["repeats"] += kind == BOX
        elif kind == BROKEN:
            note("broken", annotation, reason)
        elif crowd:
            tally["crowds_unmasked"] += kind == ABSENT
        elif is_left_over(annotation):
            tally["left_over"] += 1
        else:
            note("unmasked", annotation)
        area = annotation.get("area", 0)
        if type(area) not in (int, float) or not 0 <= area < float("inf"):
            note("bad_areas", annotation, f"area is {area!r}")
        tally["boxless"] += is_boxless(annotation)
        if crowd or (kind == ABSENT and is_left_over(annotation)):
            continue
        shown = kind in GIVEN and min(annotation["bbox"][2:]) > SMALLEST_SIDE
        for which in ("all", "odd" if annotation["image_id"] in odd else "even"):
            objects[which] += 1
            scored[which] += shown
    fullest = max(objects_on.items(), key=lambda item: item[1], default=(None, 0))
    images = {"all": len(names), "even": len(names) - len(odd), "odd": len(odd)}
    used = Counter(annotation["category_id"] for annotation in coco["annotations"])
    fields = ("masks", "repeats", "crowds", "crowd_masks", "brush_masks", "usable", "left_over", "unmasked", "broken",
              "crowds_unmasked", "bad_areas", "boxless")  # fmt: skip
    return Census(
        images=len(coco["images"]),
        annotations=len(coco["annotations"]),
        **{name: tally[name] for name in fields},
        most_objects=fullest[1],
        most_objects_on=names.get(fullest[0], ""),
        first_unmasked=first["unmasked"],
        first_broken=first["broken"],
        first_bad_area=first["bad_areas"],
        selected={
            which: {"images": images[which], "objects": objects[which], "scored": scored[which]} for which in SELECTIONS
        },
        categories=[Category(c["id"], c["name"], used[c["id"]]) for c in coco["categories"]],
        lvis_problem=lvis_problem(coco),
        findings=[*box_findings(coco, kinds), *(Finding(NOTE, remark) for remark in remarks(coco))],
        sample=[
            {"file_name": names[image["id"]], "width": image["width"], "height": image["height"]}
            for image in equal_steps(coco["images"], SEEN)
        ],
    )


def images_of(coco: CocoDict, which: str) -> set[int]:
    """Ids of the images at all, the even or the odd positions of the sorted ids."""
    ids = sorted(image["id"] for image in coco["images"])
    return set(ids if which == "all" else ids[which == "odd" :: 2])


def equal_steps(items: list[Any], most: int) -> list[Any]:
    """At most so many of a list, at equal steps, the first among them."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def lvis_problem(coco: CocoDict) -> str | None:
    """What LVIS's federated evaluation misses in a file; None where it has all."""
    images, faults = coco["images"], []
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        without = [image["id"] for image in images if not _is_id_list(image.get(key))]
        if without:
            faults.append(f"{len(without)} of {len(images)} images have no list {key} (ids {some(without)})")
    odd = [c for c in coco["categories"] if c.get("frequency") not in FREQUENCIES]
    if odd:
        shown = some(f"{c['name']!r}: {c.get('frequency')!r}" for c in odd)
        known = ", ".join(FREQUENCIES)
        faults.append(f"{len(odd)} of {len(coco['categories'])} categories have no frequency of {known} ({shown})")
    return "; ".join(faults) or None


def words(census: Census) -> str:
    """What a split holds, in one line."""
    c = census
    kinds = [number(c.annotations - c.boxless, "box", "boxes")] if c.annotations > c.boxless else []
    kinds += [f"{number(c.boxless, 'object')} of points alone"] if c.boxless else []
    start = f"{' and '.join(kinds)} on {number(c.images, 'image')}"
    parts = [start, *_mask_words(c)]
    if c.broken:
        parts.append(f"{c.broken} with a segmentation that is no mask")
    if c.left_over:
        parts.append(f"{c.left_over} left over, without a mask and with a box of no area")
    if c.crowds:
        parts.append(f"{number(c.crowds, 'crowd')} (iscrowd 1)")
    return ", ".join(parts)


def crowd_sentence(census: Census) -> str:
    """That a file's masks are crowds, and the way out."""
    brush = f"{census.brush_masks} of them brush masks (RLE), which CVAT exports so; " if census.brush_masks else ""
    return (
        f"{census.crowd_masks} of its {number(census.masks, 'mask')} are crowds (iscrowd 1), from which no segmenter "
        f"learns and with which no mask is compared; {brush}where each is one object, set its iscrowd to 0"
    )


def _mask_words(c: Census) -> Iterable[str]:
    if not c.usable:
        if c.repeats:
            yield f"no human masks: {c.repeats} only repeat their box"
        elif c.crowd_masks:
            yield f"no human masks but those of {number(c.crowd_masks, 'crowd')}"
        else:
            yield "no human masks"
        return
    yield f"{c.single} with a human mask"
    if c.repeats:
        yield f"{c.repeats} of which only repeat their box"
    if c.unmasked:
        yield f"{c.unmasked} without one"


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
