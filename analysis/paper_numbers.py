"""Every number of the paper's Tables 1 to 7, as printed: results/paper/tab1.yaml … tab7.yaml.

A file has the table's caption, its `identity` columns (key → heading), its `quantities` (key → heading, unit, and which
of our results it is `measured` by), and `rows`:

  id       a name inside the table; a cell is ID.QUANTITY, from another table TABLE.ID.QUANTITY
  names    what identifies the row, in the paper's words; ours in brackets
  printed  quantity → the number as printed, with its decimals, or "-"
  over     the row with human masks that its retention divides by (ID or TABLE.ID)
  ours     the settings of our results that are this row's, beside those of the whole table; absent for quoted rows
  scale    stage → setting → the value that the paper (or, for schedules, the released configs) trains with
  run      what `python experiments/run.py -m experiment=NAME profile=paper` needs to compute this row alone

`as_written` repeats rows whose names the paper got wrong. The printed numbers stand beside results of what they most
likely are numbers of; the row ID_as_written, without printed numbers, is for what the name says. `of` is the ID,
`names` and `ours` are what differs.

`claims` are sentences about the numbers, as data for the audit; `slips` are those that no arithmetic shows. zoo.yaml
(analysis/zoo.py) has the numbers of a public zoo that the paper repeats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mal.errors import MalError

PAPER = Path(__file__).resolve().parents[1] / "results" / "paper"
RELATIONS = ("value", "difference", "mean_difference", "largest", "smallest", "larger", "within", "opposite_order")
Scale = Mapping[str, Mapping[str, Any]]  # stage → setting (dotted) → value


class PaperNumbersError(MalError):
    """The files of the paper's numbers are missing or do not fit together."""


@dataclass(frozen=True)
class Printed:
    """A decimal number as printed: it stands for all that round to it."""

    text: str

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
class Quantity:
    """A column of numbers."""

    title: str
    unit: str
    measured: str | None  # which of our results: a metric, or retention, testdev, testdev_retention; None: none


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
class PaperTable:
    """One of the paper's tables."""

    number: int
    name: str  # of the experiment that computes it
    title: str
    caption: str
    identity: dict[str, str]
    quantities: dict[str, Quantity]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    slips: tuple[Slip, ...]
    remark: str | None

    def command(self, row: Row | None = None) -> str:
        """What computes the table, or one of its rows, at the paper's scale."""
        one = f" {row.run}" if row is not None and row.run is not None else ""
        return f"python experiments/run.py -m experiment={self.name} profile=paper{one}"


@cache
def load(folder: Path = PAPER) -> dict[str, PaperTable]:
    """All tables by name, in the paper's order.

    Raises:
        PaperNumbersError: a file is missing, or something in it has no meaning.
    """
    paths = sorted(folder.glob("tab*.yaml"))
    if not paths:
        raise PaperNumbersError(
            f"{folder} holds no tab1.yaml …; analysis/ reads them from a checkout of the repository"
        )
    return {table.name: table for table in map(_read, paths)}


def find_row(reference: str, table: PaperTable, tables: Mapping[str, PaperTable]) -> Row:
    """The row ID of a table, or TABLE.ID of another.

    Raises:
        PaperNumbersError: there is none.
    """
    other, _, name = reference.partition(".")
    owner, name = (tables[other], name) if other in tables else (table, reference)
    for row in owner.rows:
        if row.id == name:
            return row
    raise PaperNumbersError(f"results/paper: {table.name} refers to the row {reference}, which there is not")


def find_cell(reference: str, table: PaperTable, tables: Mapping[str, PaperTable]) -> Printed:
    """The number ID.QUANTITY of a table, or TABLE.ID.QUANTITY of another.

    Raises:
        PaperNumbersError: there is none.
    """
    name, _, quantity = reference.rpartition(".")
    printed = find_row(name, table, tables).printed.get(quantity)
    if printed is None:
        raise PaperNumbersError(f"results/paper: {table.name} refers to {reference}, where nothing is printed")
    return printed


def _read(path: Path) -> PaperTable:
    raw: Any = OmegaConf.to_container(OmegaConf.load(path))
    try:
        quantities = {name: Quantity(**quantity) for name, quantity in raw["quantities"].items()}
        rows = tuple(_row(row, raw) for row in raw["rows"])
        for entry in raw.get("as_written", []):
            rows = _with_written(rows, **entry)
        claims = tuple(map(_claim, raw.get("claims", [])))
        slips = tuple(Slip(**slip) for slip in raw.get("slips", []))
    except (KeyError, TypeError, ValueError) as error:
        raise PaperNumbersError(f"{path}: {error}; analysis/paper_numbers.py says what belongs there") from error
    for row in rows:
        if row.printed.keys() != quantities.keys() or row.names.keys() != raw["identity"].keys():
            raise PaperNumbersError(f"{path}: row {row.id} has not every column, or others than the table's")
    if len({row.id for row in rows}) < len(rows):
        raise PaperNumbersError(f"{path}: two rows have the same id")
    head = {name: raw[name] for name in ("name", "title", "caption", "identity")}
    return PaperTable(
        number=raw["table"], **head, quantities=quantities, rows=rows, claims=claims, slips=slips,
        remark=raw.get("remark"),
    )  # fmt: skip


def _row(raw: dict[str, Any], table: dict[str, Any]) -> Row:
    printed = {name: None if text == "-" else _printed(text) for name, text in raw["printed"].items()}
    rest = {name: raw.get(name) for name in ("over", "run", "remark")}
    scale = {
        stage: {**table.get("scale", {}).get(stage, {}), **raw.get("scale", {}).get(stage, {})}
        for stage in (table.get("scale", {}) | raw.get("scale", {}))
    }
    ours = {**table["ours"], **raw["ours"]} if "ours" in raw else None
    return Row(id=raw["id"], names=raw["names"], printed=printed, ours=ours, scale=scale, **rest)


def _with_written(
    rows: tuple[Row, ...], *, of: str, names: dict[str, str], ours: dict[str, Any], run: str
) -> tuple[Row, ...]:
    """The rows with another after the row `of`: what its name says, where its numbers are most likely another's."""
    ids = [row.id for row in rows]
    if of not in ids:
        raise ValueError(f"as_written: there is no row {of}")
    place = ids.index(of)
    row = rows[place]
    written = replace(
        row,
        id=f"{of}_as_written",
        names={**row.names, **names},
        printed=dict.fromkeys(row.printed),
        over=None,
        ours={**(row.ours or {}), **ours},
        run=run,
        remark=None,
    )
    return (*rows[: place + 1], written, *rows[place + 1 :])


def _claim(raw: dict[str, Any]) -> Claim:
    (relation,) = [name for name in RELATIONS if name in raw]
    says = _printed(raw["says"]) if "says" in raw else None
    return Claim(raw["where"], raw["quote"], relation, raw[relation], says)


def _printed(text: Any) -> Printed:
    if not isinstance(text, str):
        raise TypeError(f"the number {text!r} needs quotes, to keep its decimals")
    Fraction(text)
    return Printed(text)
