"""What SimFormer's parts are worth: differences of novel mIoU that were expected, paired over images, splits and seeds.

python -m analysis.weak_shot [--profile P] [--data D] [--where KEY=VALUE …] [--store DIR]
"""

import argparse
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from analysis import sources
from analysis.lineage import choices, chosen, differing, settings_behind, settings_of, shown
from analysis.records import Record, UnreadableRecordError, address, by_address, finished, grouped
from analysis.sources import command
from analysis.summary import table
from mal.metrics.bootstrap import Interval
from mal.metrics.semantic import ClassCounts, Measured, mean_iou, miou_difference

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
EXPECTED = (  # the first is the larger; the last three tell what else a gain may come from
    *(("oracle", "cross*"), ("cross*", "cross"), ("cross", "self"), ("self", "basic"), ("basic", "no CompLoss")),
    *(("cross", "sampler"), ("cross*", "basic*"), ("cross*", "complement*")),
)
# of a training: what makes it one row or another; all other settings of two that are compared are alike
OWN = re.compile(
    r"train_simformer\.simformer\.(pairs|losses\.complement|similarity|distillation)\b.*|miou_val\.subset.*"
)
STAGES = ("train_simformer.", "segment_val.", "miou_val.")
HOW = (
    "Difference: of novel mIoU, in points, the mean over the splits and seeds that both have, with a 95 % interval of "
    "images and of splits and seeds (percentile bootstrap, the same images for all). What was expected shows where the "
    "interval is above 0, and is reversed where it is below."
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
            "experiment=simformer/tab2 computes some"
        )
    parts = ["# Weak-shot segmentation: what was expected, and what shows", HOW]
    places = grouped(records, lambda record: (record["columns"]["data"], record["columns"]["profile"]))
    for (data, profile), some in sorted(places.items()):
        rows = _by_row(some, known)
        measured = {name: {key: load(store, one) for key, one in runs.items()} for name, runs in rows.items()}
        parts += [f"## {data}, profile {profile}", _values(measured, rows), _differences(measured, resamples)]
    return "\n\n".join(parts) + "\n"


def row_name(record: Record) -> str:
    """Which of ROWS a result is; empty for others."""
    columns = record["columns"]
    return next((name for name, own in ROWS.items() if own.items() <= columns.items()), "")


def verdict(difference: Interval) -> str:
    """What an interval says of a difference that was expected to be positive."""
    return "shows" if difference.low > 0 else "is reversed" if difference.high < 0 else "does not show"


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


def _by_row(records: list[Record], known: Mapping[str, Record]) -> dict[str, dict[Hashable, Record]]:
    """Row → split, seed and all that is to be alike → its result.

    Raises:
        WeakShotError: two results are the same row, with the same split and seed.
    """
    found: dict[str, dict[Hashable, Record]] = {name: {} for name in ROWS}
    for record in records:
        name, key = row_name(record), _alike(record, known)
        if key in found[name]:
            both = [settings_of(one, known) for one in (found[name][key], record)]
            raise WeakShotError(f"two results are {name} of one split and seed: {choices(differing(both), both)}")
        found[name][key] = record
    return {name: runs for name, runs in found.items() if runs}


def _alike(record: Record, known: Mapping[str, Record]) -> Hashable:
    columns = record["columns"]
    settings = {k: shown(v) for k, v in settings_behind(record, known) if k.startswith(STAGES) and not OWN.fullmatch(k)}
    return (*(columns.get(name) for name in ("split", "seed", "points")), tuple(sorted(settings.items())))


def _values(measured: Mapping[str, Mapping[Hashable, Measured]], rows: Mapping[str, Mapping[Hashable, Record]]) -> str:
    """Each row's mean."""
    cells = []
    for name, runs in measured.items():
        each = [100 * _novel_miou(one) for one in runs.values()]
        told = sorted({(r["columns"]["split"], r["columns"]["seed"]) for r in rows[name].values()})
        where = ", ".join(f"{split}:{seed}" for split, seed in told)
        spread = f"{min(each):.1f} … {max(each):.1f}" if each[1:] else ""
        cells.append([name, f"{np.mean(each):.1f}", spread, str(len(each)), where])
    return table(["row", "novel mIoU, %", "of its runs", "runs", "split:seed"], cells)


def _novel_miou(run: Measured) -> float:
    tp, gt, pred = (part.sum(axis=0) for part in run.counts)
    return float(mean_iou(tp, gt, pred, run.which))


def _differences(measured: Mapping[str, Mapping[Hashable, Measured]], resamples: int) -> str:
    cells = []
    for larger, smaller in EXPECTED:
        first, second = measured.get(larger, {}), measured.get(smaller, {})
        pairs = [(first[key], second[key]) for key in first if key in second]
        if not pairs:
            cells.append([f"{larger} − {smaller}", "-", "-", "0", "no runs of both"])
            continue
        found = miou_difference(pairs, resamples=resamples)
        ends = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        cells.append([f"{larger} − {smaller}", f"{100 * found.value:+.1f}", ends, str(len(pairs)), verdict(found)])
    return table(["difference of", "points", "95 %", "pairs", "what was expected"], cells)


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
