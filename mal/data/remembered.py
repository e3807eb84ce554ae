"""What was found out about source files, remembered in a store by the files' content."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mal.data.annotations import CocoDict, read
from mal.data.census import VERSION, Census, take
from mal.engine.files import digest
from mal.engine.store import Fingerprints
from mal.errors import MalError


def remembered(
    about: str, version: int, files: list[Path], compute: Callable[[], Any], fingerprints: Fingerprints
) -> Any:
    """A JSON value that follows from the content of some files; it is computed the first time.

    Args:
        about: what it is.
        version: of how it is computed.
        files: what it is computed from.
        fingerprints: their digests, and the folder that the value is kept in.

    Raises:
        MalError: a file is absent, or changes meanwhile; whatever `compute` raises.
    """
    before = [fingerprints.file(path) for path in files]

    def settled() -> Any:
        value = compute()
        if [fingerprints.file(path) for path in files] != before:
            changed = ", ".join(map(str, files))
            raise MalError(f"{changed} changed while it was read; run the command again once it is complete")
        return value

    return fingerprints.derived(f"{about}-{version}", digest(before), settled)


def census(path: Path, fingerprints: Fingerprints) -> Census:
    """The census of a COCO or LVIS file; a file is parsed for it only once.

    Raises:
        AnnotationError: it cannot be read or trusted, whatever its masks are like.
        MalError: there is not such a file.
    """
    found = remembered("census", VERSION, [path], lambda: take(_read(path)).plain(), fingerprints)
    return Census.restore(found)


def _read(path: Path) -> CocoDict:
    return read(path, masks=False, boxes=False)
