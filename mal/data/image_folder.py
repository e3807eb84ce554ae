"""The files of a data set's images: whether all are there, and where those that are not may be.

No image is opened, and each folder is listed once: on a network disk 118,000 single look-ups take minutes.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mal.data.image_names import file_name, is_address
from mal.data.whereabouts import whereabouts
from mal.errors import ImageError

_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def check_images(coco: dict[str, Any], folder: str | Path) -> None:
    """Look for the file of every image, without opening any.

    Raises:
        ImageError: how many are missing, the first three, and where they seem to be.
    """
    folder = Path(folder)
    fault = folder_fault(folder)
    if fault:
        raise ImageError(fault)
    names = [file_name(image) for image in coco["images"]]
    missing = missing_files(names, folder)
    if missing:
        first = ", ".join(map(_cut, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise ImageError(
            f"{len(missing)} of {len(names)} images are not in {folder}: {first}; {whereabouts(missing, folder)}"
        )


def folder_fault(folder: Path) -> str | None:
    """What is wrong with an image folder, and the way out; None where it can be listed."""
    if is_address(str(folder)):
        return f"{folder} is an address; download the images and give the folder they are in"
    try:
        found = folder.is_dir()
        if not found and folder.is_file():
            way_out = "unpack it and give the folder" if folder.suffix.lower() in _PACKED else "give the folder"
            return f"{folder} is a file, not an image folder; {way_out} that holds the images"
        if found:
            os.scandir(folder).close()
    except (OSError, ValueError) as error:
        return f"the image folder {folder} cannot be listed ({_reason(error)}); check its name and its rights"
    return None if found else f"there is no image folder {folder}; give the folder that holds the images"


def missing_files(names: Iterable[str], folder: Path) -> list[str]:
    """Names without a file.

    Raises:
        ImageError: a folder below may not be looked into.
    """
    listed: dict[Path, set[str]] = {}
    missing = []
    for name in names:
        path = folder / name
        if path.parent not in listed:
            listed[path.parent] = _files(path.parent)
        # the second look finds names that differ in case or Unicode form on disks that do not mind
        if path.name not in listed[path.parent] and not _is_file(path):
            missing.append(name)
    return missing


def _files(folder: Path) -> set[str]:
    """Names of the files in a folder; none where it is absent or cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        raise ImageError(
            f"the folder {path.parent} cannot be looked into ({_reason(error)}); change its rights, or take its images "
            "out of the annotation file"
        ) from error
    except (OSError, ValueError):  # such as a name that is too long for the disk
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _cut(name: str) -> str:
    """A name for an error message, cut where it is long."""
    return name if len(name) <= 80 else f"{name[:60]} ... {name[-12:]}"
