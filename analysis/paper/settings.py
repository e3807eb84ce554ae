"""Which settings tell results apart: a column of the record first, else the dotted keys of the configs behind it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.denominators import published_file
from analysis.paper.results import Group, Results
from analysis.recipes import departures, shown
from analysis.records import Record
from analysis.seeds import SEEDED
from analysis.settings import weights_of

COLUMNS = ("recipe", "labeler", "encoder", "decoder", "theta", "segmenter")
MOST = 6  # differing keys that are listed where fewer tell all results apart; of more the number is said


def of_row(group: Group, usual: Mapping[str, Any], named: Sequence[str], results: Results) -> str:
    """The settings that neither a row's name says nor all rows of the paper share: `recipe=best encoder=vit_nano`.

    Those in which a result differs from what its recipe means today are among them, whatever the rows share.

    Args:
        usual: what all rows of the paper have. named: settings that the row's name says.
    """
    record = group[0].record
    columns = record["columns"]
    told = [name for name in COLUMNS if name in columns and name not in named and columns[name] != usual.get(name)]
    found = {name: columns[name] for name in told}
    if record["stage"] == "clustering_val":
        found |= {"source": record["config"]["source"], "weights": weights_of(record)}
    if record["stage"] == "quality_val":
        found["segmenter"] = "none"
    if file := published_file(record):
        found["published"] = file
        found |= {name: columns[name] for name in ("printed_mask_ap",) if name in columns}
    return " ".join([*(f"{name}={value}" for name, value in found.items()), *shown(departures(record, results.known))])


def apart(groups: Sequence[Group], results: Results) -> list[str]:
    """For each of some groups that a table names alike: the settings in which they differ, with its values."""
    if len(groups) == 1:
        return [""]
    every = [dict(_settings(group, results)) for group in groups]
    names = sorted({name for settings in every for name in settings})
    differing = [name for name in names if len({repr(settings.get(name)) for settings in every}) > 1]
    said = _telling(differing, every)
    said = sorted(dict.fromkeys([*said, *differing[: max(0, MOST - len(said))]]))
    more = f" and {len(differing) - len(said)} more settings" if len(differing) > len(said) else ""
    return [" ".join(f"{name}={_short(settings.get(name))}" for name in said) + more for settings in every]


def _telling(differing: Sequence[str], every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Few of the differing keys, whose values tell apart all that any key does: each the one that splits most."""
    found: list[str] = []

    def kinds(names: Sequence[str]) -> int:
        return len({tuple(repr(settings.get(name)) for name in names) for settings in every})

    while kinds(found) < kinds(differing):
        found.append(max(differing, key=lambda name: kinds([*found, name])))
    return found


def _settings(group: Group, results: Results) -> Iterator[tuple[str, Any]]:
    result = group[0]
    yield from _of_all(result.record, results, "")
    if result.retention is not None:
        human = results.known.get(result.retention["inputs"]["human"])
        if human is not None:
            yield from _of_all(human, results, "human:")


def _of_all(record: Record, results: Results, prefix: str) -> Iterator[tuple[str, Any]]:
    """stage.setting → value of a record and of all that it comes from, without the run's seed."""
    for name, ancestor in results.ancestors(record).items():
        stage = f"{prefix}{name.split('/')[0]}"
        if ancestor is None:
            yield stage, name.split("/")[1]  # its key stands for all that the store does not know of it
            continue
        config = {k: v for k, v in ancestor["config"].items() if k != "seed" or ancestor["stage"] not in SEEDED}
        yield f"{stage}.version", ancestor.get("version")
        yield from ((f"{stage}.{key}", value) for key, value in flat(config))
        yield from ((f"{stage}.sources.{key}", value[:8]) for key, value in (ancestor.get("sources") or {}).items())


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested config; a list is a value."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    return "-" if value is None else str(value).replace(" ", "")
