"""Which results stand beside the paper's rows, which below headings of their own, and which have no row."""

from dataclasses import dataclass
from typing import Any

from analysis.lineage import apart_from, settings_of
from analysis.paper.results import Group, Results
from analysis.paper.rows import KINDS, Kind, columns_of, row_of, why_not_comparable
from analysis.paper_numbers import PaperTable
from analysis.records import Record

BESIDE = "At the paper's scale and on its data, but none of its rows"


@dataclass(frozen=True)
class Placement:
    """The places of a table's results."""

    beside: dict[str, list[Group]]  # a row of the paper → the results that are comparable with it
    below: dict[str, list[Group]]  # heading → results that have no number of the paper beside them
    left_out: int  # results without a row


def find_places(table: PaperTable, results: Results) -> Placement:
    """Find each result's place; where some results of a table can be compared in its setting, others have none.

    Where in the whole table none can, those with an AP have a row, or all; a row of the paper is never left empty.
    """
    kind = KINDS[table.name]
    groups = kind.groups(results)
    worth_a_row = _compared(kind, groups, results) or [group for group in groups if _has_score(group)] or groups
    chosen = {id(group) for group in worth_a_row}

    def kept(some: list[Group]) -> list[Group]:
        return [group for group in some if id(group) in chosen]

    beside: dict[str, list[Group]] = {}
    below: dict[str, list[Group]] = {}
    for group in groups:
        row = row_of(table, group)
        reason = why_not_comparable(table, row, group, results)
        if row is not None and not reason:
            beside.setdefault(row.id, []).append(group)
        else:
            below.setdefault(f"Not comparable: {reason}" if reason else BESIDE, []).append(group)
    beside = {name: kept(some) or some for name, some in beside.items()}
    below = {heading: kept(some) for heading, some in sorted(below.items()) if kept(some)}
    shown = sum(map(len, [*beside.values(), *below.values()]))
    return Placement(beside, below, len(groups) - shown)


def _compared(kind: Kind, groups: list[Group], results: Results) -> list[Group]:
    """Of results that a table compares in one setting: those that have others beside them, all else alike.

    What was run for one of Tables 3 to 5, or for an ablation of another setting, is no row of the others. APs stand
    beside APs of one segmenter, mean IoUs beside mean IoUs; where only the IoUs of some labels can be compared, those
    that a segmenter was trained on stand beside the others.
    """
    if not kind.varied:
        return groups

    def alike(pairs: list[tuple[Group, Record]]) -> list[tuple[Group, tuple[Any, ...]]]:
        """The groups whose family has several values, and their family: all settings but the varied one."""
        values: dict[tuple[Any, ...], set[Any]] = {}
        families = []
        for group, record in pairs:
            family = tuple(sorted(apart_from(kind.varied, settings_of(record, results.known)).items()))
            values.setdefault(family, set()).add(columns_of(group).get(kind.varied))
            families.append((group, family))
        return [(group, family) for group, family in families if len(values[family]) > 1]

    by_score = [group for group, _ in alike([(group, group[0].record) for group in groups if _has_score(group)])]
    qualities = [(group, next((one.quality for one in group if one.quality is not None), None)) for group in groups]
    by_masks = alike([(group, quality) for group, quality in qualities if quality is not None])
    chosen = {id(group) for group in by_score}
    there = {(family, columns_of(g)[kind.varied]) for g, family in by_masks if id(g) in chosen}
    more = [g for g, family in by_masks if not (_has_score(g) and (family, columns_of(g)[kind.varied]) in there)]
    return by_score + more


def _has_score(group: Group) -> bool:
    """Whether a segmenter was trained on the masks."""
    return group[0].record["stage"] == "ap_val"
