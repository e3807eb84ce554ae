"""What was found out about source files, remembered in a store's root by the files' content."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal.annotations import CocoDict, read
from mal.census import VERSION, Census, take
from mal.errors import MalError
from mal.files import digest, read_json, write_json
from mal.store import Fingerprints


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
    key, place = digest([about, version, before]), fingerprints.cache.with_name("remembered.json")
    known = _load(place)
    if key in known:
        return known[key]
    value = compute()
    if [fingerprints.file(path) for path in files] != before:
        changed = ", ".join(map(str, files))
        raise MalError(f"{changed} changed while it was read; run the command again once it is complete")
    with suppress(MalError):  # where it cannot be remembered it is right all the same, only slower
        write_json(place, {**_load(place), key: value})
    return value


def census(path: Path, fingerprints: Fingerprints) -> Census:
    """The census of a COCO or LVIS file; a file is parsed for it only once.

    Raises:
        AnnotationError: it cannot be read or trusted, whatever its masks are like.
        MalError: there is no such file.
    """
    found = remembered("census", VERSION, [path], lambda: take(_read(path)).plain(), fingerprints)
    return Census.restore(found)


def _read(path: Path) -> CocoDict:
    return read(path, masks=False)


def _load(place: Path) -> dict[str, Any]:
    try:
        known = read_json(place)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
