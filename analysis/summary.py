"""Tables from run.json files: mask quality, AP and retention. `python -m analysis.summary` prints the whole store's."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.columns import METHOD, PAPER_DATA, labeler_name, rank, supervision_name
from analysis.denominators import Kept, by_score, kept_groups, must_be_said, names_of, usable
from analysis.lineage import WEIGHTS, unlike, weights_of
from analysis.recipes import departures, recipe_name, shown
from analysis.records import Record, address, by_address, finished, grouped
from analysis.referring_names import method_name, network_name
from analysis.rendering import Table, markdown_rows, spread
from analysis.sources import command
from mal.engine.tracking_address import DEFAULT_STORE

# what tells results apart: columns, `settings` unlike the recipe's, and `key`, which differs where nothing else does
IDENTITY = (*METHOD, "segmenter", "settings", "seed", "key")
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
MAPS = {
    "auc": "AUC",
    "peak": "peak on the object",
    "box_iou_expand": "box IoU (expand)",
    "box_iou_min_max": "box IoU (min_max)",
}
OWN = {"mask_map25": "mAP25", "mask_map50": "mAP50", "mask_map75": "mAP75", "mask_ap": "mask AP", "box_ap": "box AP"}
MIOU = {"novel_miou": "novel mIoU", "subset_miou": "of the subset", "base_miou": "base mIoU", "miou": "all classes"}
EXPRESSIONS = {
    "mean_iou": "IoU",
    "overall_iou": "overall IoU",
    "pr50": "Pr@.5",
    "pr70": "Pr@.7",
    "pr90": "Pr@.9",
    "crowd_iou": "crowd IoU",
    "ceiling": "ceiling",
}
BOXES = {"rec_accuracy": "accuracy", "box_iou": "IoU of the box, filled", "ellipse_iou": "IoU of its ellipse"}
EXTENT = (
    "d: how far the extent of a prediction is from that of the given box, along x and y: 0 where they agree, 2 where "
    "they do not meet"
)
BESIDE_MIOU = ("pseudo_quality_train", "similarity_val")  # stages
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
            where = "the training images" if stage == "quality_train" else _images(chosen)
            parts.append(f"Mask quality on {where} ({_counts(chosen, 'iou')} instances)")
            parts.append(_quality(chosen, known))
    chosen = [r for r in records if r["stage"] == "clustering_val"]
    if chosen:
        parts.append(f"Clustering score (Eq. 6; smaller is better), {_counts(chosen, 'clustering')} crops or images")
        parts.append(_clustering(chosen, known))
    chosen = [r for r in records if r["stage"] == "ap_val"]
    if chosen:
        groups = kept_groups(chosen, known)
        parts.append(f"{_segmenters(records, chosen)} on {_counts(chosen, 'box_ap')} validation images")
        parts.append(_retention(groups, known))
        parts += _over_seeds(groups, known)
    chosen = [r for r in records if r["stage"] == "maps_val"]
    if chosen:
        parts.append(
            f"Where point tokens look, {_counts(chosen, 'peak_chance')} objects; k blocks of attention multiplied"
        )
        parts.append("\n\n".join(map(_maps, chosen)))
    chosen = [r for r in records if r["stage"] == "own_ap_val"]
    if chosen:
        count = _counts(chosen, "mask_ap")
        parts.append(f"The methods' own detectors on {count} validation images; mAP: VOC's 11-point form")
        parts.append(_own(chosen, known))
    chosen = [r for r in records if r["stage"] == "miou_val"]
    if chosen:
        parts.append(f"Mean IoU in % on {_counts(chosen, 'miou')} validation images [95 % interval]")
        parts.append(_miou(chosen, known))
    for stage, title, names in (
        ("rec_val", "Boxes from expressions, which no mask was seen for", BOXES),
        ("res_val", "Masks from expressions", EXPRESSIONS),
    ):
        chosen = [r for r in records if r["stage"] == stage]
        if chosen:
            counts = f"{_counts(chosen, next(iter(names)))} expressions of {_images(chosen)}"
            parts.append(f"{title}, {counts} [95 % interval]")
            parts.append(_referring(chosen, known, names))
    if any(r["stage"] in BESIDE_MIOU for r in records):
        parts += _beside_miou(records)
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
        if record["stage"] == "train_simformer":
            learning = config["simformer"]["learning"]
            lines.append(
                f"SimFormer, encoder {columns['encoder']}, recipe {columns['recipe']}, {learning['warm_start']} + "
                f"{learning['steps']} steps of {learning['batch']} images, seed {columns['seed']}, "
                f"{record['seconds'] / 60:.1f} min"
            )
        if record["stage"] in ("train_rec", "train_res"):
            lines.append(_referring_schedule(record))
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
    header, identified = _identified(records, known, lambda r: method_name(r["columns"]))
    rows = [[*cells, *(_number(r, metric) for metric in QUALITY)] for r, cells in identified]
    more = []
    if any(OWN_MASKS in record["metrics"] for record in records):
        more = ["flagged", "IoU of the others"]
        rows = [[*row, _flagged(r), _number(r, OWN_MASKS)] for row, (r, _) in zip(rows, identified, strict=True)]
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
    header, identified = _identified([some[0].score for some in kept.values()], known, _trained_on)
    rows = []
    for record, cells in identified:
        numbers = [_number(record, metric) for metric in AP]
        rows += [
            [*cells, *numbers, *([one.over or "-"] if said else []), _share(one, known)]
            for one in kept[address(record)]
        ]
    over = ["divided by the AP of"] if said else []
    return table(["trained on", *header, *AP.values(), *over, "retention [95 % interval]"], rows)


def _share(one: Kept, known: dict[str, Record]) -> str:
    found = usable(one, known)
    return found if isinstance(found, str) else _interval(found)


def _maps(record: Record) -> str:
    """By depth, and beside it what chance and a constant box come to."""
    depths = sorted(int(name.removeprefix("auc_")) for name in record["metrics"] if name.startswith("auc_"))
    names = list(MAPS)
    rows = [[str(k), *(_number(record, f"{name}_{k}") for name in names)] for k in depths]
    rows.append(["chosen box", "-", "-", *[_number(record, "box_iou_chosen")] * 2])
    rows.append(
        ["chance, constant box", "0.500", _number(record, "peak_chance"), *[_number(record, "box_iou_constant")] * 2]
    )
    return table(["k", *MAPS.values()], rows)


def _own(records: list[Record], known: dict[str, Record]) -> str:
    header, identified = _identified(records, known, lambda r: labeler_name(r["columns"]["labeler"]))
    rows = [[*cells, *(_number(r, metric) for metric in OWN)] for r, cells in identified]
    return table(["detector", *header, *OWN.values()], rows)


def _miou(records: list[Record], known: dict[str, Record]) -> str:
    header, identified = _identified(records, known, weak_shot_name)
    shown = [metric for metric in MIOU if any(metric in r["metrics"] for r in records)]
    rows = [[*cells, *(_percent(r, metric) for metric in shown)] for r, cells in identified]
    return table(["learned from", *header, *(MIOU[metric] for metric in shown)], rows)


def _referring(records: list[Record], known: dict[str, Record], names: Mapping[str, str]) -> str:
    """A column each metric that a record has."""
    header, identified = _identified(records, known, lambda r: network_name(r["columns"]))
    shown_names = [name for name in names if any(name in r["metrics"] for r in records)]
    rows = [[*cells, *(_bounded(r, name) for name in shown_names)] for r, cells in identified]
    return table(["network", *header, *(names[name] for name in shown_names)], rows)


def _bounded(record: Record, metric: str) -> str:
    """A metric, and its interval where the record has one; of a share of expressions the value alone."""
    ends = [record["metrics"].get(f"{metric}{end}") for end in ("_low", "_high")]
    if metric.startswith("pr") or any(end is None for end in ends):
        return _number(record, metric)
    low, high = (end["value"] for end in ends if end is not None)
    return f"{_number(record, metric)} [{low:.3f}, {high:.3f}]"


def _referring_schedule(record: Record) -> str:
    """How Partial-RES or its rival learned boxes or masks, in words."""
    columns = record["columns"]
    part = record["stage"].removeprefix("train_")
    batch = record["config"]["partialres"][part]["batch"]
    what = "boxes" if part == "rec" else f"masks of {columns['percent']:g} %"
    return (
        f"{network_name(columns)}, {what}, encoder {columns['encoder']}, recipe {columns['recipe']}, "
        f"{record['metrics']['steps']['value']:g} steps of {batch} expressions, seed {columns['seed']}, "
        f"{record['seconds'] / 60:.1f} min"
    )


def _beside_miou(records: list[Record]) -> list[str]:
    """How good what a network learned from was, in sentences."""
    lines = []
    for record in records:
        values = {name: entry["value"] for name, entry in record["metrics"].items()}
        if record["stage"] == "pseudo_quality_train" and record["columns"]["labeler"] == "partialres":
            lines.append(_kept(record["columns"], values))
        elif record["stage"] == "pseudo_quality_train":
            lines.append(
                f"Pseudo-labels ({record['columns']['pseudo']}): {values['share_kept']:.1%} of the novel training "
                f"pixels have a label, {values['share_right']:.1%} of these the right one"
            )
        if record["stage"] == "similarity_val" and values:
            teacher = f"teacher {values['teacher_auc']:.3f}, " if "teacher_auc" in values else ""
            lines.append(
                f"Pairs of novel validation pixels, same class or not: AUC of {teacher}student "
                f"{values['student_auc']:.3f} (chance .5)"
            )
    return [*lines, *([EXTENT] if any("threshold" in record["columns"] for record in records) else [])]


def _kept(columns: Mapping[str, Any], values: Mapping[str, float]) -> str:
    """How good pseudo masks were, in a sentence; metrics of what there was none of are absent."""
    told = {
        "kept_iou": "IoU of these {:.3f}",
        "rejected_iou": "of the others {:.3f}",
        "correlation": "d and IoU: {:+.2f}",
    }
    more = [text.format(values[name]) for name, text in told.items() if name in values]
    threshold = f", d < {columns['threshold']:g}" if columns.get("threshold") is not None else ""
    return f"Pseudo masks ({columns['pseudo']}{threshold}): {values['share_kept']:.1%} kept" + "".join(
        f"; {one}" for one in more
    )


def weak_shot_name(record: Record) -> str:
    """What a network learned from, in words."""
    columns = record["columns"]
    if columns["supervision"] != "weak":
        return {"oracle": "all masks (oracle)", "published": "all masks (published)"}[columns["supervision"]]
    name = "plain" if columns["pseudo"] in ("cam", "complement") else f"pairs {columns['pairs']}"
    stars = {"none": "", "own": ", re-trained", "cam": "re-trained on CAMs", "complement": "re-trained on complements"}
    return stars[columns["pseudo"]] if name == "plain" else name + stars[columns["pseudo"]]


def _clustering(records: list[Record], known: dict[str, Record]) -> str:
    def name(record: Record) -> str:
        return f"{record['columns']['encoder']}, {WEIGHTS[weights_of(record)]}, {record['config']['source']}"

    header, identified = _identified(records, known, name)
    rows = [[*cells, *(_number(r, metric) for metric in CLUSTERING)] for r, cells in identified]
    return table(["encoder", *header, *CLUSTERING.values()], rows)


def _over_seeds(groups: list[list[Kept]], known: dict[str, Record]) -> list[str]:
    """For what was run with several seeds: how far they lie apart, beside what the images say within each.

    Every denominator has a line of its own.
    """
    said = must_be_said(names_of(groups))
    several = grouped((group for group in groups if len(group) > 1), lambda group: address(group[0].score))
    header, named = _identified([some[0][0].score for some in several.values()], known, _trained_on, but="seed")
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


def _identified(
    records: list[Record], known: Mapping[str, Record], name: Callable[[Record], str], *, but: str = ""
) -> tuple[list[str], list[tuple[Record, list[str]]]]:
    """What tells the records of a table apart: a name, and every setting (`but` one) in which two of a name differ.

    Returns:
        The settings' names; the records in the table's order, each with the cells of its name and settings.
    """
    columns: list[str] = []
    cells = [[name(record)] for record in records]
    for setting in (setting for setting in IDENTITY if setting != but):
        values = [identity(record, setting, known) for record in records]
        by = [record["columns"].get("recipe") for record in records] if setting == "recipe" else values
        if any(unlike([tuple(row) for row in cells], by)):
            columns.append(setting)
            cells = [[*row, value] for row, value in zip(cells, values, strict=True)]

    def place(pair: tuple[Record, list[Any]]) -> tuple[Any, ...]:
        record, (title, *values) = pair
        baseline = record["columns"].get("supervision") in ("human", "boxes")
        sortable = [(value is not None, value) for value in values]
        return not baseline, rank(record["columns"]), title, sortable, record["key"]

    ordered = sorted(zip(records, cells, strict=True), key=place)
    return columns, [(r, ["" if value is None else str(value) for value in row]) for r, row in ordered]


def identity(record: Record, name: str, known: Mapping[str, Record]) -> Any:
    """What a record has of one of `IDENTITY`, to be shown; a recipe's name with what is otherwise than it says."""
    if name == "recipe":
        return recipe_name(record, known)
    if name == "settings":
        return " ".join(shown(departures(record, known))) or None
    return record["key"][:8] if name == "key" else record["columns"].get(name)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned to be read in a terminal too: the first column left, the others right."""
    return markdown_rows(Table("summary", "", tuple(header), tuple(map(tuple, rows))))


def _counts(records: list[Record], metric: str) -> str:
    return " or ".join(map(str, sorted({r["metrics"][metric]["n"] for r in records})))


def _images(records: list[Record]) -> str:
    """Which validation images were scored."""
    placed = sorted({record["config"].get("images", "all") for record in records})
    return " or ".join(
        "the validation images" if it == "all" else f"the {it}-placed validation images" for it in placed
    )


def _number(record: Record, metric: str) -> str:
    entry = record["metrics"].get(metric)
    return "-" if entry is None else f"{entry['value']:.3f}"


def _percent(record: Record, metric: str) -> str:
    """A share and its interval, in %."""
    values = [record["metrics"].get(f"{metric}{end}") for end in ("", "_low", "_high")]
    if any(value is None for value in values):
        return "-"
    value, low, high = (100 * found["value"] for found in values if found is not None)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


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
