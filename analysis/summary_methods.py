"""What runs of single methods end with, beside masks and APs: maps, own detectors, class maps, expressions."""

from collections.abc import Mapping
from typing import Any

from analysis.columns import labeler_name
from analysis.records import Record
from analysis.referring_names import network_name
from analysis.summary_cells import bounded, number, percent, table, told_apart

MAPS = {
    "auc": "AUC",
    "peak": "peak on the object",
    "box_iou_expand": "box IoU (expand)",
    "box_iou_min_max": "box IoU (min_max)",
}
KEY_POINTS = {
    "key_point_precision": "on their object",
    "part_coverage": "parts that have one",
    "key_points": "for each object",
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


def maps(record: Record) -> str:
    """By depth, and beside it what chance and a constant box come to."""
    depths = sorted(int(name.removeprefix("auc_")) for name in record["metrics"] if name.startswith("auc_"))
    names = list(MAPS)
    rows = [[str(k), *(number(record, f"{name}_{k}") for name in names)] for k in depths]
    rows.append(["chosen box", "-", "-", *[number(record, "box_iou_chosen")] * 2])
    rows.append(
        ["chance, constant box", "0.500", number(record, "peak_chance"), *[number(record, "box_iou_constant")] * 2]
    )
    return table(["k", *MAPS.values()], rows)


def key_points(records: list[Record], known: dict[str, Record]) -> str:
    """In the boxes that the networks choose, and in human ones."""
    header, identified = told_apart(records, known, lambda r: labeler_name(r["columns"]["labeler"]))
    rows = [
        [*cells, box, *(number(r, f"{metric}{suffix}") for metric in KEY_POINTS)]
        for r, cells in identified
        for box, suffix in (("chosen", ""), ("human", "_human_box"))
    ]
    return table(["labeler", *header, "box", *KEY_POINTS.values()], rows)


def own(records: list[Record], known: dict[str, Record]) -> str:
    header, identified = told_apart(records, known, lambda r: labeler_name(r["columns"]["labeler"]))
    rows = [[*cells, *(number(r, metric) for metric in OWN)] for r, cells in identified]
    return table(["detector", *header, *OWN.values()], rows)


def miou(records: list[Record], known: dict[str, Record]) -> str:
    header, identified = told_apart(records, known, weak_shot_name)
    shown = [metric for metric in MIOU if any(metric in r["metrics"] for r in records)]
    rows = [[*cells, *(percent(r, metric) for metric in shown)] for r, cells in identified]
    return table(["learned from", *header, *(MIOU[metric] for metric in shown)], rows)


def referring(records: list[Record], known: dict[str, Record], names: Mapping[str, str]) -> str:
    """A column each metric that a record has."""
    header, identified = told_apart(records, known, lambda r: network_name(r["columns"]))
    shown_names = [name for name in names if any(name in r["metrics"] for r in records)]
    rows = [[*cells, *(bounded(r, name) for name in shown_names)] for r, cells in identified]
    return table(["network", *header, *(names[name] for name in shown_names)], rows)


def referring_schedule(record: Record) -> str:
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


def beside_miou(records: list[Record]) -> list[str]:
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
