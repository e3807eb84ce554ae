"""Tables from run.json files: mask quality, AP and retention. `python -m analysis.summary` prints the whole store's."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.records import Record, UnreadableRecordError, by_address, finished
from analysis.rendering import Table, markdown_rows
from analysis.seeds import over_seeds, spread
from analysis.settings import WEIGHTS, weights_of

WEAKEST = {"shapes": 0.20}  # see `weakest`
WEAKEST_ELSEWHERE = 0.15
PAPER_DATA = ("coco", "lvis")
IDENTITY = ("recipe", "encoder", "decoder", "theta", "segmenter", "seed", "key")  # `key` differs where no other does
QUALITY = {
    "iou": "IoU",
    "iou_class": "IoU (class mean)",
    "iou_S": "S",
    "iou_M": "M",
    "iou_L": "L",
    "share_50": "> .5",
    "share_75": "> .75",
    "boundary_iou": "boundary IoU",
}
AP = {"mask_ap": "mask AP", "mask_ap50": "AP50", "mask_ap75": "AP75", "box_ap": "box AP"}
CLUSTERING = {
    "clustering": "score",
    "clustering_S": "S",
    "clustering_M": "M",
    "clustering_L": "L",
    "clustering_global": "one pair of centres for all",
}
LABELERS = {
    "mal": "MAL",
    "box": "filled box",
    "ellipse": "inscribed ellipse",
    "grabcut": "GrabCut",
    "sam": "SAM",
    "file": "given file",
    "gt": "human masks",
}


def summary(records: Iterable[Record]) -> str:
    """Markdown tables of some stages' records: one part for each profile and data set among them."""
    groups: dict[tuple[str, str], list[Record]] = {}
    records = list(records)
    for record in records:
        columns = record["columns"]
        groups.setdefault((columns["profile"], columns["data"]), []).append(record)
    known = by_address(records)  # of all groups: a detector trained under one profile serves every other
    return "\n\n".join(_group(*names, group, known) for names, group in sorted(groups.items()))


def _group(profile: str, data: str, records: list[Record], known: dict[str, Record]) -> str:
    parts = [f"profile {profile}, data {data}: {_labeler_schedules(records)}"]
    if profile != "paper" or data not in PAPER_DATA:
        parts.append("Not comparable with the paper's numbers: another scale, other data.")
    for stage, where in (("quality_val", "validation"), ("quality_train", "training")):
        chosen = [r for r in records if r["stage"] == stage]
        if chosen:
            parts.append(f"Mask quality on the {where} images ({_counts(chosen, 'iou')} instances)")
            parts.append(_quality(chosen))
    chosen = [r for r in records if r["stage"] == "clustering_val"]
    if chosen:
        parts.append(f"Clustering score (Eq. 6; smaller is better), {_counts(chosen, 'clustering')} crops or images")
        parts.append(_clustering(chosen))
    chosen = [r for r in records if r["stage"] == "ap_val"]
    if chosen:
        ratios = {r["inputs"]["pseudo"]: r for r in records if r["stage"] == "retention"}
        parts.append(f"{_segmenters(records, chosen)} on {_counts(chosen, 'box_ap')} validation images")
        parts.append(_retention(chosen, ratios, known))
        parts += _over_seeds(chosen, ratios, known)
    return "\n\n".join(parts)


def _labeler_schedules(records: list[Record]) -> str:
    """How the labelers among the records were trained, in words."""
    lines = []
    for record in records:
        if record["stage"] == "train_labeler":
            columns, config = record["columns"], record["config"]
            lines.append(
                f"encoder {columns['encoder']}, recipe {columns['recipe']}, "
                f"{record['metrics']['steps']['value']:g} steps of {config['train']['batch']} RoIs at "
                f"{config['roi']['size']}², seed {columns['seed']}, {record['seconds'] / 60:.1f} min"
            )
    return "; ".join(dict.fromkeys(lines)) or "no labeler trained"


def _segmenters(records: list[Record], scores: list[Record]) -> str:
    """Which segmenters gave the scores and how long they were trained, in words."""
    schedules = {}
    for record in records:
        if record["stage"] == "train_segmenter":
            plan = record["config"]["segmenter"]["schedule"]
            length = f"{plan['epochs']:g} epochs" if plan["steps"] is None else f"{plan['steps']} steps"
            schedules[record["columns"]["segmenter"]] = f" ({length} of {plan['batch']} images a step)"
    names = sorted({record["columns"]["segmenter"] for record in scores})
    return "Segmenter " + ", ".join(name + schedules.get(name, "") for name in names)


def _quality(records: list[Record]) -> str:
    header, identified = _identified(records, lambda r: labeler_name(r["columns"]["labeler"]))
    rows = [[*cells, *(_number(r, metric) for metric in QUALITY)] for r, cells in identified]
    return table(["labeler", *header, *QUALITY.values()], rows)


def _retention(scores: list[Record], ratios: dict[str, Record], known: dict[str, Record]) -> str:
    """AP with human masks and with pseudo-labels, and their ratio where the former is enough to divide by."""
    header, identified = _identified(scores, _supervision)
    rows = []
    for record, cells in identified:
        found = ratio(record, ratios, known)
        numbers = [_number(record, metric) for metric in AP]
        rows.append([*cells, *numbers, found if isinstance(found, str) else _interval(found)])
    return table(["trained on", *header, *AP.values(), "retention [95 % interval]"], rows)


def _clustering(records: list[Record]) -> str:
    def name(record: Record) -> str:
        return f"{record['columns']['encoder']}, {WEIGHTS[weights_of(record)]}, {record['config']['source']}"

    header, identified = _identified(records, name)
    rows = [[*cells, *(_number(r, metric) for metric in CLUSTERING)] for r, cells in identified]
    return table(["encoder", *header, *CLUSTERING.values()], rows)


