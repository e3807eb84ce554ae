"""The view of class maps that weak-shot learning may see: novel classes by image-level tags, base classes by pixels.

What it cannot read, it cannot cheat with: novel pixels are erased, and nothing that is written depends on them but for
each image's tags (Weak-Shot Semantic Segmentation, NeurIPS 2022: the setting). Tags are those that the file of the maps
gives, and the classes of visible pixels: novel classes need no pixel anywhere.
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from mal.data.semantic import IGNORED, MappedImage, SemanticFile, map_name, visible, write_map, write_semantic
from mal.engine.findings import number, some
from mal.engine.progress import Progress
from mal.errors import AnnotationError, ConfigError

FILE = "weak.json"


def weak_view(semantic: SemanticFile, novel: Collection[int], folder: Path) -> SemanticFile:
    """Write the weak view of class maps into a folder: FILE and its maps.

    Args:
        semantic: maps of all classes.
        novel: the classes to hide, at least one, and not all.

    Returns:
        what was written: novel pixels are 255 and cannot be told from unlabelled ones; `tags` of each image are the
        tags that `semantic` gives it, if any, together with the novel classes of the whole image's pixels. Ids, names,
        sizes and classes are those of `semantic`. An image without base pixels and tags stays; how many there are is
        said on standard error.

    Raises:
        ConfigError: none, all or others than the file's classes are novel.
        AnnotationError: a map cannot be read or trusted, or an image is tagged with a base class.
        MalError: the disk is full or the folder cannot be written.
    """
    hidden = sorted({*novel})
    others = [place for place in hidden if not 0 <= place < len(semantic.classes)]
    if others or not 0 < len(hidden) < len(semantic.classes):
        raise ConfigError(
            f"{some(others or hidden) or 'no class'} cannot be what is novel of the {len(semantic.classes)} classes "
            f"of {semantic.folder}; name some of 0 to {len(semantic.classes) - 1}, and leave base classes"
        )
    for image in semantic.images:
        _check_tags(image, hidden, semantic)
    erased = np.arange(IGNORED + 1, dtype=np.uint8)
    erased[hidden] = IGNORED
    images, empty = [], 0
    with Progress("weak view", total=len(semantic.images), unit="image") as progress:
        for index, image in enumerate(semantic.images):
            values = semantic.map_of(image)
            seen, name = visible(values), map_name(index)
            tags = tuple(sorted({*(image.tags or ()), *(place for place in seen if place in hidden)}))
            images.append(replace(image, map=name, tags=tags))
            write_map(folder / name, erased[values])
            empty += not tags and not seen
            progress.advance()
    if empty:
        print(
            f"note: {number(empty, 'image shows', 'images show')} neither a base pixel nor a tag, so that nothing is "
            f"learned from {'it' if empty == 1 else 'them'}; label or leave out",
            file=sys.stderr,
            flush=True,
        )
    view = SemanticFile(semantic.classes, tuple(images), tuple(hidden), folder)
    write_semantic(folder / FILE, view)
    return view


def _check_tags(image: MappedImage, novel: Collection[int], semantic: SemanticFile) -> None:
    base = [semantic.classes[place] for place in image.tags or () if place not in novel]
    if base:
        raise AnnotationError(
            f"image {image.id} ({image.file_name}) is tagged {some(base)}, a base class; base classes are known by "
            "masks, and novel ones alone by tags: name it in simformer.split.classes, or give its mask and no tag"
        )
