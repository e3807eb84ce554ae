"""Partial-RES's networks as rows that can be compared: what they are called, and the IoU of each expression."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from analysis.lineage import ancestors, choices, differing, once, settings_of, shown
from analysis.records import Record, UnreadableRecordError, address
from analysis.stats import ByImage, percentile
from mal.engine.payload import flatten
from mal.errors import MalError
from mal.metrics.bootstrap import Interval, image_weights

_SEQUENCE: dict[str, Any] = {"model": "sequence", "pseudo": "none"}
_PLAIN = {**_SEQUENCE, "cctf": "none", "pmca": False}
_PARTS = {**_SEQUENCE, "cctf": "matched", "pmca": True}
ROWS: dict[str, dict[str, Any]] = {  # name → what a run's columns hold; the first that fits
    "taskwise": {**_PLAIN, "task": "taskwise"},
    "alone": {**_PLAIN, "start": "none"},
    "alone, both parts": {**_PARTS, "start": "none"},
    "naive": {**_PLAIN, "start": "rec"},
    "+ CCTF": {**_PLAIN, "start": "rec", "cctf": "matched"},
    "+ CCTF, transposed": {**_PLAIN, "start": "rec", "cctf": "transposed"},
    "+ PMCA": {**_PLAIN, "start": "rec", "pmca": True},
    "both": {**_PARTS, "start": "rec"},
    "boxes": {**_PARTS, "start": "rec", "pseudo": "box"},
    "ellipses": {**_PARTS, "start": "rec", "pseudo": "ellipse"},
    "full": {**_PARTS, "start": "rec", "pseudo": "model"},
    "query alone": {"model": "query", "start": "none", "pseudo": "none"},
    "query": {"model": "query", "start": "rec", "pseudo": "none"},
}
# of a training of masks: what makes it one row or another; all other settings of two that are compared are alike
OWN = re.compile(
    r"train_res\.partialres\.(parts|few|rec|network\.(model|query)|sequence\.(task|points)|res\.(start|start_from|steps|"
    r"epochs|drop_at|snapshots))\b.*|res_val\..*\.points"
)
SEQUENCE = re.compile(r".*\.partialres\.sequence\..*")  # what a rival without sequences does not read
STAGES = ("train_res", "refer_val", "res_val")
EVERY = 2  # no projections are further apart: a threshold that keeps every prediction


class ReferringError(UnreadableRecordError):
    """Nothing to compare, or not told apart; the message says what to choose."""


class Row(NamedTuple):
    """What is compared."""

    name: str  # a key of ROWS
    percent: float  # of the objects whose masks are seen
    steps: int | None  # of the training of masks; None: it counts epochs
    task: str = ""  # its [TASK], of sequences
    points: int | None = None  # of a contour, of sequences
    threshold: float | None = None  # of d, where predictions are learned from
    text: str = ""  # the language model, where it is no GRU

    def __str__(self) -> str:
        told = "" if self.threshold is None else ", every d" if self.threshold >= EVERY else f", d < {self.threshold:g}"
        task = "" if self.task in ("", "learnable", self.name) else f", {self.task}"
        points = "" if self.points is None else f", N {self.points}"
        text = f", {self.text}" if self.text else ""
        return f"{self.name}{told}{task}{text}{points}, {self.percent:g} %"


class Key(NamedTuple):
    """All else in which runs that are compared are alike."""

    seed: int
    settings: tuple[tuple[str, str], ...]
    sequence: tuple[tuple[str, str], ...]  # of them, those that only sequences have


class Scores(NamedTuple):
    """IoU of each expression of the validation images, in [0, 1], and the object and image it is about: (n,) each."""

    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    iou: NDArray[np.float64]


Pair = tuple[int, Scores, Scores]  # seed, and the two that are compared


class Run(NamedTuple):
    """A result of a row."""

    record: Record  # of res_val
    rec: str | None  # the training of boxes that it starts from, by address
    scores: Scores


def row_of(record: Record) -> Row | None:
    """Which row a result is; None for others."""
    columns = record["columns"]
    name = next((name for name, own in ROWS.items() if own.items() <= columns.items()), None)
    if name is None:
        return None
    sequence = columns["model"] == "sequence"
    return Row(
        name,
        float(columns["percent"]),
        columns.get("steps"),
        str(columns["task"]) if sequence else "",
        int(columns["contour_points"]) if sequence else None,
        float(columns["threshold"]) if columns["pseudo"] == "model" else None,
        columns.get("text", ""),
    )


def by_row(records: Sequence[Record], known: Mapping[str, Record], store: Path) -> dict[Row, dict[Key, Run]]:
    """Rows in the order of ROWS, fewer masks first, each with its results.

    Raises:
        ReferringError: two results are the same row, with the same seed and settings.
        UnreadableRecordError: a file is absent or broken.
    """
    found: dict[Row, dict[Key, Run]] = {}
    for record in once(records, known):
        if (row := row_of(record)) is None:
            continue
        runs, key = found.setdefault(row, {}), key_of(record, known)
        if key in runs:
            both = [settings_of(one, known) for one in (runs[key].record, record)]
            raise ReferringError(f"two results are {row} with seed {key.seed}: {choices(differing(both), both)}")
        runs[key] = Run(record, rec_of(record, known), scores(store, record))
    order = [*ROWS]

    def place(row: Row) -> tuple[Any, ...]:
        numbers = row.percent, row.steps or 0, row.task, row.points or 0, row.threshold or 0
        return order.index(row.name), row.text, *numbers

    return {row: found[row] for row in sorted(found, key=place)}


def rec_of(record: Record, known: Mapping[str, Record]) -> str | None:
    """The training of boxes that a result comes from, by address; None without one."""
    return next((name for name in ancestors(record, known) if name.startswith("train_rec/")), None)


def scores(store: Path, record: Record, member: str = "iou") -> Scores:
    """The IoUs of a record, from its iou.npz.

    Args:
        member: which of them; rec_val has box_iou and ellipse_iou, too.

    Raises:
        UnreadableRecordError: the file is absent or broken, or has no such IoUs.
    """
    path = store / address(record) / "iou.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return Scores(found["ids"], found["image_ids"], found[member].astype(np.float64))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise UnreadableRecordError(f"{path} cannot be read ({error}); compute the stage again") from error


def interval(run: Scores, resamples: int) -> Interval:
    """The mean IoU and its 95 % interval over images."""
    grouped = ByImage.of(run.iou, run.image_ids)
    return percentile(grouped.mean, grouped.resampled(image_weights(len(grouped.sums), resamples)))


def difference(pairs: Sequence[Pair], resamples: int) -> Interval:
    """How much larger the first mean IoU is than the second's, averaged over pairs (seeds), with its 95 % interval.

    In each resample all see the same images, so what makes an image hard for both cancels; of several pairs as many
    are drawn, with replacement, so that the interval is of what another seed may give, too.

    Raises:
        MalError: the runs are measured on different expressions.
    """
    reference = pairs[0][1]
    for run in (run for pair in pairs for run in pair[1:]):
        if not (np.array_equal(run.ids, reference.ids) and np.array_equal(run.image_ids, reference.image_ids)):
            raise MalError("two runs are measured on different expressions: a difference needs the same, in one order")
    grouped = [ByImage.of(first.iou - second.iou, first.image_ids) for _, first, second in pairs]
    weights = image_weights(len(grouped[0].sums), resamples)
    each = np.stack([one.resampled(weights) for one in grouped], axis=1)
    drawn = image_weights(len(pairs), resamples, seed=1) / len(pairs)
    return percentile(float(np.mean([one.mean for one in grouped])), (each * drawn).sum(axis=1))


def key_of(record: Record, known: Mapping[str, Record]) -> Key:
    """Its seed and settings, of each stage the nearest: predictions come from a training before the last one."""
    nearest: dict[str, Record] = {}
    for one in filter(None, ancestors(record, known).values()):
        nearest.setdefault(one["stage"], one)
    settings: dict[str, str] = {}
    sequence: dict[str, str] = {}
    for stage in STAGES:
        for name, value in flatten(nearest[stage]["config"]) if stage in nearest else ():
            path = f"{stage}.{name}"
            if name != "seed" and not OWN.fullmatch(path):
                (sequence if SEQUENCE.fullmatch(path) else settings)[path] = shown(value)
    return Key(record["columns"]["seed"], *(tuple(sorted(some.items())) for some in (settings, sequence)))
