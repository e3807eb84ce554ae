"""A table of the paper with ours beside it: its rows, then others at its scale, then what is not comparable.

Every row is of results that differ in their seed alone. Unlike settings are rows of their own, which say what differs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from analysis.audit import CANNOT, retentions
from analysis.denominators import TRAINED, in_words, must_be_said, trained_here
from analysis.paper import measured, settings
from analysis.paper.placement import Placement, find_places
from analysis.paper.results import Group, Results
from analysis.paper.rows import KINDS, Kind, columns_of
from analysis.paper_numbers import PaperTable, Quantity, Row
from analysis.rendering import Table

PAPERS, OURS, INTERVAL, DIFFERENCE = "paper", "ours", "95 % interval", "difference"
IOU, IOU_INTERVAL, EACH = "mask IoU", "mask IoU, 95 % interval", "each seed"
SETTINGS, COMMAND = "settings", "computed by"
MISSING = "missing"  # from the store: the row's command computes it
ABOUT = ("seeds", "n", "profile", "data", "commit", SETTINGS, COMMAND)
SERVERS = ("testdev", "testdev_retention")  # what no command of ours computes
STACKED = ("tab7_detection",)  # six quantities: paper, ours and difference below each other, not side by side
Cells = dict[str, str]


@dataclass(frozen=True)
class Builder:
    """One of the paper's tables, the store's results, and all that the paper printed."""

    table: PaperTable
    results: Results
    tables: Mapping[str, PaperTable]

    @property
    def kind(self) -> Kind:
        return KINDS[self.table.name]

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
        parts = {"The paper's rows": list(self._papers())}
        parts |= {heading: list(self._others(groups)) for heading, groups in self.placed.below.items()}
        lines = [line for part in parts.values() for line in part]
        filled = {name for line in lines for name, cell in line.items() if cell}
        header = [name for name in self._header() if name in filled or name not in self._optional()]
        headings: list[tuple[int, str]] = []
        rows: list[tuple[str, ...]] = []
        for heading, part in parts.items():
            headings.append((len(rows), heading))
            rows += [tuple(line.get(name, "") for name in header) for line in part]
        words = {*self.table.identity.values(), "numbers", "profile", "data", "commit"}
        return Table(
            name=self.table.name,
            title=f"{self.table.title} (Table {self.table.number} of the paper)",
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
        names = [self._named(self.kind.names(columns_of(group))) for group in groups]
        told = self._told(groups, names)

        def place(index: int) -> tuple[object, ...]:
            columns = columns_of(groups[index])
            key = groups[index][0].record["key"]
            return *self.kind.place(columns), columns.get("segmenter", ""), told[index], key

        for index in sorted(range(len(groups)), key=place):
            yield from self._lines(names[index], None, groups[index], told[index])

    def _lines(self, names: Cells, row: Row | None, group: Group | None, said: str) -> Iterator[Cells]:
        """A row of cells; of a stacked table one for the paper's numbers, one for ours, one for the difference."""
        about = {**self._about(group), SETTINGS: said, COMMAND: self._command(row, group)}
        if self.table.name not in STACKED:
            found: Cells = {}
            for key, quantity in self.table.quantities.items():
                for which, cell in self._cells(key, quantity, row, group).items():
                    found[_side(quantity, which)] = cell
            yield {**names, **found, **about}
            return
        lines: dict[str, Cells] = {}
        for key, quantity in self.table.quantities.items():
            for which, cell in self._cells(key, quantity, row, group).items():
                lines.setdefault(which, {})[quantity.title] = cell
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
        of_seeds = {}
        if len(group) > 1:
            several = {q.title: measured.measure(q, group, self.results).each for q in self._measured()}
            of_seeds = {
                EACH: "; ".join(f"{title}: {each}" for title, each in several.items() if set(each) - set("-, "))
            }
        return {
            IOU: measured.iou(group) if self.kind.quality else "",
            IOU_INTERVAL: measured.iou_intervals(group, self.results) if self.kind.quality else "",
            **{title: measured.more(name, group, 100, 1) for name, title in measured.MORE.items()},
            **{title: measured.more(name, group, 1, 3) for name, title in measured.MORE_CLUSTERING.items()},
            **of_seeds,
            "seeds": ", ".join(str(result.seed) for result in group),
            "n": measured.count(group),
            "profile": " and ".join(sorted({result.record["columns"]["profile"] for result in group})),
            "data": columns_of(group)["data"],
            "commit": measured.commits(group, self.results),
        }

    def _told(self, groups: list[Group], names: list[Cells]) -> list[str]:
        """What the rows' names leave open of each group's settings, and, of those still alike, all that differs."""
        rows = [row.ours for row in self.table.rows if row.ours is not None]
        usual = {key: value for key, value in rows[0].items() if all(row.get(key) == value for row in rows)}
        said = [
            "; ".join(
                filter(None, (settings.of_row(group, usual, self.kind.named, self.results), self._divided_by(group)))
            )
            for group in groups
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

    def _named(self, names: Cells) -> Cells:
        return {title: names[key] for key, title in self.table.identity.items()}

    def _header(self) -> list[str]:
        quantities = [*self.table.quantities.values()]
        if self.table.name in STACKED:
            numbers = ["numbers", *(quantity.title for quantity in quantities)]
        else:
            numbers = [_side(q, which) for q in quantities for which in _sides(q)]
        return [*self.table.identity.values(), *numbers, *self._optional(), *ABOUT]

    def _optional(self) -> list[str]:
        """Columns that are left out where no row has anything in them."""
        return [IOU, IOU_INTERVAL, *measured.MORE.values(), *measured.MORE_CLUSTERING.values(), EACH]


def notes(table: PaperTable, tables: Mapping[str, PaperTable], header: list[str]) -> Iterator[str]:
    """How to read a table, and what the paper leaves open or contradicts."""
    units = dict.fromkeys(quantity.unit for quantity in table.quantities.values())
    yield f"Unit: {', '.join(units)}. Of several seeds: their mean (lowest … highest). Differences are ours - paper's."
    yield (
        "95 % interval: percentile bootstrap over the validation images, of one seed at a time; a retention's two APs "
        "are resampled together. An AP of few objects a category is too high; its interval is bias-corrected, which "
        "mends a part of that (analysis/stats.py)."
    )
    if IOU in header:
        yield "mask IoU (0 to 1): mean over the instances of the validation images, before any segmenter."
    if table.name == "tab1_coco":
        yield (
            "test-dev: results/testdev.yaml holds what COCO's server said; a run makes the file to submit where "
            "data.test.annotations and data.test.images are set (experiments/conf/data/coco.yaml)."
        )
    yield "The commands need data.root=FOLDER, the place of the data, unless experiments/conf/local.yaml names it."
    if table.remark:
        yield f"The paper: {table.remark}"
    for row in table.rows:
        if row.remark:
            yield f"The paper, {row.id}: {row.remark}"
    for slip in table.slips:
        yield f"The paper, {slip.where}: “{slip.quote}”. {slip.remark}"
    for finding in retentions(tables):
        if finding.verdict == CANNOT and finding.place.startswith(f"Table {table.number},"):
            yield (
                f"The paper's numbers contradict each other: {finding.place} is printed as {finding.printed}, but "
                f"{finding.remark} gives {finding.interval} (python -m analysis.audit)."
            )


def _has(row: Row | None, quantity: Quantity) -> bool:
    """Whether a row of ours has a quantity: there is no retention of human masks."""
    human = row is not None and row.ours is not None and row.ours.get("supervision") == "human"
    return not (human and quantity.measured in ("retention", "testdev_retention"))


def _side(quantity: Quantity, which: str) -> str:
    return quantity.title if quantity.measured is None else f"{quantity.title}, {which}"


def _sides(quantity: Quantity) -> tuple[str, ...]:
    if quantity.measured is None:
        return (PAPERS,)
    return (PAPERS, OURS, DIFFERENCE) if quantity.measured in SERVERS else (PAPERS, OURS, INTERVAL, DIFFERENCE)
