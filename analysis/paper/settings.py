"""Which settings tell results apart: a column of the record first, else the dotted keys of the configs behind it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from analysis.columns import METHOD
from analysis.denominators import published_file
from analysis.lineage import settings_behind, weights_of
from analysis.paper.results import Group, Result, Results
from analysis.recipes import departures, shown

COLUMNS = tuple(dict.fromkeys(["recipe", "labeler", *METHOD, "segmenter"]))
MOST = 6  # differing keys that are listed where fewer tell all results apart; of more the number is said


def of_row(group: Group, usual: Mapping[str, Any], named: Collection[str], results: Results) -> str:
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
    if record["stage"] == "quality_val" and "segmenter" not in named:
        found["segmenter"] = "none"
    if file := published_file(record):
        found["published"] = file
        found |= {name: columns[name] for name in ("printed_mask_ap",) if name in columns}
    return " ".join([*(f"{name}={value}" for name, value in found.items()), *shown(departures(record, results.known))])


def apart(groups: Sequence[Group], results: Results) -> list[str]:
    """For each of some groups that a table names alike: the settings in which they differ, with its values."""
    if len(groups) == 1:
        return [""]
    every = [_settings(group[0], results) for group in groups]
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


def _settings(result: Result, results: Results) -> dict[str, Any]:
    """All that is behind a result, and behind the AP with human masks that it is divided by."""
    found = dict(settings_behind(result.record, results.known))
    human = None if result.retention is None else results.known.get(result.retention["inputs"]["human"])
    if human is not None:
        found |= {f"human:{name}": value for name, value in settings_behind(human, results.known)}
    return {name: value[:8] if ".sources." in name else value for name, value in found.items()}


def _short(value: Any) -> str:
    return "-" if value is None else str(value).replace(" ", "")
