"""Papers' tables as data: results/paper/METHOD/tabN.yaml, whose keys results/paper/README.md explains."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from analysis.paper.selection import ALTERNATIVES, EXCEPTIONS, PLACEHOLDER
from analysis.paper.table import Beside, Claim, Identity, PaperTable, Printed, Quantity, Row, Slip
from mal.errors import MalError

PAPER = Path(__file__).resolve().parents[1] / "results" / "paper"
SAYS = "results/paper/README.md says what belongs there"
RELATIONS = ("value", "difference", "mean_difference", "largest", "smallest", "larger", "within", "opposite_order")
T = TypeVar("T")


class PaperNumbersError(MalError):
    """The files of the papers' numbers are missing or do not fit together."""


@cache
def load(folder: Path = PAPER) -> dict[str, PaperTable]:
    """All tables by name: paper by paper, each in its order.

    Raises:
        PaperNumbersError: a file is missing, or something in it has no meaning.
    """
    tables = [_read(path) for path in sorted(folder.glob("*/tab*.yaml"))]
    if not tables:
        raise PaperNumbersError(
            f"{folder} holds no mal/tab1.yaml …; analysis/ reads them from a checkout of the repository"
        )
    found: dict[str, PaperTable] = {}
    for table in sorted(tables, key=lambda one: (one.file.parent, one.number is None, one.number or 0)):
        if table.name in found:
            raise PaperNumbersError(f"{table.file}: name: {found[table.name].file} is called {table.name} too")
        found[table.name] = table
    return found


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
    try:
        return _table(_mapping(path), path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PaperNumbersError(f"{path}: {error}; {SAYS}") from error


def _mapping(path: Path) -> dict[str, Any]:
    try:
        raw: Any = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # yaml and omegaconf have many kinds
        raise ValueError(f"is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ValueError("is no mapping of keys to values")
    return raw


def _table(raw: dict[str, Any], path: Path) -> PaperTable:
    shared, ours, scale = path.with_name("words.yaml"), raw.pop("ours", {}), raw.pop("scale", {})
    raw["file"] = path
    raw["rows"] = tuple(_row(row, ours, scale) for row in raw.get("rows", []))
    raw["words"] = (_mapping(shared) if shared.exists() else {}) | raw.get("words", {})
    raw["claims"] = tuple(map(_claim, raw.get("claims", [])))
    raw["slips"] = tuple(_made(Slip, slip, f"slips.{i}") for i, slip in enumerate(raw.get("slips", [])))
    for name, kind in (("identity", Identity), ("quantities", Quantity), ("more", Quantity)):
        if name in raw:
            raw[name] = {key: _made(kind, one, f"{name}.{key}") for key, one in raw[name].items()}
    if "beside" in raw:
        raw["beside"] = _made(Beside, raw["beside"], "beside")
    table = _made(PaperTable, raw, "")
    _check(table)
    return table


def _made(kind: type[T], raw: Any, key: str) -> T:
    """What a mapping of the file stands for.

    Raises:
        ValueError: names the key that is unknown, absent, or has a value that cannot be.
    """
    below = f"{key}: " if key else ""
    if not isinstance(raw, dict):
        raise ValueError(f"{below}{raw!r} is no mapping of keys to values")
    known = {one.name: one.default is MISSING and one.default_factory is MISSING for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in raw if name not in known]:
        raise ValueError(f"{below}there is no key {unknown[0]}")
    if absent := [name for name, needed in known.items() if needed and name not in raw]:
        raise ValueError(f"{below}the key {absent[0]} is absent")
    try:
        return kind(**raw)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{below}{error}") from error


def _check(table: PaperTable) -> None:
    """Raises ValueError: parts of a table do not fit together."""
    for row in table.rows:
        if row.printed.keys() != table.quantities.keys() or row.names.keys() != table.identity.keys():
            raise ValueError(f"row {row.id} has not every column, or others than the table's")
        if row.ours is not None and "data" not in row.ours:
            raise ValueError(f"rows.{row.id}.ours: the key data is absent, here and in the table's ours")
    if len({row.id for row in table.rows}) < len(table.rows):
        raise ValueError("two rows have the same id")
    for i, where in enumerate(table.results):
        if not isinstance(where.get("stage"), str):
            raise ValueError(f"results.{i}: the key stage is absent, or names no single stage")
        for name in (ALTERNATIVES, EXCEPTIONS):
            if not all(isinstance(one, dict) for one in where.get(name, [])):
                raise ValueError(f"results.{i}.{name} is no list of conditions")
    listed = [(f"order.{i}", *one.values()) for i, one in enumerate(table.order) if isinstance(one, dict)]
    named = [(key, words) for key, words in listed if isinstance(words, str)]
    for key, identity in table.identity.items():
        named += [(f"identity.{key}", words) for _, words in PLACEHOLDER.findall(str(identity.text)) if words]
    for key, words in named:
        if words not in table.words:
            raise ValueError(f"{key}: there are no words {words}, only {', '.join(table.words) or 'none'}")
    for key, quantity in table.quantities.items():
        if quantity.quotient_of and quantity.quotient_of not in table.quantities:
            raise ValueError(f"quantities.{key}.quotient_of: there is no quantity {quantity.quotient_of}")


def _row(raw: Any, ours: dict[str, Any], scale: dict[str, Any]) -> Row:
    """A row, with what the whole table's `ours` and `scale` add to its own."""
    row = _made(Row, raw, f"rows.{raw.get('id')}")
    printed = {name: None if text == "-" else Printed(text) for name, text in raw["printed"].items()}
    scales = {stage: {**scale.get(stage, {}), **row.scale.get(stage, {})} for stage in {**scale, **row.scale}}
    return replace(row, printed=printed, scale=scales, ours=None if row.ours is None else ours | row.ours)


def _claim(raw: dict[str, Any]) -> Claim:
    relation, *more = [name for name in raw if name not in ("where", "quote", "says")] or [""]
    if more or relation not in RELATIONS:
        raise ValueError(f"claims: {raw['quote']}: it needs one of {', '.join(RELATIONS)}")
    says = Printed(raw["says"]) if "says" in raw else None
    return Claim(raw["where"], raw["quote"], relation, raw[relation], says)
