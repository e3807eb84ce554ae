"""Which photographs may be shown to others, by the licence that their annotation file names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# ids 4, 5 and 7 of COCO and LVIS; known by their addresses, since another file may number its licences otherwise.
# The other licences there forbid commercial use or changed copies, and a crop with a mask over it is a changed copy.
FREE = {
    "creativecommons.org/licenses/by": "CC BY",
    "creativecommons.org/licenses/by-sa": "CC BY-SA",
    "flickr.com/commons/usage": "no known copyright restrictions",
}
Json = dict[str, Any]


@dataclass(frozen=True)
class Licence:
    """What an annotation file says about the rights in one image."""

    name: str  # as the file names it; "no licence" where it names none
    free: bool  # may be shown to others, changed, by anyone
    credit: str  # who is to be named, as the licence asks; empty where nobody is


def licence_of(image: Json, licences: Mapping[int, Json]) -> Licence:
    """The licence of an image.

    Args:
        image: entry of `images` of a COCO or LVIS file. licences: the file's `licenses`, by id.
    """
    entry = licences.get(image.get("license", -1))
    if entry is None:
        return Licence("no licence", free=False, credit="")
    name = str(entry.get("name", "an unnamed licence"))
    short = FREE.get(_place(str(entry.get("url", ""))))
    if short is None:
        return Licence(name, free=False, credit="")
    source = image.get("flickr_url") or image.get("coco_url") or image.get("file_name", "")
    return Licence(name, free=True, credit=f"{source}, {short}")


def by_id(coco: Json) -> dict[int, Json]:
    """The licences of a COCO or LVIS file, by id; none where it lists none."""
    return {entry["id"]: entry for entry in coco.get("licenses", [])}


def _place(address: str) -> str:
    """Host and path without version and `www.`: creativecommons.org/licenses/by of http:\\/\\/…/by\\/2.0\\/."""
    parts = urlsplit(address.replace("\\", ""))  # COCO's file has its slashes escaped twice
    steps = [step for step in parts.path.split("/") if step and not step[0].isdigit()]
    return "/".join([parts.netloc.removeprefix("www."), *steps])
