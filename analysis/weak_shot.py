"""What SimFormer's parts are worth: differences of novel mIoU that were expected, paired over images, splits and seeds.

python -m analysis.weak_shot [--profile P] [--data D] [--where KEY=VALUE …] [--store DIR]
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from analysis import sources
from analysis.lineage import ABSENT, choices, chosen, differing, settings_behind, settings_of, shown
from analysis.records import Record, UnreadableRecordError, address, by_address, finished, grouped
from analysis.sources import command
from analysis.summary_cells import table
from analysis.weak_shot_expected import Key, Row, Runs, differences
from mal.metrics.semantic import ClassCounts, Measured, mean_iou

WEAK: dict[str, Any] = {"supervision": "weak", "pseudo": "none", "complement": True}
ROWS: dict[str, dict[str, Any]] = {  # name → what a run's columns hold
    "no CompLoss": {**WEAK, "pairs": "none", "complement": False},
    "basic": {**WEAK, "pairs": "none"},
    "sampler": {**WEAK, "pairs": "sampler"},
    "self": {**WEAK, "pairs": "self", "student": "across"},
    "cross": {**WEAK, "pairs": "cross", "student": "across"},
    "cross, student within": {**WEAK, "pairs": "cross", "student": "within"},
    "complement*": {"supervision": "weak", "pseudo": "complement"},
    "cam*": {"supervision": "weak", "pseudo": "cam"},
    "basic*": {**WEAK, "pairs": "none", "pseudo": "own"},
    "cross*": {**WEAK, "pairs": "cross", "student": "across", "pseudo": "own"},
    "oracle": {"supervision": "oracle"},
}
WITH_J = ("self", "cross", "cross, student within", "cross*")  # rows that draw J pixels; each J is a row of its own
# of a training: what makes it one row or another; all other settings of two that are compared are alike
OWN = re.compile(
    r"train_simformer\.simformer\.(pairs|losses\.complement|similarity|distillation)\b.*"
    r"|miou_val\.(subset|novel).*"
)
STAGES = ("train_simformer.", "segment_val.", "miou_val.")
HOW = (
    "Means are by split, over the seeds that all rows have there. Difference: of novel mIoU, in points, the mean over "
    "the splits and seeds that both have, with a 95 % interval of images and of splits and seeds (percentile "
    "bootstrap, the same images for all; splits of one seed that share novel classes are drawn together, so that only "
    "disjoint folds count as independent). What was expected shows where the interval is above 0, and is reversed "
    "where it is below. Of one row with two J no difference is expected: that shows where the interval is within 1 "
    "point of 0, and is reversed where it is not and 0 is outside it. Of nested splits the smaller is expected to be "
    "better, by the mean over its own classes, since that over all moves with the set."
)


class WeakShotError(UnreadableRecordError):
    """Nothing to compare, or not told apart; the message says what to choose."""


def report(store: Path, wanted: Mapping[str, list[str]], where: Sequence[str], *, resamples: int = 1000) -> str:
    """The expected differences as Markdown, by data and profile.

    Args:
        wanted: column → values. where: `KEY=VALUE` of settings.

    Raises:
        WeakShotError: there are no results, or two that these do not tell apart.
        UnreadableRecordError: the store, or a file in it, cannot be read.
        MalError: results of one data set are measured on different images.
    """
    everything = finished(store)
    known = by_address(everything)
    records = [r for r in chosen(everything, known, wanted, where) if r["stage"] == "miou_val" and row_name(r)]
    if not records:
        raise WeakShotError(
            "the store has no mean IoU of SimFormer's networks that fits; python experiments/run.py -m "
            "experiment=simformer/rows computes them"
        )
    parts = ["# Weak-shot segmentation: what was expected, and what shows", HOW]
    places = grouped(records, lambda record: (record["columns"]["data"], record["columns"]["profile"]))
    for (data, profile), some in sorted(places.items()):
        rows = _by_row(some, known)
        measured = {row: {key: load(store, one) for key, one in runs.items()} for row, runs in rows.items()}
        parts += [f"## {data}, profile {profile}", _values(measured), differences(measured, resamples=resamples)]
    return "\n\n".join(parts) + "\n"


def row_name(record: Record) -> str:
    """Which of ROWS a result is; empty for others."""
    columns = record["columns"]
    return next((name for name, own in ROWS.items() if own.items() <= columns.items()), "")


def load(store: Path, record: Record) -> Measured:
    """The pixels by image and class, and the novel classes, from iou.npz.

    Raises:
        UnreadableRecordError: it is absent or broken.
    """
    path = store / address(record) / "iou.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            counts = ClassCounts(*(found[name] for name in ClassCounts._fields))
            return Measured(found["image_ids"], counts, tuple(map(int, found["novel"])))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise UnreadableRecordError(f"{path} cannot be read ({error}); compute the stage again") from error


def _by_row(records: list[Record], known: Mapping[str, Record]) -> dict[Row, dict[Key, Record]]:
    """Rows in the order of ROWS, each with its results.

    Raises:
        WeakShotError: two results are the same row, with the same split and seed.
    """
    found: dict[Row, dict[Key, Record]] = {}
    for record in records:
        name, columns = row_name(record), record["columns"]
        runs = found.setdefault(Row(name, columns["points"] if name in WITH_J else None), {})
        if (key := _key(record, known)) in runs:
            both = [settings_of(one, known) for one in (runs[key], record)]
            apart = differing(both)
            if all(setting.rpartition(".")[2] == "points" for setting in apart):
                continue  # a row that draws no pixels is the same with any J
            raise WeakShotError(f"two results are {name} of one split and seed: {choices(apart, both)}")
        runs[key] = record
    order = [*ROWS]
    return dict(sorted(found.items(), key=lambda it: (order.index(it[0].name), it[0].points or 0)))


def _key(record: Record, known: Mapping[str, Record]) -> Key:
    columns, novel = record["columns"], tuple(record["config"]["novel"])
    settings = {k: shown(v) for k, v in settings_behind(record, known) if k.startswith(STAGES) and not OWN.fullmatch(k)}
    return Key(columns["split"], novel, columns["seed"], tuple(sorted(settings.items())))


def _values(measured: Runs) -> str:
    """Each row's mean by split, over the seeds that all rows have there."""
    places: dict[Any, dict[Row, dict[int, float]]] = {}
    for row, runs in measured.items():
        for key, run in runs.items():
            rows = places.setdefault((key.split, key.novel, key.settings), {})
            rows.setdefault(row, {})[key.seed] = 100 * _novel_miou(run)
    cells = []
    for place in sorted(places, key=lambda it: it[:2]):
        rows = places[place]
        shared = sorted(set.intersection(*(set(by_seed) for by_seed in rows.values())))
        for row, by_seed in rows.items():
            each = [by_seed[seed] for seed in shared]
            mean = f"{np.mean(each):.1f}" if each else "-"
            spread = f"{min(each):.1f} … {max(each):.1f}" if each[1:] else ""
            others = ", ".join(str(seed) for seed in sorted(by_seed) if seed not in shared)
            cells.append([_told(place, places), str(row), mean, spread, ", ".join(map(str, shared)), others])
    return table(["split", "row", "novel mIoU, %", "of its runs", "seeds", "seeds that not all rows have"], cells)


