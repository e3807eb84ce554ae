"""A user's own expressions, a list in JSON, → a COCO file.

[{"image": "a.jpg", "text": "the man on the left", "box": [x, y, width, height]}, …]; `mask` may be beside the box or in
its place, as polygons or run lengths (RLE), and `category` names a class.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mal.data.annotation_text import parse
from mal.data.annotations import CocoDict, decode_mask, instance
from mal.data.box_checks import BORDER_TOLERANCE, box_fault, overhang
from mal.data.boxes import pixel_edges
from mal.data.headers import Header, read_headers, turned_sentence
from mal.data.image_folder import check_images, folder_fault
from mal.data.image_names import name_fault
from mal.data.mask_formats import mask_fault
from mal.data.orientations import QUARTERS
from mal.data.wording import words
from mal.engine.faults import Fault, Problem, describe, show
from mal.engine.findings import say
from mal.errors import AnnotationError, ImageError

LAYOUT = '{"image": "a.jpg", "text": "the man on the left", "box": [x, y, width, height]}'
CATEGORY = "object"  # of objects whose category is not named
OWN_KEYS = {"file_name": "image", "bbox": "box", "segmentation": "mask", "annotation": "entry"}  # for COCO's
_COCO = re.compile(rf"""'[^']*'|"[^"]*"|{"|".join(OWN_KEYS)}""")
Entry = dict[str, Any]


def read_own(file: Path, images: Path) -> CocoDict:
    """The COCO file of a user's list. Entries of one image, box, mask and category are one object with several
    expressions, and so are those without a mask where one object alone has their box. Ids are 1, 2, … in the order of
    the list.

    Args:
        file: the list. images: folder that its images' paths are relative to.

    Raises:
        AnnotationError: the list cannot be read, or entries are wrong; all of them, by kind of fault.
        ImageError: images are absent or cannot be read.
    """
    if not file.is_file():
        raise AnnotationError(f"there is no file {file}; write a list of {LAYOUT}")
    listed = parse(file).value
    if not isinstance(listed, list) or not listed:
        raise AnnotationError(f"{file} holds {show(listed)}; it must be a list of {LAYOUT}")
    _refuse([(place, _layout_fault(entry)) for place, entry in enumerate(listed)], file)
    entries: list[Entry] = [{**entry, "image": str(PurePosixPath(entry["image"]))} for entry in listed]  # no ./
    headers = _headers([*dict.fromkeys(entry["image"] for entry in entries)], images)
    _refuse([(place, _place_fault(entry, headers[entry["image"]])) for place, entry in enumerate(entries)], file)
    coco = _file(entries, headers)
    if turned := turned_sentence([(image, headers[image["file_name"]]) for image in coco["images"]], sized=False):
        say(file, turned)
    return coco


def _refuse(found: list[tuple[int, Fault | None]], file: Path) -> None:
    problems = [
        Problem(fault.kind, "entries", str(place), f"entry {place}: {fault.text}")
        for place, fault in found
        if fault is not None
    ]
    if problems:
        raise AnnotationError(describe(problems, file))


def _layout_fault(entry: Any) -> Fault | None:
    """What is wrong with an entry, but for its geometry."""
    if not isinstance(entry, dict):
        return Fault("no object", f"it is {show(entry)}; it must be like {LAYOUT}")
    for key in ("image", "text"):
        if key not in entry:
            return Fault(f"no {key}", f"it has no {key}; {_keys(entry)}")
    if fault := name_fault({"file_name": entry["image"]}):
        return _as_written(fault)
    text = entry["text"]
    if not isinstance(text, str) or not words(text):
        return Fault("no text", f"text is {show(text)}; write what is meant, in words, in quotes")
    if entry.get("box") is None and entry.get("mask") is None:
        return Fault("neither box nor mask", f"it has neither a box nor a mask; {_keys(entry)}")
    category = entry.get("category", CATEGORY)
    if not isinstance(category, str) or not category:
        return Fault("a category that is no name", f"category is {show(category)}; write its name, or leave it out")
    return None


def _keys(entry: Entry) -> str:
    """Which keys an entry has, and which it may have."""
    return f"its keys are {', '.join(map(str, entry)) or 'none'}; write it like {LAYOUT}"


def _as_written(fault: Fault) -> Fault:
    """A fault of COCO's keys as one of the list's; what stands in quotes is the user's own."""

    def renamed(text: str) -> str:
        return _COCO.sub(lambda found: OWN_KEYS.get(found[0], found[0]), text)

    return Fault(renamed(fault.kind), renamed(fault.text))


