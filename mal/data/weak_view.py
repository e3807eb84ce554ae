"""The view of class maps that weak-shot learning may see: novel classes by image-level tags, base classes by pixels.

What it cannot read, it cannot cheat with: novel pixels are erased, and nothing that is written depends on them but for
each image's tags (Weak-Shot Semantic Segmentation, NeurIPS 2022: the setting).
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from mal.data.semantic import IGNORED, SemanticFile, map_name, visible, write_map, write_semantic
from mal.engine.findings import some
from mal.engine.progress import Progress
from mal.errors import ConfigError

FILE = "weak.json"


def weak_view(semantic: SemanticFile, novel: Collection[int], folder: Path) -> SemanticFile:
    """Write the weak view of class maps into a folder: FILE and its maps.

    Args:
        semantic: maps of all classes.
        novel: the classes to hide, at least one, and not all.

    Returns:
        what was written: novel pixels are 255 and cannot be told from unlabelled ones; `tags` of each image are the
        novel classes of the whole image's pixels. Ids, names, sizes and classes are those of `semantic`.

    Raises:
        ConfigError: none, all or others than the file's classes are novel.
        AnnotationError: a map cannot be read or trusted.
        MalError: the disk is full or the folder cannot be written.
    """
    hidden = sorted({*novel})
    others = [place for place in hidden if not 0 <= place < len(semantic.classes)]
    if others or not 0 < len(hidden) < len(semantic.classes):
        raise ConfigError(
            f"{some(others or hidden) or 'no class'} cannot be what is novel of the {len(semantic.classes)} classes "
            f"of {semantic.folder}; name some of 0 to {len(semantic.classes) - 1}, and leave base classes"
        )
    erased = np.arange(IGNORED + 1, dtype=np.uint8)
    erased[hidden] = IGNORED
    images = []
    with Progress("weak view", total=len(semantic.images), unit="image") as progress:
        for index, image in enumerate(semantic.images):
            values = semantic.map_of(image)
            tags = tuple(place for place in visible(values) if place in hidden)
            images.append(replace(image, map=map_name(index), tags=tags))
            write_map(folder / images[-1].map, erased[values])
            progress.advance()
    view = SemanticFile(semantic.classes, tuple(images), tuple(hidden), folder)
    write_semantic(folder / FILE, view)
    return view
