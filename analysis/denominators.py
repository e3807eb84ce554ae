"""What an AP on pseudo-labels is divided by: the AP of a segmenter trained on human masks here, or of a published one.

A retention belongs to a pair, (AP with pseudo-labels, AP with human masks): one AP may have several, one for each
denominator, and those of different denominators are never averaged, nor shown without their name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.lineage import lineage, over_seeds
from analysis.records import Record, address, grouped

TRAINED = "human masks"  # a segmenter trained on them, all else alike
UNKNOWN = "unknown"  # the store lacks the denominator, and the record is older than the column that names it
WEAKEST = {"shapes": 0.20}  # see `weakest`
WEAKEST_ELSEWHERE = 0.15
Kind = tuple[str, str, str]  # a denominator's name, its lineage, and its address where that alone tells it from another
NONE: Kind = ("", "", "")


@dataclass(frozen=True)
class Kept:
    """An AP, and one of its retentions."""

    score: Record  # ap_val
    retention: Record | None = None  # None: none was computed
    over: str = ""  # its denominator: TRAINED, or the published file's name; empty without a retention


def kept_groups(scores: Iterable[Record], known: Mapping[str, Record]) -> list[list[Kept]]:
    """Every AP under each of its denominators, in groups that differ in their seed alone, each by rising seed.

    A seed whose retention is not computed yet joins the others where they have one denominator. Denominators that
    would have the same name (two files called alike, two ways to train) are told apart by what they are made of.

    Args:
        scores: ap_val records. known: all records, by address.
    """
    ratios = _by_score(known.values())
    found: list[list[Kept]] = []
    for alike in over_seeds(scores, known):
        groups: dict[Kind, list[Kept]] = {}
        for score in alike:
            for kind, retention in _kinds(score, ratios.get(address(score), []), known):
                groups.setdefault(kind, []).append(Kept(score, retention, kind[0]))
            if address(score) not in ratios:
                groups.setdefault(NONE, []).append(Kept(score))
        if len(groups) == 2 and NONE in groups:
            without = groups.pop(NONE)
            (kind,) = groups
            groups[kind] = sorted(groups[kind] + without, key=lambda one: one.score["columns"].get("seed", 0))
        found += _told_apart(groups)
    return _files_told_apart(found, known)


def names_of(groups: Iterable[Sequence[Kept]]) -> list[str]:
    """The denominators of some groups, one each; empty where none of a group has a retention."""
    return [next((one.over for one in group if one.over), "") for group in groups]


def by_score(groups: Iterable[Sequence[Kept]]) -> dict[str, list[Kept]]:
    """Address of an AP → it under each of its denominators: those trained here first, then by name."""
    ordered = sorted((one for group in groups for one in group), key=lambda one: (one.over != TRAINED, one.over))
    return grouped(ordered, lambda one: address(one.score))


def must_be_said(denominators: Iterable[str]) -> bool:
    """Whether readers must be told each retention's denominator: not all are the one AP of a segmenter trained here."""
    return any(over not in ("", TRAINED, UNKNOWN) for over in denominators)


def trained_here(over: str) -> bool:
    """Whether a denominator is of a segmenter that was trained here on human masks."""
    return over.startswith(TRAINED)


def in_words(over: str) -> str:
    """A denominator at the end of a sentence or of a list of settings."""
    return f"divided by the AP of {over}" if over != TRAINED else "divided by the AP with human masks"


def denominator(retention: Record, known: Mapping[str, Record]) -> str:
    """TRAINED, the published file's name, or UNKNOWN."""
    named = retention["columns"].get("denominator")
    if named is not None:
        return str(named)
    human = known.get(retention["inputs"]["human"])
    return UNKNOWN if human is None else published_file(human) or TRAINED


def published_file(score: Record) -> str:
    """The name of the published file that an AP is of; empty where the segmenter was trained here."""
    columns = score.get("columns") or {}
    if columns.get("supervision") != "published":
        return ""
    return str(columns.get("published_file") or columns.get("printed_by") or "published weights")


