"""Views of a file, by what a method learns from: what it cannot read, it cannot cheat with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mal.data.annotation_text import parse
from mal.data.annotations import CocoDict, read
from mal.data.expressions import expressions_only
from mal.data.points import points_only
from mal.data.strip import strip
from mal.errors import AnnotationError

VIEWS: dict[str, Callable[..., dict[str, Any]]] = {  # by what a method learns from: a file → what may be seen of it
    "boxes": strip,
    "points": points_only,
    "expressions": expressions_only,
}


def read_for(view: str, file: Path, images: Path) -> CocoDict:
    """A file that has what a view shows.

    Args:
        images: the folder of its images, for the way out.

    Raises:
        AnnotationError: it cannot be read or trusted.
    """
    try:
        return read(file, masks=False, points=view == "points")
    except AnnotationError as error:
        if view == "expressions" and isinstance(parse(file).value, list):
            raise AnnotationError(
                f"{file} is a list; `python -m mal.expressions json {file} --images {images} --out FILE` makes "
                "the COCO file of it that --expressions reads"
            ) from error
        raise
