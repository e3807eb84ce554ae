"""Tables from run.json files: mask quality, AP and retention. `python -m analysis.summary` prints the whole store's."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.columns import PAPER_DATA, supervision_name
from analysis.denominators import Kept, by_score, kept_groups, must_be_said, names_of, usable
from analysis.lineage import WEIGHTS, weights_of
from analysis.recipes import recipe_name
from analysis.records import Record, address, by_address, finished, grouped
from analysis.referring_names import method_name
from analysis.rendering import spread
from analysis.sources import command
from analysis.summary_cells import count_of, images, number, table, told_apart
from analysis.summary_methods import (
    BESIDE_MIOU,
    BOXES,
    EXPRESSIONS,
    beside_miou,
    key_points,
    maps,
    miou,
    own,
    referring,
    referring_schedule,
)
from mal.engine.tracking_address import DEFAULT_STORE

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
OWN_MASKS = "iou_own"  # of labels that have flagged ones: over the others
AP = {"mask_ap": "mask AP", "mask_ap50": "AP50", "mask_ap75": "AP75", "box_ap": "box AP"}
CLUSTERING = {
    "clustering": "score",
    "clustering_S": "S",
    "clustering_M": "M",
    "clustering_L": "L",
    "clustering_global": "one pair of centres for all",
}


def summary(records: Iterable[Record]) -> str:
    """Markdown tables of some stages' records: one part for each profile and data set among them."""
    records = list(records)
    groups = grouped(records, lambda record: (record["columns"]["profile"], record["columns"]["data"]))
    known = by_address(records)  # of all groups: a detector trained under one profile serves every other
    return "\n\n".join(_group(*names, group, known) for names, group in sorted(groups.items()))


def _group(profile: str, data: str, records: list[Record], known: dict[str, Record]) -> str:
    parts = [f"profile {profile}, data {data}: {_labeler_schedules(records, known)}"]
    if profile != "paper" or data not in PAPER_DATA:
        parts.append("Not comparable with the paper's numbers: another scale, other data.")
    for stage in ("quality_val", "quality_train"):
        chosen = [r for r in records if r["stage"] == stage]
        if chosen:
            where = "the training images" if stage == "quality_train" else images(chosen)
            parts.append(f"Mask quality on {where} ({count_of(chosen, 'iou')} instances)")
            parts.append(_quality(chosen, known))
    chosen = [r for r in records if r["stage"] == "clustering_val"]
    if chosen:
        parts.append(f"Clustering score (Eq. 6; smaller is better), {count_of(chosen, 'clustering')} crops or images")
        parts.append(_clustering(chosen, known))
    chosen = [r for r in records if r["stage"] == "ap_val"]
    if chosen:
        groups = kept_groups(chosen, known)
        parts.append(f"{_segmenters(records, chosen)} on {count_of(chosen, 'box_ap')} validation images")
        parts.append(_retention(groups, known))
        parts += _over_seeds(groups, known)
    chosen = [r for r in records if r["stage"] == "maps_val"]
    if chosen:
        parts.append(
            f"Where point tokens look, {count_of(chosen, 'peak_chance')} objects; k blocks of attention multiplied"
        )
        parts.append("\n\n".join(map(maps, chosen)))
    chosen = [r for r in records if r["stage"] == "key_points_val"]
    if chosen:
        parts.append(f"Key-points, of {count_of(chosen, 'part_coverage')} objects whose parts are known")
        parts.append(key_points(chosen, known))
    chosen = [r for r in records if r["stage"] == "own_ap_val"]
    if chosen:
        count = count_of(chosen, "mask_ap")
        parts.append(f"The methods' own detectors on {count} validation images; mAP: VOC's 11-point form")
        parts.append(own(chosen, known))
    chosen = [r for r in records if r["stage"] == "miou_val"]
    if chosen:
        parts.append(f"Mean IoU in % on {count_of(chosen, 'miou')} validation images [95 % interval]")
        parts.append(miou(chosen, known))
    for stage, title, names in (
        ("rec_val", "Boxes from expressions", BOXES),
        ("res_val", "Masks from expressions", EXPRESSIONS),
    ):
        chosen = [r for r in records if r["stage"] == stage]
        if chosen:
            counts = f"{count_of(chosen, next(iter(names)))} expressions of {images(chosen)}"
            parts.append(f"{title}, {counts} [95 % interval]")
            parts.append(referring(chosen, known, names))
    if any(r["stage"] in BESIDE_MIOU for r in records):
        parts += beside_miou(records)
    return "\n\n".join(parts)


