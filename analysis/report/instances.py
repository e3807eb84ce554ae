"""Which validation instances the gallery shows: those of the labelled sets whose images are found."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.columns import labeler_name, rank
from analysis.drawing import even_places
from analysis.images import Pictures, by_id, licence_of, pictures
from analysis.intervals import read_instances
from analysis.lineage import told_apart
from analysis.records import Json, Record, UnreadableRecordError, address
from analysis.summary_cells import IDENTITY, identity


@dataclass(frozen=True)
class Labelled:
    """The masks that one labeler gave to a split, scored."""

    name: str
    labels: Path  # COCO file
    scores: pd.DataFrame  # instances.csv, indexed by annotation_id


@dataclass(frozen=True)
class Split:
    """Validation images and all labelled sets of them."""

    name: str  # data and profile
    pictures: Pictures
    labelled: list[Labelled]  # in the tables' order: MAL first


@dataclass(frozen=True)
class Selection:
    """The instances of a split that are shown."""

    split: Split
    human: Json  # the file with human masks
    ids: list[int]  # of annotations
    scored: int  # instances that the first labelled set scores
    forbidden: dict[str, int]  # licence → images that it keeps out


def find(known: Mapping[str, Record], store: Path) -> tuple[list[Split], list[str]]:
    """All splits with labelled sets and images on this machine, and a sentence for whatever cannot be shown.

    Args:
        known: all records, by address. store: folder that they are in.
    """
    groups: dict[Pictures, list[Record]] = {}
    absent: dict[str, list[Record]] = {}
    for record in known.values():
        if record["stage"] != "quality_val":
            continue
        found = pictures(record, known, store)
        if found is None:
            absent.setdefault(_name([record]), []).append(record)
        elif _files(record, store):
            groups.setdefault(found, []).append(record)
        else:
            absent.setdefault("", []).append(record)
    splits = [Split(_name(group), where, _labelled(group, known, store)) for where, group in groups.items()]
    return sorted(splits, key=lambda split: split.name), [_why(*entry) for entry in sorted(absent.items())]


def select(splits: Iterable[Split], limit: int, *, redistributable: bool) -> list[Selection]:
    """The instances to show, at most `limit` in all.

    Splits share the limit evenly; what a small one leaves goes to the others. Where a split has more instances than
    its share, those at equal steps of the IoU ranking of its first labelled set are taken, worst to best included.

    Args:
        redistributable: leave out photographs whose licence forbids showing them to others, or that have none.
    """
    found = []
    for split in splits:
        human = read_json(split.pictures.annotations)
        keep, forbidden = _allowed(human, split.pictures, redistributable)
        first = split.labelled[0].scores
        found.append((split, human, first[first["image_id"].isin(keep)], len(first), forbidden))
    shares = _shares([len(rows) for _, _, rows, _, _ in found], limit)
    return [
        Selection(split, human, equal_steps(rows, share), scored, forbidden)
        for (split, human, rows, scored, forbidden), share in zip(found, shares, strict=True)
    ]


def equal_steps(rows: pd.DataFrame, count: int) -> list[int]:
    """Annotation ids of at most `count` rows at equal steps of the IoU ranking, best first; ties by rising id."""
    ranked = rows.sort_index().sort_values("iou", ascending=False, kind="stable")
    return [int(ranked.index[place]) for place in even_places(len(ranked), count)]


def read_json(path: Path) -> Json:
    """A COCO or LVIS file.

    Raises:
        UnreadableRecordError: it is cut off, or no JSON.
    """
    try:
        return json.loads(path.read_bytes())  # in any of Unicode's encodings: it may be the user's own
    except (OSError, ValueError) as error:
        raise UnreadableRecordError(f"{path} cannot be read: {error}; compute it again, or restore it") from error


def _shares(sizes: list[int], limit: int) -> list[int]:
    """How many of each to take: evenly, and what a small one leaves goes to the others."""
    shares, left = [0] * len(sizes), limit
    for turn, place in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[place] = min(sizes[place], left // (len(sizes) - turn))
        left -= shares[place]
    return shares


def _allowed(human: Json, where: Pictures, redistributable: bool) -> tuple[set[int], dict[str, int]]:
    """Ids of the images that may be shown, and how many each licence keeps out."""
    if where.drawn or not redistributable:
        return {image["id"] for image in human["images"]}, {}
    keep, forbidden = set(), dict[str, int]()
    licences = by_id(human.get("licenses", []))
    for image in human["images"]:
        licence = licence_of(image, licences)
        if licence.free:
            keep.add(image["id"])
        else:
            forbidden[licence.name] = forbidden.get(licence.name, 0) + 1
    return keep, forbidden


def _files(record: Record, store: Path) -> tuple[Path, Path] | None:
    """A scored set's masks and its instances' scores; None where one is not in the store."""
    labels = store / record["inputs"]["labels"] / "labels.json"
    scores = store / address(record) / "instances.csv"
    return (labels, scores) if labels.is_file() and scores.is_file() else None


def order(record: Record) -> tuple[int, str, str, str]:
    """Where a labeler's result stands among others: MAL first; sorted by seed."""
    columns = record["columns"]
    return rank(columns), columns["labeler"], str(columns.get("seed", "")), record["key"]


def _labelled(records: list[Record], known: Mapping[str, Record], store: Path) -> list[Labelled]:
    ordered = sorted(records, key=order)
    sets = []
    plain = [labeler_name(record["columns"]["labeler"]) for record in ordered]
    for record, name in zip(ordered, names(ordered, plain, known), strict=True):
        files = _files(record, store)
        assert files is not None, "find() keeps only records whose files exist"
        sets.append(Labelled(name, files[0], read_instances(files[1], index="annotation_id")))
    return sets


def names(records: list[Record], shown: list[str], known: Mapping[str, Record]) -> list[str]:
    """Names, each with every setting in which two of that name differ, and the key where nothing else does."""
    for setting in ("profile", *IDENTITY):
        values = [identity(record, setting, known) for record in records]
        by = [record["columns"].get("recipe") for record in records] if setting == "recipe" else values
        shown = told_apart(shown, values, "{}" if setting == "settings" else f"{setting} {{}}", by=by)
    return shown


def _name(records: list[Record]) -> str:
    """Data and profiles of some records in words."""
    data = sorted({record["columns"]["data"] for record in records})
    profiles = sorted({record["columns"]["profile"] for record in records})
    return f"{', '.join(data)} (profile {', '.join(profiles)})"


def _why(name: str, records: list[Record]) -> str:
    """A sentence on labelled sets that cannot be shown."""
    if not name:
        missing = ", ".join(sorted(address(record) for record in records))
        return f"Masks or scores of {missing} are not in this store; copy labels.json and instances.csv there."
    count = max(record["metrics"]["iou"]["n"] for record in records)
    return (
        f"{name}: {len(records)} labelled sets of {count} instances are not in the gallery, for their images are not "
        "found: the records do not say where they lay, or they lie there no more. Ask for the run again with "
        "experiments/run.py where the images are, then for this page."
    )
