"""Where the images lie that a result is about, and which photographs may be shown to others, by their licences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from analysis.lineage import ancestors
from analysis.records import Json, Record

# ids 4, 5 and 7 of COCO and LVIS; known by their addresses, since another file may number its licences otherwise.
# The other licences there forbid commercial use or changed copies, and a crop with a mask over it is a changed copy.
FREE = {
    "creativecommons.org/licenses/by": "CC BY",
    "creativecommons.org/licenses/by-sa": "CC BY-SA",
    "flickr.com/commons/usage": "no known copyright restrictions",
}


@dataclass(frozen=True)
class Pictures:
    """Photographs or drawings, and the file that describes them."""

    annotations: Path  # COCO or LVIS, with human masks
    images: Path  # folder
    drawn: bool  # procedural: nobody's rights are touched


@dataclass(frozen=True)
class Licence:
    """What an annotation file says about the rights in one image."""

    name: str  # as the file names it; "no licence" where it names none
    free: bool  # may be shown to others, changed, by anyone
    credit: str  # who is to be named, as the licence asks; empty where nobody is


def pictures(record: Record, known: Mapping[str, Record], store: Path) -> Pictures | None:
    """The images that a result is about; None where they cannot be found on this machine.

    Procedural images lie in the store. Those of a user's files lie where they lay when their boxes were read, if
    they still do: two results of the same files have the same digests among their `sources`.

    Args:
        record: of a stage that reads a split: boxes_*, label_*, quality_*, detect_val, ap_val, …
        known: all records, by address. store: folder that they are in.
    """
    for name in ancestors(record, known):
        if name.startswith(("shapes_train/", "shapes_val/")):  # the nearest: its own split before the labeler's
            folder = store / name
            return Pictures(folder / "annotations.json", folder / "images", drawn=True) if folder.is_dir() else None
    for other in known.values():
        places, sources = other.get("places"), other["sources"]
        if places and sources and sources.items() <= record["sources"].items():
            found = Pictures(Path(places["annotations"]), Path(places["images"]), drawn=False)
            if found.annotations.is_file() and found.images.is_dir():
                return found
    return None


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


def by_id(rows: Iterable[Json]) -> dict[int, Json]:
    """Entries of a COCO or LVIS file by their ids."""
    return {row["id"]: row for row in rows}


def _place(address: str) -> str:
    """Host and path without version and `www.`: creativecommons.org/licenses/by of http:\\/\\/…/by\\/2.0\\/."""
    parts = urlsplit(address.replace("\\", ""))  # COCO's file has its slashes escaped twice
    steps = [step for step in parts.path.split("/") if step and not step[0].isdigit()]
    return "/".join([parts.netloc.removeprefix("www."), *steps])
