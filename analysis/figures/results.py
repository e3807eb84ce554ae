"""The store as the figures see it: records in groups of seeds, their files read and checked."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.images import Pictures, pictures
from analysis.lineage import ancestors, over_seeds
from analysis.records import Record, address, by_address, grouped

Group = list[Record]  # the same thing under other seeds, sorted by seed
Tables = list[tuple[Group, list[pd.DataFrame]]]
PARTS = {"stage": str, "key": str, "columns": dict, "config": dict, "inputs": dict, "metrics": dict, "sources": dict}
INSTANCES = {"annotation_id", "image_id", "area", "size", "iou", "boundary_iou", "flagged"}


class LeftOut(Exception):
    """A result that cannot be shown; the message says which and why."""


@dataclass(frozen=True)
class Results:
    """All records that figures can be made of."""

    store: Path
    records: list[Record]
    redistributable: bool = False  # show no photograph whose licence forbids to pass it on
    unusable: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, store: Path, records: Iterable[Record], *, redistributable: bool = False) -> "Results":
        """Keep the records that have all their parts; the others are named in `unusable`."""
        good, unusable = [], []
        for record in records:
            lacking = [name for name, kind in PARTS.items() if not isinstance(record.get(name), kind)]
            lacking += [f"columns.{name}" for name in ("profile", "data") if name not in (record.get("columns") or {})]
            if lacking:
                unusable.append(f"{record.get('stage')}/{record.get('key')}: run.json lacks {', '.join(lacking)}")
            else:
                good.append(record)
        return cls(store, good, redistributable, unusable)

    @cached_property
    def known(self) -> dict[str, Record]:
        return by_address(self.records)

    @cached_property
    def built_on(self) -> dict[str, int]:
        """How many records each one is an ancestor of, by address."""
        counts = dict.fromkeys(self.known, 0)
        for record in self.records:
            for name in self.ancestors(record):
                counts[name] = counts.get(name, 0) + 1
        return counts

    def ancestors(self, record: Record) -> list[str]:
        """Addresses of all that a record comes from, nearest first."""
        return [*ancestors(record, self.known)][1:]

    def groups(
        self, stage: str, wanted: Callable[[Record], bool] = lambda _: True
    ) -> dict[tuple[str, str], list[Group]]:
        """(data, profile) → the groups of a stage's records, those first that most results of the store are built on.

        Ties are broken by the smallest key, so that the order is the same in every copy of a store.
        """
        chosen = [r for r in sorted(self.records, key=address) if r["stage"] == stage and wanted(r)]
        found = grouped(chosen, lambda record: (record["columns"]["data"], record["columns"]["profile"]))
        return {
            place: sorted(
                over_seeds(records, self.known), key=lambda g: (-self.weight(g), -len(g), min(r["key"] for r in g))
            )
            for place, records in sorted(found.items())
        }

    def weight(self, group: Group) -> int:
        """How many results of the store are built on the labelers, or else on the records, of a group."""
        names = {name for record in group for name in self.ancestors(record) if name.startswith("train_labeler/")}
        return sum(self.built_on.get(name, 0) for name in names or {address(record) for record in group})

    def source(self, record: Record, stage: str) -> Record:
        """The record among a record's inputs whose stage starts with `stage`.

        Raises:
            LeftOut: there is none in the store.
        """
        for name in record["inputs"].values():
            if name.startswith(stage) and name in self.known:
                return self.known[name]
        raise LeftOut(f"{address(record)}: its {stage.rstrip('/_')} stage is not in the store")

    def pictures(self, record: Record) -> Pictures:
        """The images and human masks a record is about.

        Raises:
            LeftOut: they are not on this machine.
        """
        found = pictures(record, self.known, self.store)
        if found is None or not found.annotations.is_file() or not found.images.is_dir():
            raise LeftOut(f"{address(record)}: its images are not on this machine")
        return found

    def json(self, record: Record, name: str) -> Any:
        """A JSON file of a record's folder.

        Raises:
            LeftOut: it is absent or broken.
        """
        return read_json(self.store / address(record) / name)

    def instances(self, record: Record) -> pd.DataFrame:
        """The scored instances of a quality stage, flagged ones too; `area` is the box's, in pixels.

        Raises:
            LeftOut: there is no such table.
        """
        try:
            table = pd.read_csv(self.store / address(record) / "instances.csv")
        except (OSError, ValueError) as error:
            raise LeftOut(f"{address(record)}: instances.csv cannot be read ({type(error).__name__})") from error
        if absent := INSTANCES - set(table.columns):
            raise LeftOut(f"{address(record)}: instances.csv has no column {', '.join(sorted(absent))}")
        return table

    def curves(self, record: Record) -> pd.DataFrame:
        """What a training logged, a row a logged step.

        Raises:
            LeftOut: there is no such file, or it names no steps.
        """
        path = self.store / address(record) / "curves.jsonl"
        try:
            table = pd.DataFrame([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        except (OSError, ValueError) as error:
            raise LeftOut(f"{address(record)}: curves.jsonl cannot be read ({type(error).__name__})") from error
        if "step" not in table:
            raise LeftOut(f"{address(record)}: curves.jsonl names no steps")
        return table.drop_duplicates("step", keep="last").sort_values("step")

    def arrays(self, record: Record, name: str, members: Iterable[str]) -> dict[str, np.ndarray]:
        """Arrays of an npz of a record's folder.

        Raises:
            LeftOut: the file or one of its members is absent.
        """
        try:
            with np.load(self.store / address(record) / name, allow_pickle=False) as found:
                return {member: found[member] for member in members}
        except (OSError, ValueError, KeyError) as error:
            raise LeftOut(f"{address(record)}: {name} cannot be read ({error})") from error


def read_groups(groups: Iterable[Group], read: Callable[[Record], pd.DataFrame]) -> tuple[Tables, list[str]]:
    """The groups with a table for each seed, and sentences about what cannot be read."""
    found: Tables = []
    left_out = []
    for group in groups:
        kept, frames = [], []
        for record in group:
            try:
                frames.append(read(record))
                kept.append(record)
            except LeftOut as error:
                left_out.append(str(error))
        if kept:
            found.append((kept, frames))
    return found, left_out


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        LeftOut: it is absent or broken.
    """
    place = "/".join(path.parts[-3:])
    try:
        return json.loads(path.read_bytes())  # in any of Unicode's encodings: it may be the user's own
    except FileNotFoundError:
        raise LeftOut(f"{place} is not in this store; published results hold no masks of photographs") from None
    except (OSError, ValueError) as error:
        raise LeftOut(f"{place} cannot be read ({type(error).__name__})") from error
