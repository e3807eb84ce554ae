"""Do the paper's printed numbers follow from one another? `python -m analysis.audit`

Each printed retention is computed again from the printed APs, and each claim of the text from the cells that it is
about. A printed number stands for all that round to it (38.6 for 38.55 … 38.65), so there are three verdicts:

  agrees           the printed numbers themselves give it
  within rounding  they do not, but numbers that round to them do
  cannot follow    no numbers that round to them do

Then printed numbers that are those of a public zoo's models under other names (analysis/zoo.py).
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from analysis.paper.table import Claim, PaperTable, Printed
from analysis.paper_numbers import PaperNumbersError, find_cell, find_row, load
from analysis.rendering import Table, markdown
from analysis.sources import command
from analysis.zoo import report as zoo_report

AGREES, ROUNDING, CANNOT = "agrees", "within rounding", "cannot follow"
Cell = Callable[[str], "Interval"]


@dataclass(frozen=True)
class Interval:
    """A number that is somewhere in [low, high], both ends included; `value` if the printed ones are exact."""

    value: Fraction
    low: Fraction
    high: Fraction

    @classmethod
    def of(cls, printed: Printed) -> "Interval":
        """All numbers that round to a printed one."""
        return cls(printed.value, printed.value - printed.slack, printed.value + printed.slack)

    def __sub__(self, other: "Interval") -> "Interval":
        return Interval(self.value - other.value, self.low - other.high, self.high - other.low)

    def over(self, other: "Interval") -> "Interval":
        """This over another, in per cent; both positive."""
        return Interval(100 * self.value / other.value, 100 * self.low / other.high, 100 * self.high / other.low)


@dataclass(frozen=True)
class Finding:
    """A printed retention or a claim, beside what the printed numbers give."""

    place: str
    printed: str
    computed: str
    interval: str
    verdict: str
    remark: str = ""


def retentions(tables: Mapping[str, PaperTable]) -> Iterator[Finding]:
    """Every printed retention beside the quotient of the printed APs."""
    for table in tables.values():
        for row in table.rows:
            for retention, quantity in table.quantities.items():
                ap, printed = quantity.quotient_of, row.printed[retention]
                if not ap or printed is None:
                    continue
                above = row.printed[ap]
                if above is None or row.over is None:
                    raise PaperNumbersError(f"results/paper: {table.name}.{row.id} has a {retention} without its APs")
                below = find_row(row.over, table, tables).printed[ap]
                if below is None:
                    raise PaperNumbersError(f"results/paper: {table.name}.{row.id} is over a row without {ap}")
                quotient = Interval.of(above).over(Interval.of(below))
                remark = f"{above.text} / {below.text}"
                place = f"{table.place}, {_words(row.names)}, {quantity.title}"
                yield _finding(place, printed, quotient, remark)


def claims(tables: Mapping[str, PaperTable]) -> Iterator[Finding]:
    """Every claim of captions and text beside what the cells give."""
    for table in tables.values():
        for claim in table.claims:
            yield _check(claim, table, tables)


def verdict(printed: Printed, computed: Interval) -> str:
    """Whether a printed number follows from those that an interval was computed from."""
    said = Interval.of(printed)
    if said.low <= computed.value <= said.high:
        return AGREES
    return ROUNDING if computed.low <= said.high and said.low <= computed.high else CANNOT


def _check(claim: Claim, table: PaperTable, tables: Mapping[str, PaperTable]) -> Finding:
    place = f"{table.place}, {claim.where}: {claim.quote}"

    def cell(reference: str) -> Interval:
        return Interval.of(find_cell(reference, table, tables))

    if claim.relation == "larger":
        return _larger(place, claim, cell)
    if claim.relation == "opposite_order":
        return _opposite_order(place, claim, cell)
    if claim.relation == "within":
        return _within(place, claim, cell)
    if claim.says is None:
        raise PaperNumbersError(f"results/paper: {place} says no number")
    return _finding(place, claim.says, COMPUTED[claim.relation](claim.cells, cell))


def _mean(intervals: list[Interval]) -> Interval:
    ends = zip(*((i.value, i.low, i.high) for i in intervals), strict=True)
    return Interval(*(sum(end, Fraction(0)) / len(intervals) for end in ends))


def _extreme(pick: Callable[..., Fraction]) -> Callable[[list[str], Cell], Interval]:
    def computed(references: list[str], cell: Cell) -> Interval:
        found = [cell(reference) for reference in references]
        return Interval(pick(i.value for i in found), pick(i.low for i in found), pick(i.high for i in found))

    return computed


COMPUTED: dict[str, Callable[..., Interval]] = {
    "value": lambda reference, cell: cell(reference),
    "difference": lambda pair, cell: cell(pair[0]) - cell(pair[1]),
    "mean_difference": lambda pairs, cell: _mean([cell(a) - cell(b) for a, b in pairs]),
    "largest": _extreme(max),
    "smallest": _extreme(min),
}


def _larger(place: str, claim: Claim, cell: Cell) -> Finding:
    """Each pair's first is the larger: it agrees as printed, or could be before rounding, or cannot."""
    gaps = {f"{a} > {b}": cell(a) - cell(b) for a, b in claim.cells}
    wrong = {pair: gap for pair, gap in gaps.items() if gap.value <= 0}
    impossible = [pair for pair, gap in wrong.items() if gap.high <= 0]
    return _counted(place, "all", len(gaps), list(wrong), impossible)


