"""What Partial-RES's parts are worth: differences of IoU that were asked about, paired over images, every seed shown.

python -m analysis.referring [--profile P] [--data D] [--where KEY=VALUE …] [--store DIR]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from analysis import sources
from analysis.lineage import chosen
from analysis.records import Record, by_address, finished, grouped
from analysis.referring_expected import ACCURACY, Runs, differences
from analysis.referring_rows import ReferringError, Scores, by_row, interval, rec_of, row_of, scores
from analysis.sources import command
from analysis.summary_cells import table

FLOORS_ON = "scenes"  # the data that figures to reach are set for
APART = 0.1  # of the IoU of kept and of rejected predictions
HOW = (
    "IoU: mean over the expressions of the validation images, with 95 % intervals of images. Difference: the mean over "
    "the seeds that both have, with an interval of images and seeds (percentile bootstrap, the same images for all), "
    "then each seed's with its interval of images. What was expected to be larger shows where the interval is above 0, "
    "and is reversed where it is below. Where no sign was expected, it is above 0, below 0, or not resolved. Rows: "
    "alone, few masks from scratch; naive, from the training of boxes; + CCTF, + PMCA, both: with the parts of the "
    "decoder; boxes, ellipses: both, and given boxes filled, or ellipses in them, as masks of the other objects; full: "
    "both, and the network's own predictions whose projections are less than d from the box's; query: the rival "
    "without a sequence."
)


def report(store: Path, wanted: Mapping[str, list[str]], where: Sequence[str], *, resamples: int = 1000) -> str:
    """The rows and their differences as Markdown, by data and profile.

    Args:
        wanted: column → values. where: `KEY=VALUE` of settings.

    Raises:
        ReferringError: there are no results, or two that these do not tell apart.
        UnreadableRecordError: the store, or a file in it, cannot be read.
        MalError: results of one data set are measured on different expressions.
    """
    everything = finished(store)
    known = by_address(everything)
    records = [r for r in chosen(everything, known, wanted, where) if r["stage"] == "res_val" and row_of(r)]
    if not records:
        raise ReferringError(
            "the store has no masks from expressions of Partial-RES's that fit; python experiments/run.py -m "
            "experiment=partialres/parts computes them"
        )
    parts = ["# Masks from expressions: what was expected, and what shows", HOW]
    places = grouped(records, lambda record: (record["columns"]["data"], record["columns"]["profile"]))
    for (data, profile), some in sorted(places.items()):
        rows = by_row(some, known, store)
        floors = data == FLOORS_ON
        boxes = _boxes(rows, everything, known)
        ellipses: dict[str | None, Scores] = {
            name: scores(store, one, "ellipse_iou") for name, one in boxes.items() if _has(one, "ellipse_iou")
        }
        accuracies: dict[str | None, float] = {
            name: _metric(one, "rec_accuracy") for name, one in boxes.items() if _has(one, "rec_accuracy")
        }
        parts += [f"## {data}, profile {profile}", _values(rows, resamples)]
        if boxes:
            parts.append(_without_masks(boxes, store, resamples))
        parts.append(differences(rows, ellipses, accuracies, floors=floors, resamples=resamples))
        parts += [_reached(boxes, _qualities(some, everything, known), floors=floors)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _boxes(rows: Runs, everything: Sequence[Record], known: Mapping[str, Record]) -> dict[str, Record]:
    """Training of boxes → its rec_val, of those that a row starts from."""
    used = {run.rec for runs in rows.values() for run in runs.values()}
    found = {rec_of(record, known): record for record in everything if record["stage"] == "rec_val"}
    return {name: record for name, record in found.items() if name is not None and name in used}


def _qualities(some: Sequence[Record], everything: Sequence[Record], known: Mapping[str, Record]) -> list[Record]:
    """pseudo_quality_train of the data and profile, of the trainings of boxes that the results come from."""
    used = {rec_of(record, known) for record in some}
    return [r for r in everything if r["stage"] == "pseudo_quality_train" and rec_of(r, known) in used - {None}]


def _values(rows: Runs, resamples: int) -> str:
    """Each row's mean over its seeds, and each seed's with its interval."""
    cells = []
    for row, runs in rows.items():
        some = sorted(runs.items(), key=lambda it: it[0].seed)
        each = [(key.seed, interval(run.scores, resamples)) for key, run in some]
        mean = f"{np.mean([one.value for _, one in each]):.3f}"
        told = "; ".join(f"{seed}: {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for seed, one in each)
        ceilings = {f"{_metric(run.record, 'ceiling'):.3f}" for _, run in some if _has(run.record, "ceiling")}
        counts = {str(len(run.scores.iou)) for _, run in some}
        steps = "-" if row.steps is None else f"{row.steps:,}"
        cells.append([str(row), steps, mean, told, " or ".join(sorted(ceilings)) or "-", " or ".join(sorted(counts))])
    return table(["row", "steps", "IoU", "each seed", "ceiling", "expressions"], cells)


def _without_masks(boxes: Mapping[str, Record], store: Path, resamples: int) -> str:
    """What the training of boxes gives of masks."""
    cells = []
    for what, member in (("box, filled", "box_iou"), ("ellipse in the box", "ellipse_iou")):
        for record in (one for one in boxes.values() if _has(one, member)):
            found = interval(scores(store, record, member), resamples)
            ends = f"[{found.low:.3f}, {found.high:.3f}]"
            cells.append([what, _seed(record), _model(record), f"{found.value:.3f}", ends])
    return table(["without any mask", "seed", "model", "IoU", "95 %"], cells) if cells else ""


def _reached(boxes: Mapping[str, Record], qualities: Sequence[Record], *, floors: bool) -> str:
    """The accuracy of boxes and how far kept predictions are above rejected ones, beside the figures to reach."""
    cells = [
        _figure(f"accuracy of boxes ({_model(record)})", record, _metric(record, "rec_accuracy"), ACCURACY, floors)
        for record in boxes.values()
        if _has(record, "rec_accuracy")
    ]
    for record in qualities:
        if _has(record, "kept_iou") and _has(record, "rejected_iou"):
            apart = _metric(record, "kept_iou") - _metric(record, "rejected_iou")
            columns = record["columns"]
            what = f"kept − rejected IoU, d < {columns['threshold']:g}, {columns['percent']:g} %"
            cells.append(_figure(what, record, apart, APART, floors))
    return table(["figure", "seed", "value", "to reach", "reached"], sorted(cells)) if cells else ""


def _figure(what: str, record: Record, value: float, floor: float, floors: bool) -> list[str]:
    told = [f"{floor:g}", "yes" if value >= floor else "no"] if floors else ["-", "-"]
    return [what, _seed(record), f"{value:.3f}", *told]


def _has(record: Record, metric: str) -> bool:
    return record["metrics"].get(metric, {}).get("value") is not None


def _metric(record: Record, metric: str) -> float:
    return float(record["metrics"][metric]["value"])


def _seed(record: Record) -> str:
    return str(record["columns"].get("seed"))


def _model(record: Record) -> str:
    return str(record["columns"].get("model", "-"))


@command
def main(arguments: Sequence[str] | None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m analysis.referring", description=__doc__.splitlines()[0])
    names = ("profile", "data", "encoder", "recipe", "model", "text", "percent", "contour_points", "seed")
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
