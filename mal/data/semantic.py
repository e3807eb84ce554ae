"""Class maps: which class each pixel of an image is of, and the folder that holds those of a split.

A *class map* is uint8 (height, width): a class's place in the data set's list of classes, 255 where a pixel is
unlabelled. A folder of them is a JSON file and index PNGs below it:

    {"classes": [names], "novel": [places in classes]?,
     "images": [{"id", "file_name", "width", "height", "map": "maps/000001.png", "tags": [places in classes]?}]}

*Tags* are classes that an image is said to show, whether or not any of its pixels are labelled as such; a file may give
them by name, too. An image with tags may do without a map: none of its pixels is labelled then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mal.data.annotation_text import parse
from mal.data.image_names import name_fault
from mal.engine.faults import show
from mal.engine.files import atomic_write, write_json
from mal.engine.findings import some
from mal.errors import AnnotationError

IGNORED = 255  # the value of unlabelled pixels; so a list has at most as many classes
FILE = "semantic.json"


@dataclass(frozen=True)
class MappedImage:
    """An image and its class map."""

    id: int
    file_name: str  # below the image folder
    width: int  # pixels
    height: int
    map: str | None  # below the folder of the JSON file; None: no pixel is labelled
    tags: tuple[int, ...] | None = None  # classes that are said to be visible, ascending; None: nothing is said

    @property
    def entry(self) -> dict[str, Any]:
        """As an entry of a COCO file's `images`, which `images.load_for` takes."""
        return {"id": self.id, "file_name": self.file_name, "width": self.width, "height": self.height}


@dataclass(frozen=True)
class SemanticFile:
    """The class maps of a split."""

    classes: tuple[str, ...]
    images: tuple[MappedImage, ...]
    novel: tuple[int, ...] | None = None  # the classes whose pixels are hidden, ascending; None: nothing is
    folder: Path = field(default_factory=Path)  # that the maps' names are relative to

    def map_of(self, image: MappedImage) -> np.ndarray:
        """The checked class map of one of the images, all 255 where it has none: uint8 (height, width).

        Raises:
            AnnotationError: it cannot be read, has another size than the image, or holds a value of no class.
        """
        if image.map is None:
            return np.full((image.height, image.width), IGNORED, dtype=np.uint8)
        path = self.folder / image.map
        values = read_map(path)
        if values.shape != (image.height, image.width):
            raise AnnotationError(
                f"{path} has {values.shape[1]} x {values.shape[0]} pixels and image {image.id} ({image.file_name}) "
                f"{image.width} x {image.height} (width x height); give the map that was drawn on this image"
            )
        check_values(values, len(self.classes), path)
        return values


def read_semantic(path: str | Path, *, maps: bool = False) -> SemanticFile:
    """Read and check the JSON file of a folder of class maps.

    Args:
        path: the file.
        maps: whether every map is opened and checked, too; `SemanticFile.map_of` checks it in any case.

    Raises:
        AnnotationError: the file, or with `maps` a map, cannot be read or trusted; names the entry and the way out.
    """
    path = Path(path)
    value = parse(path).value
    if not isinstance(value, dict) or not {"classes", "images"} <= value.keys():
        raise AnnotationError(
            f"{path} holds no list of classes and images; give a {FILE}, as python -m mal.semantic writes it"
        )
    classes = value["classes"]
    named = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not named or not 1 <= len(classes) <= IGNORED or len({*classes}) < len(classes):
        raise AnnotationError(f"{path}: classes is {show(classes)}; it must be 1 to {IGNORED} different names")
    if not isinstance(value["images"], list) or not value["images"]:
        raise AnnotationError(f"{path}: images is {show(value['images'])}; it must be a list with at least one image")
    images = tuple(_image(entry, classes, f"{path}: entry {i}") for i, entry in enumerate(value["images"]))
    ids = [image.id for image in images]
    if len({*ids}) < len(ids):
        twice = next(identity for identity in ids if ids.count(identity) > 1)
        raise AnnotationError(f"{path}: image id {twice} is used twice; number the images anew")
    found = SemanticFile(
        tuple(classes), images, _places(value.get("novel"), len(classes), f"{path}: novel"), path.parent
    )
    if maps:
        for image in images:
            found.map_of(image)
    return found