def weakest(data: str) -> float:
    """The human-mask AP, in [0, 1], under which a ratio to it means nothing on a data set."""
    return WEAKEST.get(data, WEAKEST_ELSEWHERE)


def usable(one: Kept, known: Mapping[str, Record]) -> Record | str:
    """The retention, or why there is none to show."""
    found = one.retention
    if found is None:
        return "-"
    human = known.get(found["inputs"]["human"])
    if human is None:
        return "the AP with human masks is missing"
    least = weakest(one.score["columns"]["data"])
    if human["metrics"]["mask_ap"]["value"] < least:
        return f"too weak to divide by (human < {least:g})"
    if "retention" not in found["metrics"]:
        return "without a finite interval"  # a resample of the images has a human-mask AP of 0
    return found


def _by_score(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Address of an AP → its retentions, one for each AP that it was divided by: that of most resamples."""
    best: dict[tuple[str, str], Record] = {}
    for record in records:
        if record["stage"] == "retention":
            pair = record["inputs"]["pseudo"], record["inputs"]["human"]
            if pair not in best or _resamples(best[pair]) < _resamples(record):
                best[pair] = record
    return grouped(best.values(), lambda record: record["inputs"]["pseudo"])


def _kinds(score: Record, retentions: list[Record], known: Mapping[str, Record]) -> list[tuple[Kind, Record]]:
    """An AP's retentions, each with what its denominator has in common with those of other seeds.

    Where two of them differ in their own seed alone, the one of the AP's seed stands beside the other seeds' (of
    several others the first), and the rest by themselves.
    """
    named: dict[tuple[str, str], list[Record]] = {}
    for retention in retentions:
        human = known.get(retention["inputs"]["human"])
        kind = denominator(retention, known), "absent" if human is None else lineage(human, known)
        named.setdefault(kind, []).append(retention)
    found: list[tuple[Kind, Record]] = []
    for kind, some in named.items():
        some.sort(key=lambda one: _seed_of(one, known) != score["columns"].get("seed"))
        found += [((*kind, ""), some[0]), *(((*kind, one["inputs"]["human"]), one) for one in some[1:])]
    return found


def _seed_of(retention: Record, known: Mapping[str, Record]) -> object:
    return known.get(retention["inputs"]["human"], {"columns": {}})["columns"].get("seed")


def _told_apart(groups: Mapping[Kind, list[Kept]]) -> list[list[Kept]]:
    """The groups of some APs; a name that two of their denominators would have says the rest of their kind too."""
    names = [name for name, *_ in groups]
    told = []
    for (name, *rest), group in groups.items():
        more = f" ({' '.join(filter(None, rest))})" if name and names.count(name) > 1 else ""
        told.append([replace(one, over=one.over + more) if one.over else one for one in group])
    return told


def _files_told_apart(groups: list[list[Kept]], known: Mapping[str, Record]) -> list[list[Kept]]:
    """The same, where a name stands for one file: of two published files that are called alike each says its digest."""
    digests: dict[str, set[str]] = {}
    for group in groups:
        for one in group:
            digests.setdefault(one.over, set()).add(_digest(one, known))
    return [
        [replace(one, over=f"{one.over} ({_digest(one, known)})") if len(digests[one.over]) > 1 else one for one in g]
        for g in groups
    ]


def _digest(one: Kept, known: Mapping[str, Record]) -> str:
    """The start of the digest of the published file behind a denominator; empty where it was trained here."""
    human = known.get("" if one.retention is None else one.retention["inputs"]["human"])
    if human is None or not published_file(human):
        return ""
    detections = known.get(human["inputs"].get("predictions", ""), {"inputs": {}})
    segmenter = known.get(detections["inputs"].get("segmenter", ""), {})
    return str((segmenter.get("sources") or {}).get("weights", lineage(human, known)))[:8]


def _resamples(record: Record) -> int:
    return record["config"].get("resamples", 0)
