"""Ablations: results named by what they change, to be compared with those that change nothing."""

import re
from collections.abc import Iterable, Mapping

from analysis.columns import BELONGS, COLUMNS
from analysis.compare.resampled import ComparisonError, Runs
from analysis.lineage import ABSENT, Settings, differing, once, settings_of
from analysis.records import Record, address, grouped

UNCHANGED = "nothing"
SEVERAL = "; "  # between the changes of a name
# menu entries: each sets many settings
ENTRIES = [name for name, kind in COLUMNS.items() if name in BELONGS and kind == "str"]


def by_changes(records: Iterable[Record], known: Mapping[str, Record]) -> dict[str, Runs]:
    """Name → its runs by seed: `crf.zeta=0.1` is all that sets them apart; `UNCHANGED`, what they change, comes first.

    Changes are counted from the result that has most in common with all others. A menu entry (`decoder=fcn`) stands
    for the settings that come with it; where results of one entry differ in those, their names say them too.

    Raises:
        ComparisonError: two results have the same settings and seed.
    """
    settings = [(record, settings_of(record, known)) for record in once(records, known)]
    places = list(differing([own for _, own in settings]))
    base = min((own for _, own in settings), key=lambda own: _distance(own, settings, places), default={})
    groups: dict[str, Runs] = {}
    for name, alike in grouped(settings, lambda pair: _name(pair[1], base, places)).items():
        untold = list(differing([own for _, own in alike]))
        for record, own in alike:
            more = ", ".join(f"{_bare(place)}={own.get(place, ABSENT)}" for place in untold)
            runs = groups.setdefault(f"{name} ({more})" if more else name, {})
            seed = record["columns"].get("seed")
            if seed in runs:
                raise ComparisonError(
                    f"{address(runs[seed])} and {address(record)} have the same settings and seed; choose by --where"
                )
            runs[seed] = record
    names = sorted(groups, key=lambda name: (name != UNCHANGED, _in_order(name)))
    return {name: dict(sorted(groups[name].items(), key=lambda run: run[0] or 0)) for name in names}


def _distance(own: Settings, others: list[tuple[Record, Settings]], places: list[str]) -> int:
    return sum(own.get(name) != other.get(name) for _, other in others for name in places)


def _name(own: Settings, base: Settings, places: list[str]) -> str:
    changed = [name for name in places if own.get(name) != base.get(name)]
    covered = "|".join([BELONGS[name] for name in ENTRIES if name in changed] or ["(?!)"])
    told = {
        _bare(name): own.get(name, ABSENT)
        for name in changed
        if not re.fullmatch(covered, name) and (name in ENTRIES or name not in COLUMNS)
    }
    return SEVERAL.join(f"{name}={value}" for name, value in told.items()) or UNCHANGED


def _bare(name: str) -> str:
    """`train_labeler.crf.zeta` as it is set: `crf.zeta`; a column has no stage."""
    return name if name in COLUMNS else name.partition(".")[2]


def _in_order(name: str) -> tuple[str, float]:
    """By setting, then by the size of its number."""
    setting, _, value = name.partition("=")
    try:
        return setting, float(value)
    except ValueError:
        return name, 0.0