def weakest(data: str) -> float:
    """The human-mask AP, in [0, 1], under which a ratio to it means nothing on a data set."""
    return WEAKEST.get(data, WEAKEST_ELSEWHERE)


def ratio(score: Record, ratios: dict[str, Record], known: dict[str, Record]) -> Record | str:
    """The retention that belongs to an AP with pseudo-labels, or why there is none to show.

    Args:
        score: an ap_val record. ratios: retention records by their `pseudo` input. known: all records by address.
    """
    found = ratios.get(f"ap_val/{score['key']}")
    if found is None:
        return "-"
    human = known.get(found["inputs"]["human"])
    if human is None:
        return "the AP with human masks is missing"
    least = weakest(score["columns"]["data"])
    if human["metrics"]["mask_ap"]["value"] < least:
        return f"too weak to divide by (human < {least:g})"
    if "retention" not in found["metrics"]:
        return "without a finite interval"  # a resample of the images has a human-mask AP of 0
    return found


def _over_seeds(scores: list[Record], ratios: dict[str, Record], known: dict[str, Record]) -> list[str]:
    """For what was run with several seeds: how far they lie apart, beside what the images say within each."""
    identified = _identified(scores, _supervision)[1]
    groups = [group for group in over_seeds([record for record, _ in identified], known) if len(group) > 1]
    header, named = _identified([group[0] for group in groups], _supervision, but="seed")
    rows = []
    for first, cells in named:
        group = next(group for group in groups if group[0] is first)
        found = [ratio(record, ratios, known) for record in group]
        whole = [r["metrics"]["retention"]["value"] for r in found if not isinstance(r, str)]
        each = [
            f"{r['columns']['seed']}: {f if isinstance(f, str) else _interval(f)}"
            for r, f in zip(group, found, strict=True)
        ]
        aps = [r["metrics"]["mask_ap"]["value"] for r in group if "mask_ap" in r["metrics"]]
        rows.append(
            [
                *cells,
                str(len(group)),
                spread(aps, "{:.3f}") if aps else "-",
                spread(whole, "{:.1%}") if len(whole) == len(group) else "-",
                "; ".join(each) if any(f != "-" for f in found) else "-",
            ]
        )
    titles = ["seeds", "mask AP, mean (lowest … highest)", "retention, likewise", "each seed's [95 % interval]"]
    return ["Over seeds", table(["trained on", *header, *titles], rows)] if rows else []


def _supervision(record: Record) -> str:
    """What a segmenter was trained on, in words."""
    columns = record["columns"]
    if columns["supervision"] == "human":
        return "human masks"
    if columns["supervision"] == "boxes":
        return "boxes, no mask head"
    if columns["supervision"] == "published":
        return published_name(columns)
    if columns["labeler"] == "gt":
        return "human masks, copied"
    return labeler_name(columns["labeler"], "masks")


def published_name(columns: Mapping[str, Any]) -> str:
    """Published weights in words, with the mask AP that is printed beside them, where that is known."""
    printed = columns.get("printed_mask_ap")
    return "published weights" + (f" (printed mask AP .{round(10 * printed):03d})" if printed is not None else "")


def labeler_name(labeler: str, of: str = "") -> str:
    """A labeler in words; `mal:coco` is MAL trained on coco, not on the data that it labels."""
    name, _, data = labeler.partition(":")
    return " ".join(filter(None, (LABELERS.get(name, name), of, data and f"(labeler trained on {data})")))


def _identified(
    records: list[Record], name: Callable[[Record], str], *, but: str = ""
) -> tuple[list[str], list[tuple[Record, list[str]]]]:
    """What tells the records of a table apart: a name, and every setting (`but` one) in which two of a name differ.

    Returns:
        The settings' names; the records in the table's order, each with the cells of its name and settings.
    """
    shown: list[str] = []

    def values(record: Record) -> list[Any]:
        return [_setting(record, setting) for setting in shown]

    for setting in (setting for setting in IDENTITY if setting != but):
        alike: dict[tuple[Any, ...], set[Any]] = {}
        for record in records:
            alike.setdefault((name(record), *values(record)), set()).add(_setting(record, setting))
        if any(len(different) > 1 for different in alike.values()):
            shown.append(setting)

    def rank(record: Record) -> tuple[Any, ...]:
        labeler, names = _setting(record, "labeler"), list(LABELERS)
        place = names.index(labeler) if labeler in names else len(names)
        sortable = [(value is not None, value) for value in values(record)]
        return _setting(record, "supervision") not in ("human", "boxes"), place, name(record), sortable, record["key"]

    ordered = sorted(records, key=rank)
    return shown, [(r, [name(r), *("" if value is None else str(value) for value in values(r))]) for r in ordered]


def _setting(record: Record, name: str) -> Any:
    return record["key"][:8] if name == "key" else record["columns"].get(name)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned to be read in a terminal too: the first column left, the others right."""
    return markdown_rows(Table("summary", "", tuple(header), tuple(map(tuple, rows))))


def _counts(records: list[Record], metric: str) -> str:
    return " or ".join(map(str, sorted({r["metrics"][metric]["n"] for r in records})))


def _number(record: Record, metric: str) -> str:
    entry = record["metrics"].get(metric)
    return "-" if entry is None else f"{entry['value']:.3f}"


def _interval(record: Record) -> str:
    value, low, high = (record["metrics"][f"retention{part}"]["value"] for part in ("", "_low", "_high"))
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of a store."""
    parser = argparse.ArgumentParser(prog="python -m analysis.summary", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("results/runs"), help="folder of run.json files")
    try:
        records = finished(parser.parse_args(arguments).store)
    except UnreadableRecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
