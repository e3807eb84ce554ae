"""COCO and LVIS instance files: read, check, strip to boxes, write."""

import gc
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mal.annotation_checks import CocoDict, check, check_image_list
from mal.errors import AnnotationError, ImageError
from mal.files import atomic_write
from mal.image_names import file_name
from mal.mask_formats import decode_mask, encode_mask

__all__ = [
    "CocoDict",
    "annotations_by_image",
    "check_images",
    "decode_mask",
    "encode_mask",
    "file_name",
    "read",
    "read_images",
    "strip",
    "write",
]


def read(path: str | Path, *, masks: bool) -> CocoDict:
    """Read and check a COCO or LVIS instance file. Unknown keys and their order survive; nothing is corrected.

    Args:
        path: the JSON file.
        masks: whether every annotation must have a valid segmentation; else segmentations are not looked at.

    Returns:
        The plain dict of the JSON. Boxes are xywh in pixels.

    Raises:
        AnnotationError: the file cannot be read or trusted; names the file, the entry, the value and the way out
            (what is checked: `annotation_checks.check`).
    """
    coco, not_finite = _parse(path)
    check(coco, source=path, masks=masks)
    if not_finite:
        raise AnnotationError(
            f"{path}: {_not_finite_place(coco)}, which JSON does not have; write null or leave the key out"
        )
    return coco


def read_images(path: str | Path) -> list[dict[str, Any]]:
    """The images of a COCO or LVIS file, in its order. It may be one without annotations, as test sets have
    (image_info_test-dev2017.json); where there are some they are not looked at.

    Raises:
        AnnotationError: the file cannot be read, or an image lacks its id, size or name.
    """
    coco, _ = _parse(path)
    check_image_list(coco, source=path)
    return coco["images"]


def _parse(path: str | Path) -> tuple[Any, bool]:
    """The JSON value of a file, and whether NaN or an infinity is in it."""
    not_finite: list[str] = []

    def remember(constant: str) -> float:
        not_finite.append(constant)
        return float(constant)

    try:
        with _without_garbage_collection():
            coco = json.loads(Path(path).read_bytes(), parse_constant=remember)
    except FileNotFoundError:
        raise AnnotationError(f"there is no annotation file at {path}; give the path of a COCO JSON file") from None
    except OSError as error:
        raise AnnotationError(
            f"cannot read {path}: {error.strerror}; give a COCO JSON file that can be read"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not text; give a COCO JSON file (unpack it first if it is packed)") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} {_json_problem(error)}") from error
    return coco, bool(not_finite)


def write(path: str | Path, coco: CocoDict) -> None:
    """Write a COCO file; the name appears once the file is whole.

    Raises:
        AnnotationError: a value is not JSON's (NaN).
        MalError: the disk is full or the folder cannot be written.
    """
    try:
        text = json.dumps(coco, allow_nan=False)  # json.dump, which writes as it goes, takes almost three times as long
    except ValueError as error:
        raise AnnotationError(
            f"{path} is not written: {_not_finite_place(coco)}, which JSON does not have; correct the value"
        ) from error
    with atomic_write(path) as file:
        file.write(text)


def strip(coco: CocoDict) -> CocoDict:
    """The box-only view of a file: what phase 1 cannot read, it cannot cheat with.

    From every annotation goes `segmentation`, and `area`, which in a COCO file is the human mask's; and masks that lie
    deeper in an annotation (a nested `segmentation`, an RLE under another name). Nothing else goes: keypoints,
    captions and attributes are not masks, and phase 1 reads none of them.

    Returns:
        A new dict with new annotations; images, categories and other lists are the given ones, not copies.
    """
    return {
        **coco,
        "annotations": [
            {
                key: _without_masks(value)
                for key, value in annotation.items()
                if key != "area" and not _is_mask(key, value)
            }
            for annotation in coco["annotations"]
        ],
    }


def _without_masks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_masks(inner) for key, inner in value.items() if not _is_mask(key, inner)}
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        return [_without_masks(inner) for inner in value if not _is_mask("", inner)]
    return value


def _is_mask(key: str, value: Any) -> bool:
    return key == "segmentation" or (isinstance(value, dict) and "counts" in value)


def annotations_by_image(coco: CocoDict) -> dict[int, list[dict[str, Any]]]:
    """Image id → its annotations, for every image in the file's order; an image without any has an empty list."""
    groups: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        groups[annotation["image_id"]].append(annotation)
    return groups


def check_images(coco: CocoDict, folder: str | Path) -> None:
    """Look for the file of every image, without opening any.

    Raises:
        ImageError: how many are missing, the first three, and where they seem to be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"there is no image folder {folder}; give the folder that holds the images")
    names = [file_name(image) for image in coco["images"]]
    missing = _missing(names, folder)
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ImageError(
            f"{len(missing)} of {len(names)} images are not in {folder}: {first}; {_whereabouts(missing[0], folder)}"
        )


def _missing(names: Iterable[str], folder: Path) -> list[str]:
    """Names without a file. Each folder is listed once: on a network disk 118,000 single look-ups take minutes."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for name in names:
        path = folder / name
        if path.parent not in listed:
            entries = os.scandir(path.parent) if path.parent.is_dir() else ()
            listed[path.parent] = {entry.name for entry in entries if entry.is_file()}
        # the second look finds names that differ in case or Unicode form on disks that do not mind
        if path.name not in listed[path.parent] and not path.is_file():
            missing.append(name)
    return missing


def _whereabouts(name: str, folder: Path) -> str:
    """Where a missing image may be, as advice."""
    last = re.split(r"[\\/]", name)[-1]
    for candidate in (*sorted(path for path in folder.iterdir() if path.is_dir()), folder.parent):
        if (candidate / name).is_file():
            return f"{name} is in {candidate}: give that folder"
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / last).is_file():
            return f"{last} is in {candidate}: give that folder and remove the rest of the path from file_name"
    stem = Path(last).stem.casefold()
    for path in sorted(folder.iterdir()):
        if path.stem.casefold() == stem:
            return f"{path.name} is there: correct file_name"
    return "give the folder that holds them, or remove them from the annotation file"


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Parsing makes millions of objects that live; looking through them again and again doubles its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _json_problem(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return f"is not usable JSON ({error}); give a COCO JSON file"
    text = error.doc.rstrip()
    if not text:
        return "is empty; download or export it again"
    if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
        return f"ends in the middle, at line {error.lineno}; download or export it again"
    return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; give a COCO JSON file"


def _not_finite_place(coco: CocoDict) -> str:
    """Where the first NaN or infinity is, in words."""
    for kind, entries in coco.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            keys = _path_to_not_finite(entry)
            if keys is not None:
                name = f"entry {entry['id']} of {kind}" if isinstance(entry, dict) and "id" in entry else kind
                return f"{name} holds NaN or an infinity" + (f" in {'.'.join(keys)}" if keys else "")
    return "a value is NaN or infinite"


def _path_to_not_finite(value: Any) -> list[str] | None:
    """Keys that lead to a NaN or infinity in a JSON-like value; None where there is none."""
    if isinstance(value, float):
        return None if abs(value) < float("inf") else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found = _path_to_not_finite(part)
        if found is not None:
            return [str(key), *found]
    return None
