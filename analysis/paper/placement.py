"""Which results stand beside the paper's rows, which below headings of their own, and which have no row."""

from dataclasses import dataclass
from typing import Any

from analysis.lineage import apart_from, settings_of
from analysis.paper.results import Group, Results
from analysis.paper.rows import columns_of, row_of, why_not_comparable
from analysis.paper.selection import matches
from analysis.paper.table import PaperTable
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

    Where in the whole table none can, those with an AP have a row, or all; a row of the paper is never left empty. A
    table that has no rows of a paper has no headings either.
    """
    groups = _with_partners(table, results.of_table(table))
    worth_a_row = _compared(table, groups, results) or [group for group in groups if _has_score(group)] or groups
    chosen = {id(group) for group in worth_a_row}

    def kept(some: list[Group]) -> list[Group]:
        return [group for group in some if id(group) in chosen]

    beside: dict[str, list[Group]] = {}
    below: dict[str, list[Group]] = {}
    for group in groups:
        row = row_of(table, group)
        reason = why_not_comparable(table, row, group, results) if table.rows else ""
        if row is not None and not reason:
            beside.setdefault(row.id, []).append(group)
        else:
            heading = f"Not comparable: {reason}" if reason else BESIDE if table.rows else ""
            below.setdefault(heading, []).append(group)
    beside = {name: kept(some) or some for name, some in beside.items()}
    below = {heading: kept(some) for heading, some in sorted(below.items()) if kept(some)}
    shown = sum(map(len, [*beside.values(), *below.values()]))
    return Placement(beside, below, len(groups) - shown)


def _with_partners(table: PaperTable, groups: list[Group]) -> list[Group]:
    """The results that the table's `beside` holds for."""
    if table.beside is None:
        return groups
    alike, has = table.beside.alike, table.beside.has
    columns = [columns_of(group) for group in groups]
    partners = {tuple(one.get(name) for name in alike) for one in columns if matches(one, has)}
    return [
        group for group, one in zip(groups, columns, strict=True) if tuple(one.get(name) for name in alike) in partners
    ]


def _compared(table: PaperTable, groups: list[Group], results: Results) -> list[Group]:
    """Of results that a table compares in one setting: those that have others beside them, all else alike.

    What was run for another table, or for an ablation of another setting, is no row of this one. APs stand
    beside APs of one segmenter, mean IoUs beside mean IoUs; where only the IoUs of some labels can be compared, those
    that a segmenter was trained on stand beside the others.
    """
    if not table.varied:
        return groups

    def alike(pairs: list[tuple[Group, Record]]) -> list[tuple[Group, tuple[Any, ...]]]:
        """The groups whose family has several values, and their family: all settings but the varied one."""
        values: dict[tuple[Any, ...], set[Any]] = {}
        families = []
        for group, record in pairs:
            family = tuple(sorted(apart_from(table.varied, settings_of(record, results.known)).items()))
            values.setdefault(family, set()).add(columns_of(group).get(table.varied))
            families.append((group, family))
        return [(group, family) for group, family in families if len(values[family]) > 1]

    by_score = [group for group, _ in alike([(group, group[0].record) for group in groups if _has_score(group)])]
    qualities = [(group, next((one.quality for one in group if one.quality is not None), None)) for group in groups]
    by_masks = alike([(group, quality) for group, quality in qualities if quality is not None])
    chosen = {id(group) for group in by_score}
    there = {(family, columns_of(g).get(table.varied)) for g, family in by_masks if id(g) in chosen}
    more = [g for g, family in by_masks if not (_has_score(g) and (family, columns_of(g).get(table.varied)) in there)]
    return by_score + more


def _has_score(group: Group) -> bool:
    """Whether it is more than the quality of masks."""
    return group[0].record["stage"] != "quality_val"