def _labeler_schedules(records: list[Record], known: dict[str, Record]) -> str:
    """How the labelers among the records were trained, in words."""
    lines = []
    for record in records:
        columns, config = record["columns"], record["config"]
        if record["stage"] == "train_attentionshift":
            lines.append(
                f"AttentionShift, encoder {columns['encoder']}, recipe {columns['recipe']}, "
                f"{record['metrics']['steps']['value']:g} steps of {config['attentionshift']['learning']['batch']} "
                f"images, seed {columns['seed']}, {record['seconds'] / 60:.1f} min"
            )
        if record["stage"] == "train_bestie":
            lines.append(
                f"BESTIE, encoder {columns['encoder']}, recipe {columns['recipe']}, "
                f"{record['metrics']['steps']['value']:g} steps of {config['bestie']['learning']['batch']} images, "
                f"seed {columns['seed']}, {record['seconds'] / 60:.1f} min"
            )
        if record["stage"] == "train_simformer":
            learning = config["simformer"]["learning"]
            lines.append(
                f"SimFormer, encoder {columns['encoder']}, recipe {columns['recipe']}, {learning['warm_start']} + "
                f"{learning['steps']} steps of {learning['batch']} images, seed {columns['seed']}, "
                f"{record['seconds'] / 60:.1f} min"
            )
        if record["stage"] in ("train_rec", "train_res"):
            lines.append(referring_schedule(record))
        if record["stage"] == "train_labeler":
            lines.append(
                f"encoder {columns['encoder']}, recipe {recipe_name(record, known)}, "
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
            schedules[record["columns"]["segmenter"]] = f" ({length} of {plan['batch']} images per step)"
    names = sorted({record["columns"]["segmenter"] for record in scores})
    return "Segmenter " + ", ".join(name + schedules.get(name, "") for name in names)


def _quality(records: list[Record], known: dict[str, Record]) -> str:
    """Where labels are filled boxes, or such, for want of a mask, their number and the IoU of the other masks, too."""
    header, identified = told_apart(records, known, lambda r: method_name(r["columns"]))
    rows = [[*cells, *(number(r, metric) for metric in QUALITY)] for r, cells in identified]
    more = []
    if any(OWN_MASKS in record["metrics"] for record in records):
        more = ["flagged", "IoU of the others"]
        rows = [[*row, _flagged(r), number(r, OWN_MASKS)] for row, (r, _) in zip(rows, identified, strict=True)]
    return table(["labeler", *header, *QUALITY.values(), *more], rows)


def _flagged(record: Record) -> str:
    """How many of the scored instances have no mask of their own."""
    whole, own = (record["metrics"].get(name) for name in ("iou", OWN_MASKS))
    return "-" if whole is None or own is None else str(whole["n"] - own["n"])


def _retention(groups: list[list[Kept]], known: dict[str, Record]) -> str:
    """AP with human masks and with pseudo-labels, and their ratio where the former is enough to divide by.

    An AP has a line for each of its denominators, which are named where they are not simply the human masks' AP.
    """
    kept, said = by_score(groups), must_be_said(names_of(groups))
    header, identified = told_apart([some[0].score for some in kept.values()], known, _trained_on)
    rows = []
    for record, cells in identified:
        numbers = [number(record, metric) for metric in AP]
        rows += [
            [*cells, *numbers, *([one.over or "-"] if said else []), _share(one, known)]
            for one in kept[address(record)]
        ]
    over = ["divided by the AP of"] if said else []
    return table(["trained on", *header, *AP.values(), *over, "retention [95 % interval]"], rows)


def _share(one: Kept, known: dict[str, Record]) -> str:
    found = usable(one, known)
    return found if isinstance(found, str) else _interval(found)


def _clustering(records: list[Record], known: dict[str, Record]) -> str:
    def name(record: Record) -> str:
        return f"{record['columns']['encoder']}, {WEIGHTS[weights_of(record)]}, {record['config']['source']}"

    header, identified = told_apart(records, known, name)
    rows = [[*cells, *(number(r, metric) for metric in CLUSTERING)] for r, cells in identified]
    return table(["encoder", *header, *CLUSTERING.values()], rows)


def _over_seeds(groups: list[list[Kept]], known: dict[str, Record]) -> list[str]:
    """For what was run with several seeds: how far they lie apart, beside what the images say within each.

    Every denominator has a line of its own.
    """
    said = must_be_said(names_of(groups))
    several = grouped((group for group in groups if len(group) > 1), lambda group: address(group[0].score))
    header, named = told_apart([some[0][0].score for some in several.values()], known, _trained_on, but="seed")
    rows = []
    for first, cells in named:
        for group in several[address(first)]:
            found = [usable(one, known) for one in group]
            whole = [r["metrics"]["retention"]["value"] for r in found if not isinstance(r, str)]
            each = [f"{one.score['columns']['seed']}: {_share(one, known)}" for one in group]
            aps = [one.score["metrics"]["mask_ap"]["value"] for one in group if "mask_ap" in one.score["metrics"]]
            rows.append(
                [
                    *cells,
                    str(len(group)),
                    spread(aps, "{:.3f}") if aps else "-",
                    *([names_of([group])[0] or "-"] if said else []),
                    spread(whole, "{:.1%}") if len(whole) == len(group) else "-",
                    "; ".join(each) if any(f != "-" for f in found) else "-",
                ]
            )
    over = ["divided by the AP of"] if said else []
    titles = ["seeds", "mask AP, mean (lowest … highest)", *over, "retention, likewise", "each seed's [95 % interval]"]
    return ["Over seeds", table(["trained on", *header, *titles], rows)] if rows else []


def _trained_on(record: Record) -> str:
    return supervision_name(record["columns"])


def _interval(record: Record) -> str:
    value, low, high = (record["metrics"][f"retention{part}"]["value"] for part in ("", "_low", "_high"))
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


@command
def main(arguments: Sequence[str] | None) -> None:
    """Print the tables of a store."""
    parser = argparse.ArgumentParser(prog="python -m analysis.summary", description=__doc__)
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help="folder of run.json files")
    print(summary(finished(parser.parse_args(arguments).store)))


if __name__ == "__main__":
    sys.exit(main())