def _told(place: tuple[str, Any, Any], places: Mapping[tuple[str, Any, Any], Any]) -> str:
    """A split, with the settings that tell it from other results of it."""
    alike = [dict(it[2]) for it in places if it[0] == place[0]]
    return ", ".join([place[0], *(f"{name}={dict(place[2]).get(name, ABSENT)}" for name in [*differing(alike)][:3])])


def _novel_miou(run: Measured) -> float:
    tp, gt, pred = (part.sum(axis=0) for part in run.counts)
    return float(mean_iou(tp, gt, pred, run.which))


@command
def main(arguments: Sequence[str] | None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m analysis.weak_shot", description=__doc__.splitlines()[0])
    names = ("profile", "data", "encoder", "recipe", "split", "points", "seed")
    for name in names:
        parser.add_argument(f"--{name}", nargs="+", metavar="VALUE", help=f"only results with this {name}")
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only results with this setting")
    parser.add_argument("--resamples", type=int, default=1000, help="of the images; default: %(default)s")
    sources.add_options(parser)
    options = parser.parse_args(arguments)
    wanted = {name: values for name in names if (values := getattr(options, name))}
    print(report(sources.opened(options), wanted, options.where, resamples=options.resamples), end="")


if __name__ == "__main__":
    sys.exit(main())