def _place_fault(entry: Entry, header: Header) -> Fault | None:
    """What is wrong with an entry's box or mask, which may have been drawn on the image as viewers turn it."""
    fault = _misplaced(entry, header.width, header.height)
    if fault is None or header.orientation not in QUARTERS or _misplaced(entry, header.height, header.width):
        return fault
    return Fault(
        "a box or mask that fits the turned image alone",
        f"its box or mask is not inside the image of {header.width} x {header.height} pixels, as it is stored; viewers "
        "turn this image by a quarter, as its EXIF tag says, and there it fits: store the image as it is seen (for "
        "instance with mogrify -auto-orient)",
    )


def _misplaced(entry: Entry, width: int, height: int) -> Fault | None:
    """What is wrong with an entry's box or mask in an image of a size."""
    box = entry.get("box")
    if box is not None and (fault := box_fault(box, width, height)):
        return _as_written(fault)
    if box is not None and not (box[2] > 0 < box[3]):
        return Fault("a box without area", f"box {show(box)} has no area; it is [x, y, width, height]")
    if box is not None and overhang(box, width, height) > BORDER_TOLERANCE:
        text = f"box {show(box)} is partly outside its image of {width} x {height} pixels; cut it at the border"
        return Fault("a box partly outside its image", text)
    if entry.get("mask") is None:
        return None
    if fault := mask_fault(entry["mask"], height=height, width=width):
        return _as_written(fault)
    try:
        mask = decode_mask(entry["mask"], height=height, width=width)
    except AnnotationError as error:
        return Fault("a mask that cannot be read", str(error))
    if not mask.any():
        return Fault("an empty mask", "its mask has no pixel; draw it, or leave it out")
    if box is not None:
        left, top, right, bottom = pixel_edges(box, height=height, width=width)
        if not mask[top:bottom, left:right].any():
            return Fault("a mask outside its box", f"its mask has no pixel in its box {show(box)}; correct one of them")
    return None


def _headers(names: list[str], folder: Path) -> dict[str, Header]:
    """File name → what its header says."""
    if fault := folder_fault(folder):
        raise ImageError(fault)
    listed = [{"file_name": name} for name in names]
    check_images({"images": listed}, folder)
    found = {}
    for entry, header in read_headers(listed, folder):
        if isinstance(header, str):
            raise ImageError(f"{folder / entry['file_name']}: {header}; replace it, or take its entries out")
        found[entry["file_name"]] = header
    return found


def _plain(value: Any) -> Any:
    """A value with numbers as fractional ones: 3 and 3.0 are the same place."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if isinstance(value, int) else value


def _objects(entries: list[Entry]) -> list[list[Entry]]:
    """The entries of each object, in the list's order: of one image, box, mask and category. One without a mask joins
    those with the mask of its box, where there is one alone."""
    places: dict[str, dict[str, list[Entry]]] = {}  # image, box and category → mask → entries
    for entry in entries:
        there = places.setdefault(_key(entry, "image", "box", "category"), {})
        there.setdefault(_key(entry, "mask"), []).append(entry)
    ranks = {id(entry): rank for rank, entry in enumerate(entries)}
    objects = []
    for by_mask in places.values():
        if len(by_mask) == 2 and (plain := by_mask.pop(_key({}, "mask"), None)) is not None:
            (masked,) = by_mask.values()
            masked += plain
        objects += [sorted(some, key=lambda entry: ranks[id(entry)]) for some in by_mask.values()]
    return sorted(objects, key=lambda some: ranks[id(some[0])])


def _key(entry: Entry, *names: str) -> str:
    """Values that two entries may share."""
    return repr([_plain(entry.get(name)) for name in names])


def _file(entries: list[Entry], headers: dict[str, Header]) -> CocoDict:
    names = [*dict.fromkeys(entry.get("category", CATEGORY) for entry in entries)]
    images = {name: place for place, name in enumerate(headers, 1)}
    annotations = []
    for place, some in enumerate(_objects(entries), 1):
        first, masked = some[0], next((entry for entry in some if entry.get("mask") is not None), None)
        width, height, _ = headers[first["image"]]
        known = {"id": place, "image_id": images[first["image"]],
                 "category_id": names.index(first.get("category", CATEGORY)) + 1, "iscrowd": 0}  # fmt: skip
        if masked is not None:
            known |= instance(decode_mask(masked["mask"], height=height, width=width))
        if first.get("box") is not None:
            known["bbox"] = first["box"]
        annotations.append({**known, "expressions": [entry["text"] for entry in some]})
    return {
        "images": [
            {"id": images[name], "file_name": name, "width": header.width, "height": header.height}
            for name, header in headers.items()
        ],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(names, 1)],
    }
