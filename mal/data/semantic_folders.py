"""Photographs and label files of any source → ROOT/images/SPLIT and ROOT/labels/SPLIT with its semantic.json."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mal.data.headers import Header, read_header, size_fits
from mal.data.semantic import FILE, IGNORED, MappedImage, SemanticFile, visible, write_map, write_semantic
from mal.data.tags import Tags
from mal.engine.files import atomic_write
from mal.engine.findings import some
from mal.engine.progress import Progress
from mal.errors import AnnotationError, ImageError

SPLITS = ("train", "test")
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")  # endings, in any case


@dataclass(frozen=True)
class Labelled:
    """A photograph and the file that says what its pixels are; None where tags alone say what it shows."""

    image: Path
    label: Path | None


def pairs_in(
    images: Path, labels: Path, ending: str, names: Iterable[str] | None = None, *, tags: Tags | None = None
) -> list[Labelled]:
    """The photographs of a folder with their label files, which have the same name before the ending, sorted by name.

    Args:
        ending: of the label files, such as .png.
        names: which, without endings; None: all that are there.
        tags: photographs in it, by the names of their files, need no label file.

    Raises:
        AnnotationError: a folder cannot be listed or is empty, two photographs share a name, or one of a pair is
            absent; names the first few.
    """
    photographs, found = _listed(images, PHOTOGRAPHS), _listed(labels, (ending,))
    wanted = sorted(found.keys() | photographs.keys()) if names is None else list(names)
    tagged = {name for name, path in photographs.items() if path.name in (tags or {})}
    for folder, there in ((images, {*photographs}), (labels, found.keys() | tagged)):
        absent = [name for name in wanted if name not in there]
        if absent or not wanted:
            raise AnnotationError(
                f"{len(absent)} of {len(wanted)} files are absent from {folder}: {some(absent) or 'it is empty'}; each "
                f"photograph needs a label file of the same name{' or tags' if tags else ''}, and each label file its "
                "photograph"
            )
    return [Labelled(photographs[name], found.get(name)) for name in wanted]


def shifted(values: np.ndarray, by: int, classes: int, source: Path) -> np.ndarray:
    """Values that count classes from `by` on → a class map.

    Args:
        values: whole numbers (height, width); the one below `by` is unlabelled, or 255 where `by` is 0.
        source: the file, for the error.

    Raises:
        AnnotationError: a value is neither a class's nor the unlabelled one.
    """
    unlabelled = by - 1 if by else IGNORED
    wrong = np.unique(values[((values < by) | (values >= by + classes)) & (values != unlabelled)])
    if wrong.size:
        raise AnnotationError(
            f"{source} holds the values {some(wrong.tolist())}; classes are {by} to {by + classes - 1}, and "
            f"{unlabelled} is unlabelled; give a file that numbers them so"
        )
    return np.where(values == unlabelled, IGNORED, values.astype(np.int64) - by).astype(np.uint8)


def convert(
    split: str,
    pairs: Sequence[Labelled],
    classes: Sequence[str],
    read: Callable[[Path], np.ndarray],
    root: Path,
    *,
    tags: Tags | None = None,
) -> tuple[SemanticFile, list[str]]:
    """Write a split's class maps and place its photographs beside them.

    Photographs with neither a labelled pixel nor a tag are left out: there is nothing to learn or to measure on them.

    Args:
        split: of SPLITS.
        pairs: its photographs; ids count from 1 in their order.
        read: label file → class map, checked.
        root: images/SPLIT/NAME and labels/SPLIT/NAME.png are below it, labels/SPLIT/semantic.json is written last.
        tags: of photographs, by the names of their files.

    Returns:
        (what was written, the names of the photographs left out).

    Raises:
        AnnotationError: a label file has another size than its photograph, all are unlabelled, or `read` raises it.
        ImageError: a photograph cannot be read.
        MalError: the disk is full or the folder cannot be written.
    """
    images, empty = [], []
    labels = root / "labels" / split
    with Progress(f"convert {split}", total=len(pairs), unit="image") as progress:
        for number, pair in enumerate(pairs, 1):
            header = _header(pair.image)
            values = None if pair.label is None else read(pair.label)
            if values is not None:
                _check_size(pair, header, values)
            named = None if tags is None else tags.get(pair.image.name, ())
            if named or (values is not None and visible(values)):
                height, width = (header.height, header.width) if values is None else values.shape
                name = None if values is None else f"{pair.image.stem}.png"
                images.append(MappedImage(number, pair.image.name, width, height, name, named))
                if name is not None and values is not None:
                    write_map(labels / name, values)
                place(pair.image, root / "images" / split / pair.image.name)
            else:
                empty.append(pair.image.name)
            progress.advance()
    if not images:
        raise AnnotationError(f"none of the {len(pairs)} label files of {split} has a labelled pixel; give others")
    semantic = SemanticFile(tuple(classes), tuple(images), folder=labels)
    write_semantic(labels / FILE, semantic)
    return semantic, empty


def place(source: Path, target: Path) -> None:
    """Let a file be found at `target`, too: as a second name for it where the disk allows that, else as a copy.

    Raises:
        MalError: the file cannot be read, the disk is full or the folder cannot be written.
    """
    if target.exists() and target.samefile(source):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    except OSError:
        with atomic_write(target, "wb") as copy, open(source, "rb") as content:
            shutil.copyfileobj(content, copy)


def _listed(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files by their names without endings."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in endings]
    except OSError as error:
        raise AnnotationError(f"the folder {folder} cannot be listed ({error.strerror}); check its name") from error
    found = {path.stem: path for path in sorted(paths)}
    if len(found) < len(paths):
        twice = [path.name for path in sorted(paths) if found[path.stem] != path]
        raise AnnotationError(f"{folder} holds several files with the name of {some(twice)}; remove all but one")
    return found


def _header(image: Path) -> Header:
    header = read_header(image)
    if not isinstance(header, Header):
        raise ImageError(f"{image}: {header}; get it anew, or remove it and its label file")
    return header


def _check_size(pair: Labelled, header: Header, values: np.ndarray) -> None:
    height, width = values.shape
    if not size_fits({"width": width, "height": height}, header):
        raise AnnotationError(
            f"{pair.image} has {header.width} x {header.height} pixels and {pair.label} {width} x {height}; one of the "
            "two is another file's"
        )
