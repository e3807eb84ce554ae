"""A user's annotation file → its JSON value: the one place where such a file is parsed, whichever tool wrote it."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mal.data.image_names import is_address
from mal.errors import AnnotationError

_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "packed by gzip",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
}
_WHOLE = {  # list of a COCO file: keys whose numbers are whole, though some tools write 1.0
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id",),
}


class Parsed(NamedTuple):
    """The value of a JSON file."""

    value: Any
    not_finite: bool  # whether NaN or an infinity, which JSON does not have, is somewhere in it


def parse(path: str | Path) -> Parsed:
    """The JSON value of a file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    Ids and sizes that are written as 1.0 become 1, and an `iscrowd` of null 0: every reader may count on that. Nothing
    else is changed, and nothing is checked.

    Raises:
        AnnotationError: the file cannot be read, or is no JSON.
    """
    not_finite: list[str] = []

    def remember(constant: str) -> float:
        not_finite.append(constant)
        return float(constant)

    try:
        content = Path(path).read_bytes()
        with without_garbage_collection():
            value = json.loads(content, parse_constant=remember)
    except FileNotFoundError:
        first = "download it, and " if is_address(str(path)) else ""
        raise AnnotationError(
            f"there is no annotation file at {path}; {first}give the path of a COCO JSON file"
        ) from None
    except OSError as error:
        raise AnnotationError(
            f"cannot read {path}: {error.strerror}; give a COCO JSON file that can be read"
        ) from error
    except RecursionError as error:
        raise AnnotationError(f"{path} is nested too deeply to be usable JSON; give a COCO JSON file") from error
    except ValueError as error:
        raise AnnotationError(f"{path} {_not_json(error, content)}") from error
    _make_whole(value)
    return Parsed(value, bool(not_finite))


def _make_whole(coco: Any) -> None:
    for name, keys in _WHOLE.items():
        entries = coco.get(name) if type(coco) is dict else None
        for entry in entries if type(entries) is list else ():
            if type(entry) is not dict:
                continue
            for key in keys:
                value = entry.get(key)
                if type(value) is float and value.is_integer():
                    entry[key] = int(value)
            if "iscrowd" in entry and entry["iscrowd"] is None:
                entry["iscrowd"] = 0


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Annotations are millions of objects that live; looking through them again and again doubles the time of work on
    them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _not_json(error: ValueError, content: bytes) -> str:
    """Why a file's bytes are no JSON, and the way out."""
    for start, what in _PACKED.items():
        if content.startswith(start):
            return f"is {what}; unpack it and give the COCO JSON file that is in it"
    if isinstance(error, UnicodeDecodeError):
        if content.lstrip()[:1] in (b"{", b"["):
            return f"is not in UTF-8 (at byte {error.start}); open it in a text editor and save it as UTF-8"
        return "is not text; give a COCO JSON file (unpack it first if it is packed)"
    if not isinstance(error, json.JSONDecodeError):
        return f"is not usable JSON ({error}); give a COCO JSON file"
    text = error.doc.strip("\ufeff\0 \t\r\n")
    if not text:
        return "is empty; download or export it again"
    if error.msg == "Extra data":
        if error.doc[error.pos] in "{[":
            return (
                f"holds several JSON values, the second at line {error.lineno}, as JSON lines do; "
                "export it as one COCO object with images, annotations and categories"
            )
        return f"goes on after its end, at line {error.lineno}, column {error.colno}; download or export it again"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"ends in the middle, at line {error.lineno}; download or export it again"
    if text in ("undefined", "None", "nan", "nil"):
        return f"holds the word {text} only, as a failed export does; export it again"
    if text.startswith("<"):
        return (
            f"is not JSON but a web page or XML (at line {error.lineno}, column {error.colno}); give a COCO JSON file: "
            "download the file itself, or convert Pascal VOC's"
        )
    return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; give a COCO JSON file"