def _within(place: str, claim: Claim, cell: Cell) -> Finding:
    """Every cell lies in the claimed range: as printed, or where the range's ends were rounded, or not."""
    low, high = map(Printed, claim.cells["range"])
    found = {reference: cell(reference) for reference in claim.cells["cells"]}
    outside = [name for name, i in found.items() if not low.value <= i.value <= high.value]
    bottom, top = Interval.of(low).low, Interval.of(high).high
    far = [name for name in outside if found[name].high < bottom or found[name].low > top]
    named = {name: f"{name} ({float(i.value):g})" for name, i in found.items()}
    claimed = f"{low.text} to {high.text}"
    return _counted(place, claimed, len(found), [named[name] for name in outside], [named[name] for name in far])


def _opposite_order(place: str, claim: Claim, cell: Cell) -> Finding:
    """The second list of cells rises where the first falls; printed ties are no contradiction."""
    first, second = ([cell(reference) for reference in references] for references in claim.cells)
    pairs = list(combinations(range(len(first)), 2))
    wrong = [(i, j) for i, j in pairs if (first[i].value - first[j].value) * (second[i].value - second[j].value) > 0]
    sure = [
        (i, j)
        for i, j in wrong
        if all(gap.low > 0 or gap.high < 0 for gap in (first[i] - first[j], second[i] - second[j]))
    ]
    named = {(i, j): f"{claim.cells[0][i]} and {claim.cells[0][j]}" for i, j in wrong}
    return _counted(place, "all pairs", len(pairs), list(named.values()), [named[pair] for pair in sure])


def _counted(place: str, claimed: str, count: int, wrong: list[str], impossible: list[str]) -> Finding:
    """Of how many things a claim holds as printed; which do not, and which could not before rounding either."""
    found = CANNOT if impossible else ROUNDING if wrong else AGREES
    held = f"{count - len(wrong)} of {count}"
    return Finding(place, claimed, held, "-", found, "; ".join(f"not {name}" for name in impossible or wrong))


def _finding(place: str, printed: Printed, computed: Interval, remark: str = "") -> Finding:
    digits = printed.decimals + 2
    ends = f"{float(computed.low):.{digits}f} … {float(computed.high):.{digits}f}"
    return Finding(place, printed.text, f"{float(computed.value):.{digits}f}", ends, verdict(printed, computed), remark)


def _words(names: Mapping[str, str]) -> str:
    return ", ".join(name for name in names.values() if name not in ("-", "Box"))


def report(tables: Mapping[str, PaperTable]) -> list[Table]:
    """What cannot follow, what only rounding explains, claims, numbers of a public zoo, and other slips."""
    ratios, said = list(retentions(tables)), list(claims(tables))
    titles = {
        CANNOT: "Printed retentions that cannot follow from the printed APs",
        ROUNDING: "Printed retentions that follow from APs that round to the printed ones, not from these themselves",
    }
    parts = []
    for name, title in titles.items():
        found = [finding for finding in ratios if finding.verdict == name]
        parts.append(
            Table(
                f"audit_{name.replace(' ', '_')}",
                title,
                ("where", "printed APs", "printed", "computed", "possible"),
                tuple((f.place, f.remark, f.printed, f.computed, f.interval) for f in found),
                (f"{len(found)} of {len(ratios)} printed retentions.",),
                text=frozenset({"where", "printed APs"}),
            )
        )
    order = [CANNOT, ROUNDING, AGREES]
    said.sort(key=lambda finding: order.index(finding.verdict))
    return [
        *parts,
        Table(
            "audit_claims",
            "What captions and text claim of the numbers",
            ("verdict", "says", "computed", "possible", "claim", "remark"),
            tuple((f.verdict, f.printed, f.computed, f.interval, f.place, f.remark) for f in said),
            wide=frozenset({"claim", "remark"}),
        ),
        zoo_report(tables),
        Table(
            "audit_slips",
            "Slips found by reading, not by computation",
            ("where", "says", "remark"),
            tuple((f"{t.place}, {s.where}", s.quote, s.remark) for t in tables.values() for s in t.slips),
            wide=frozenset({"says", "remark"}),
        ),
    ]


@command
def main(arguments: Sequence[str] | None) -> None:
    """Print the audit."""
    argparse.ArgumentParser(prog="python -m analysis.audit", description=__doc__.splitlines()[0]).parse_args(arguments)
    print("\n".join(markdown(table) for table in report(load())))


if __name__ == "__main__":
    sys.exit(main())