def write_semantic(path: str | Path, semantic: SemanticFile) -> None:
    """Write the JSON file, after its maps: a folder that has it is complete. Keys without a value are left out.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    images = []
    for image in semantic.images:
        drawn = {} if image.map is None else {"map": image.map}
        tags = {} if image.tags is None else {"tags": list(image.tags)}
        images.append({**image.entry, **drawn, **tags})
    novel = {} if semantic.novel is None else {"novel": list(semantic.novel)}
    write_json(path, {"classes": list(semantic.classes), **novel, "images": images})


def map_name(index: int) -> str:
    """Where the map of an image lies below the JSON file; images are counted from 0, names from 1."""
    return f"maps/{index + 1:06}.png"


def read_map(path: str | Path) -> np.ndarray:
    """The values of an index PNG, grey or with a palette, which is for the eye: uint8 (height, width).

    Raises:
        AnnotationError: it cannot be read, holds colours, or holds values of other than 8 bits.
    """
    try:
        with Image.open(path) as image:
            mode, stored = image.mode, str(image.tile[0].args) if image.tile else ""
            values = np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow raises the latter for a broken PNG
        raise AnnotationError(f"the class map {path} cannot be read ({error}); write it as a PNG") from error
    if mode not in ("L", "P") or (mode == "L" and ";" in stored):  # Pillow scales grey of 2 and 4 bits
        raise AnnotationError(
            f"the class map {path} holds pixels of mode {mode}{f' stored as {stored}' if ';' in stored else ''}, not "
            "places of classes; save it as a PNG with 8 bits of grey or a palette"
        )
    return values


def write_map(path: str | Path, values: np.ndarray) -> None:
    """Write a class map (height, width) uint8 as a grey PNG; equal maps give equal bytes.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    if values.dtype != np.uint8 or values.ndim != 2:
        raise TypeError(f"a class map is a uint8 array of two dimensions, not {values.dtype} of shape {values.shape}")
    with atomic_write(path, "wb") as file:
        file.write(cv2.imencode(".png", values)[1].tobytes())


def visible(values: np.ndarray) -> tuple[int, ...]:
    """The classes of a map's pixels, ascending."""
    counts = np.bincount(values.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return tuple(int(place) for place in np.flatnonzero(counts))


def check_values(values: np.ndarray, classes: int, source: str | Path) -> None:
    """Refuse a map with a value that is neither a class's place nor 255.

    Raises:
        AnnotationError: names the map and its largest wrong value.
    """
    wrong = [place for place in visible(values) if place >= classes]
    if wrong:
        raise AnnotationError(
            f"{source} holds the value {wrong[-1]}, and there are {classes} classes, 0 to {classes - 1} and {IGNORED} "
            "for unlabelled; name all classes, or number the map's pixels by their places in the list"
        )


def _image(entry: Any, classes: Sequence[str], where: str) -> MappedImage:
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise AnnotationError(f"{where} of images is {show(entry)}; it must be an object with a whole number as id")
    for key in ("width", "height"):
        if type(entry.get(key)) is not int or entry[key] <= 0:
            raise AnnotationError(f"{where}: {key} is {show(entry.get(key))}; give the image's {key} in pixels")
    drawn, tags = entry.get("map"), _tags(entry.get("tags"), classes, where)
    if drawn is None and tags is None:
        raise AnnotationError(
            f"{where} of images ({show(entry.get('file_name'))}) has neither a map nor tags; give one, or remove it"
        )
    fault = name_fault(entry) or (None if drawn is None else name_fault({"file_name": drawn}))
    if fault:
        raise AnnotationError(f"{where}: of its file_name and map, one cannot be used: {fault.text}")
    return MappedImage(entry["id"], entry["file_name"], entry["width"], entry["height"], drawn, tags)


def _tags(value: Any, classes: Sequence[str], where: str) -> tuple[int, ...] | None:
    """Tags that are given by place or by name, ascending."""
    if isinstance(value, list):
        unknown = [name for name in value if isinstance(name, str) and name not in classes]
        if unknown:
            raise AnnotationError(
                f"{where}: tags has {some(map(repr, unknown))}, which the file's classes have not "
                f"({some(classes)}); correct the name, or add it to the classes"
            )
        value = [classes.index(name) if isinstance(name, str) else name for name in value]
    return _places(value, len(classes), f"{where}: tags")


def _places(value: Any, classes: int, where: str) -> tuple[int, ...] | None:
    """A list of different classes, ascending."""
    if value is None:
        return None
    whole = isinstance(value, Sequence) and all(type(place) is int and 0 <= place < classes for place in value)
    if not whole or len({*value}) < len(value):
        raise AnnotationError(f"{where} is {show(value)}; it must be a list of different classes, 0 to {classes - 1}")
    return tuple(sorted(value))
