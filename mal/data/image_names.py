"""What an image of a COCO file is called, and that its name stays inside the image folder."""

import re
from typing import Any
from urllib.parse import urlsplit

from mal.engine.faults import Fault, show
from mal.errors import AnnotationError

_SEPARATOR = re.compile(r"[\\/]")
_ADDRESS = re.compile(r"(https?|ftp|file|s3|gs|gcs|azure|abfss?|hdfs|dbfs):/", re.IGNORECASE)


def file_name(image: dict[str, Any]) -> str:
    """Path of an image inside the image folder: `file_name`, or the last two parts of `coco_url` (LVIS v1 has no
    `file_name`, and its val images lie partly in train2017/).

    An absolute path is taken as it is (exports that stay on one machine have them); `..` is refused.

    Raises:
        AnnotationError: there is no name, it cannot be one, or it leads out of the folder.
    """
    name, fault = _name(image)
    if fault:
        raise AnnotationError(f"image {show(image.get('id'))}: {fault.text}")
    return name


def name_fault(image: dict[str, Any]) -> Fault | None:
    """What is wrong with an image's name; None where `file_name` gives one."""
    return _name(image)[1]


def is_address(text: str) -> bool:
    """Whether a text is a web or cloud address. `Path` makes one slash of the two behind the colon."""
    return _ADDRESS.match(text) is not None


def last_part(name: str) -> str:
    """What follows the last slash of either kind."""
    return _SEPARATOR.split(name)[-1]


def _name(image: dict[str, Any]) -> tuple[str, Fault | None]:
    name = image.get("file_name")
    if name is None and isinstance(image.get("coco_url"), str):
        try:
            name = "/".join(urlsplit(image["coco_url"]).path.strip("/").split("/")[-2:])
        except ValueError as error:
            text = f"coco_url {show(image['coco_url'])} is no web address ({error}); correct it, or give a file_name"
            return "", Fault("coco_url is no web address", text)
    if not isinstance(name, str) or not name or "\0" in name:
        text = f"file_name is {show(name)}; give the image's path inside the image folder, in quotes"
        return "", Fault("no file_name", text)
    if ".." in name and ".." in _SEPARATOR.split(name):
        return "", Fault(
            "file_name leads out of the image folder",
            f"file_name {show(name)} leads out of the image folder; remove the '..' and what stands before it: write "
            f"the path inside the folder that holds all images, such as {show(last_part(name))}",
        )
    if not _encodes(name):
        text = f"file_name {show(name)} holds half a character, which no file's name can; write the whole name"
        return "", Fault("file_name holds half a character", text)
    return name, None


def _encodes(name: str) -> bool:
    """Whether a text has no lone surrogate."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
