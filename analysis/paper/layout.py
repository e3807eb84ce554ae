"""A table of a paper with ours beside it: its rows, then others at its scale, then what is not comparable.

Every row is of results that differ in their seed alone. Unlike settings are rows of their own, which say what differs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from analysis.denominators import TRAINED, in_words, must_be_said, trained_here
from analysis.paper import measured, settings
from analysis.paper.notes import notes
from analysis.paper.placement import Placement, find_places
from analysis.paper.results import Group, Results
from analysis.paper.rows import columns_of
from analysis.paper.selection import DERIVED, cell, place, said_columns
from analysis.paper.table import PaperTable, Quantity, Row
from analysis.records import came_from
from analysis.rendering import Table

SIDES = PAPERS, OURS, INTERVAL, DIFFERENCE = "paper", "ours", "95 % interval", "difference"
EACH, SETTINGS, COMMAND = "each seed", "settings", "computed by"
MISSING = "missing"  # from the store: the row's command computes it
ABOUT = ("seeds", "n", "profile", "data", "commit", SETTINGS, COMMAND)
SERVERS = ("testdev", "testdev_retention")  # what no command of ours computes
Cells = dict[str, str]


@dataclass(frozen=True)
class Builder:
    """A table, the store's results, and all that papers printed."""

    table: PaperTable
    results: Results
    tables: Mapping[str, PaperTable]

    @cached_property
    def placed(self) -> Placement:
        return find_places(self.table, self.results)

    @cached_property
    def says_denominators(self) -> bool:
        groups = [group for some in (self.placed.beside, self.placed.below) for part in some.values() for group in part]
        named = (result.over for group in groups for result in group)
        return must_be_said(TRAINED if trained_here(over) else over for over in named)

    def build(self) -> Table:
        """The table."""
        parts = {"The paper's rows": list(self._papers())} if self.table.rows else {}
        parts |= {heading: list(self._others(groups)) for heading, groups in self.placed.below.items()}
        lines = [line for part in parts.values() for line in part]
        filled = {name for line in lines for name, cell in line.items() if cell}
        optional = {EACH, *(name for quantity in self.table.more.values() for name in _more_sides(quantity))}
        header = [name for name in self._header() if name in filled or name not in optional]
        headings: list[tuple[int, str]] = []
        rows: list[tuple[str, ...]] = []
        for heading, part in parts.items():
            headings += [(len(rows), heading)] if heading else []
            rows += [tuple(line.get(name, "") for name in header) for line in part]
        words = {*self._titles().values(), "numbers", "profile", "data", "commit"}
        of_paper = f" (Table {self.table.number} of {self.table.paper})" if self.table.number else ""
        return Table(
            name=self.table.name,
            title=f"{self.table.title}{of_paper}",
            header=tuple(header),
            rows=tuple(rows),
            notes=(*notes(self.table, self.tables, header), *self._left_out()),
            headings=tuple(headings),
            text=frozenset(words & set(header)),
            wide=frozenset({SETTINGS, COMMAND, EACH} & set(header)),
        )

    def _left_out(self) -> Iterator[str]:
        if count := self.placed.left_out:
            which = "1 result with nothing beside it" if count == 1 else f"{count} results with nothing beside them"
            command = "python -m analysis.compare --by changes"
            yield f"Left out: {which} that differs in this table's setting alone ({command})."

    def _papers(self) -> Iterator[Cells]:
        """The paper's rows in its order, each with every result of ours that is comparable with it."""
        for row in self.table.rows:
            groups = self.placed.beside.get(row.id, [])
            names = self._named(row.names)
            for group, said in zip(groups, self._told(groups, [names] * len(groups)), strict=True):
                yield from self._lines(names, row, group, said)
            if not groups:
                yield from self._lines(names, row, None, "")

    def _others(self, groups: list[Group]) -> Iterator[Cells]:
        """Results that have no number of the paper beside them, in its order of rows, then by their settings."""
        words, order = self.table.words, self.table.order
        texts = {key: identity.text for key, identity in self.table.identity.items()}
        columns = [columns_of(group) for group in groups]
        names = [self._named({key: cell(text, one, words) for key, text in texts.items()}) for one in columns]
        told = self._told(groups, names)

        def placed(index: int) -> tuple[object, ...]:
            record = groups[index][0].record
            listed = place(columns[index], order, words)
            return listed, record["columns"].get("segmenter", ""), told[index], record["key"]

        for index in sorted(range(len(groups)), key=placed):
            yield from self._lines(names[index], None, groups[index], told[index])

    def _lines(self, names: Cells, row: Row | None, group: Group | None, said: str) -> Iterator[Cells]:
        """A row of cells; of a stacked table one for the paper's numbers, one for ours, one for the difference."""
        about = {**self._about(group), SETTINGS: said, COMMAND: self._command(row, group)}
        quantities = self.table.quantities.items()
        cells = {key: self._cells(key, quantity, row, group) for key, quantity in quantities}
        if not self.table.stacked:
            sides = {name: cells[key].get(side, "") for key, q in quantities for side, name in self._sides(q).items()}
            yield {**names, **sides, **about}
            return
        lines = {side: {q.title: cells[key].get(side, "") for key, q in quantities} for side in SIDES}
        empty = {"", measured.NOTHING}  # a row "as written" has no numbers of the paper
        kept = [w for w in lines if any(lines[w].values()) and (w != PAPERS or set(lines[w].values()) - empty)]
        for which in kept:
            yield {**names, "numbers": which, **lines[which], **(about if which == OURS or OURS not in kept else {})}

    def _cells(self, key: str, quantity: Quantity, row: Row | None, group: Group | None) -> Cells:
        printed = None if row is None else row.printed[key]
        papers = "" if row is None else measured.NOTHING if printed is None else printed.text
        if quantity.measured is None or (group is None and (row is None or row.run is None)):
            return {PAPERS: papers}
        if group is None:
            return {PAPERS: papers, OURS: MISSING if _has(row, quantity) else measured.NOTHING, DIFFERENCE: ""}
        ours = measured.measure(quantity, group, self.results)
        numbers = {OURS: ours.cell, INTERVAL: measured.intervals(quantity, group, self.results)}
        if row is None:
            return {PAPERS: "", **numbers}
        difference = ours.difference(printed)
        return {PAPERS: papers, **numbers, DIFFERENCE: "" if difference == measured.NOTHING else difference}

    def _about(self, group: Group | None) -> Cells:
        """What is said of results beside their numbers; the cells of a row without results stay empty."""
        if group is None:
            return {}
        each = {q.title: measured.measure(q, group, self.results).each for q in self._measured()}
        more: Cells = {}
        for quantity in self.table.more.values():
            ours = measured.measure(quantity, group, self.results)
            sides = (ours.cell if ours.mean is not None else "", measured.intervals(quantity, group, self.results))
            more |= dict(zip(_more_sides(quantity), sides, strict=False))
        return {
            **more,
            EACH: "; ".join(f"{q}: {one}" for q, one in each.items() if set(one) - set("-, ")) if group[1:] else "",
            "seeds": ", ".join("-" if result.seed is None else str(result.seed) for result in group),
            "n": measured.count([*self.table.quantities.values(), *self.table.more.values()], group),
            "profile": " and ".join(sorted({result.record["columns"]["profile"] for result in group})),
            "data": columns_of(group)["data"],
            "commit": measured.commits(group, self.results),
        }

    def _told(self, groups: list[Group], names: list[Cells]) -> list[str]:
        """What the rows' names leave open of each group's settings, and, of those still alike, all that differs."""
        rows = [row.ours for row in self.table.rows if row.ours is not None]
        usual = {k: v for k, v in (rows[0] if rows else {}).items() if all(row.get(k) == v for row in rows)}
        said_by_name = {c for identity in self.table.identity.values() for c in said_columns(identity.text)}
        named = {DERIVED.get(column, column) for column in said_by_name}
        if not self.table.selects("ap_val"):
            named.add("segmenter")
        said = [
            "; ".join(filter(None, parts))
            for parts in (
                (settings.of_row(group, usual, named, self.results), self._divided_by(group), _apart(group))
                for group in groups
            )
        ]
        told = list(said)
        alike: dict[tuple[str, ...], list[int]] = {}
        for i, (name, text) in enumerate(zip(names, said, strict=True)):
            alike.setdefault((*name.values(), text), []).append(i)
        for places in alike.values():
            for i, text in zip(places, settings.apart([groups[i] for i in places], self.results), strict=True):
                told[i] = "; ".join(filter(None, (said[i], text)))
        return told

    def _divided_by(self, group: Group) -> str:
        """A group's denominator, where one of the table's is a published segmenter's.

        Those trained here are told apart by their settings (`settings.apart`).
        """
        over = next((result.over for result in group if result.over), "")
        return in_words(TRAINED if trained_here(over) else over) if over and self.says_denominators else ""

    def _command(self, row: Row | None, group: Group | None) -> str:
        """What computes a row of the paper that the store lacks, or lacks a part of."""
        if row is None:
            return ""
        if row.run is None:
            return "quoted by the paper"
        expected = [q for q in self._measured() if q.measured not in SERVERS and _has(row, q)]
        whole = group is not None and all(
            measured.measure(q, group, self.results).cell not in measured.ABSENT for q in expected
        )
        return "" if whole else self.table.command(row)

    def _measured(self) -> list[Quantity]:
        return [quantity for quantity in self.table.quantities.values() if quantity.measured is not None]

    def _titles(self) -> Cells:
        return {key: identity.title for key, identity in self.table.identity.items()}

    def _named(self, names: Cells) -> Cells:
        return {title: names[key] for key, title in self._titles().items()}

    def _header(self) -> list[str]:
        quantities, more = self.table.quantities.values(), self.table.more.values()
        numbers = [name for quantity in quantities for name in self._sides(quantity).values()]
        if self.table.stacked:
            numbers = ["numbers", *(quantity.title for quantity in quantities)]
        about = [name for name in ABOUT if self.table.rows or name != COMMAND]
        return [*self._titles().values(), *numbers, *(name for q in more for name in _more_sides(q)), EACH, *about]

    def _sides(self, quantity: Quantity) -> dict[str, str]:
        """What of a quantity has a column → its heading; without a paper's rows that is ours alone."""
        if not self.table.rows:
            return {OURS: quantity.title, INTERVAL: f"{quantity.title}, {INTERVAL}"}
        if quantity.measured is None:
            return {PAPERS: quantity.title}
        return {
            side: f"{quantity.title}, {side}" for side in SIDES if side != INTERVAL or quantity.measured not in SERVERS
        }


def _has(row: Row | None, quantity: Quantity) -> bool:
    """Whether a row of ours has a quantity: there is no retention of human masks."""
    human = row is not None and row.ours is not None and row.ours.get("supervision") == "human"
    return not (human and quantity.measured in ("retention", "testdev_retention"))


def _apart(group: Group) -> str:
    """What a group comes from that is published as it ended elsewhere."""
    names = dict.fromkeys(name for result in group for name in came_from(result.record))
    return f"of another {' and '.join(names)} than is published" if names else ""


def _more_sides(quantity: Quantity) -> tuple[str, ...]:
    title = quantity.title
    return (title, f"{title}, {INTERVAL}") if quantity.interval else (title,)
