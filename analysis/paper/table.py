"""A table as data: the numbers that a paper prints, if it is one's, and which results of ours stand beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from analysis.paper.selection import Order, Text, Where, Words, said_columns, wanted_columns

UNITS = {  # → what a record's value is multiplied by, and its decimals in a cell
    "per cent": (100, 1),
    "fraction": (1, 3),
    "squared distance of unit vectors": (1, 3),
}
Scale = Mapping[str, Mapping[str, Any]]  # stage → setting (dotted) → value


@dataclass(frozen=True)
class Printed:
    """A decimal number as printed: it stands for all that round to it."""

    text: str

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError: it is no text of a number."""
        if not isinstance(self.text, str):
            raise TypeError(f"the number {self.text!r} needs quotes, to keep its decimals")
        Fraction(self.text)

    @property
    def value(self) -> Fraction:
        """Exactly what is printed."""
        return Fraction(self.text)

    @property
    def decimals(self) -> int:
        return len(self.text.partition(".")[2])

    @property
    def slack(self) -> Fraction:
        """Half a unit of the last decimal: 38.6 stands for 38.55 … 38.65, both ends included."""
        return Fraction(1, 2 * 10**self.decimals)


@dataclass(frozen=True)
class Identity:
    """A column of words that tells rows apart."""

    title: str
    text: Text  # what a result of ours is called in it


@dataclass(frozen=True)
class Quantity:
    """A column of numbers."""

    title: str
    unit: str  # one of UNITS
    measured: str | None  # a metric of our results, or retention, testdev, testdev_retention; None: none
    count: str = ""  # what its n counts
    interval: bool = False  # whether one has a column; those that the paper prints always have
    quotient_of: str = ""  # the printed number is that of the quantity, in per cent, over the row `over`'s
    note: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError: the unit is unknown."""
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} is none of {', '.join(UNITS)}")


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    id: str
    names: dict[str, str]
    printed: dict[str, Printed | None]
    over: str | None = None
    ours: dict[str, Any] | None = None
    scale: Scale = field(default_factory=dict)
    run: str | None = None
    remark: str | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence about the numbers, and what it says of which cells (see analysis/audit.py)."""

    where: str
    quote: str
    relation: str  # one of RELATIONS
    cells: Any  # a cell, or lists of cells, as the relation needs
    says: Printed | None


@dataclass(frozen=True)
class Slip:
    """A sentence that is wrong in a way that no arithmetic shows."""

    where: str
    quote: str
    remark: str


@dataclass(frozen=True)
class Beside:
    """A condition on results: another that is `alike` in some columns `has` something."""

    alike: list[str]
    has: Where


@dataclass(frozen=True)
class PaperTable:
    """A table: what a paper prints, if it is one's, and which results of ours belong to it."""

    file: Path
    name: str  # of its files, and of the experiment that computes it
    title: str
    identity: dict[str, Identity]
    quantities: dict[str, Quantity]
    results: list[Where]
    words: Words
    paper: str = "the paper"
    number: int | None = None  # in the paper
    experiment: str = ""  # where it is called otherwise than the table
    caption: str = ""
    remark: str | None = None
    more: dict[str, Quantity] = field(default_factory=dict)  # that the paper lacks; absent where no result has any
    beside: Beside | None = None
    order: Order = ()
    varied: str = ""  # the setting that the table compares, all else alike
    stacked: bool = False  # paper, ours and difference below each other, not side by side
    rows: tuple[Row, ...] = ()
    claims: tuple[Claim, ...] = ()
    slips: tuple[Slip, ...] = ()

    @property
    def place(self) -> str:
        """How the audit calls it."""
        if self.number is None:
            return self.title
        return f"Table {self.number}" + ("" if self.paper == "the paper" else f" of {self.paper}")

    def selects(self, stage: str) -> bool:
        """Whether results of a stage belong to it."""
        return any(where["stage"] == stage for where in self.results)

    def columns(self) -> Iterator[tuple[str, str]]:
        """Every column of our records that the file names, below its key."""
        for i, where in enumerate(self.results):
            yield from wanted_columns(where, f"results.{i}")
        for key, identity in self.identity.items():
            yield from ((f"identity.{key}", column) for column in said_columns(identity.text))
        for i, entry in enumerate(self.order):
            yield f"order.{i}", entry if isinstance(entry, str) else next(iter(entry))
        if self.beside is not None:
            yield from (("beside.alike", column) for column in self.beside.alike)
            yield from wanted_columns(self.beside.has, "beside.has")
        if self.varied:
            yield "varied", self.varied
        for row in self.rows:
            yield from ((f"rows.{row.id}.ours", column) for column in row.ours or ())

    def command(self, row: Row | None = None) -> str:
        """What computes the table, or one of its rows, at the paper's scale."""
        one = f" {row.run}" if row is not None and row.run is not None else ""
        return f"python experiments/run.py -m experiment={self.experiment or self.name} profile=paper{one}"
