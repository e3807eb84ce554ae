"""Tables from run.json files: mask quality, AP and retention. `python -m analysis.tables` prints the whole store's."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


Record = dict[str, Any]
WEAKEST = {"shapes": 0.20}  # human-mask AP under which a ratio to it means nothing; elsewhere .15
WEAKEST_ELSEWHERE = 0.15
IDENTITY = ("labeler", "recipe", "encoder", "decoder", "theta", "segmenter", "supervision", "seed")
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
NAMES = {"mal": "MAL", "box": "filled box", "ellipse": "inscribed ellipse", "grabcut": "GrabCut", "gt": "human masks"}


def summary(records: Iterable[Record]) -> str:
    """Markdown tables of some stages' records: one part for each profile and data set among them."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        columns = record["columns"]
        groups.setdefault((columns["profile"], columns["data"]), []).append(record)
    return "\n\n".join(_group(profile, data, group) for (profile, data), group in sorted(groups.items()))


def _group(profile: str, data: str, records: list[Record]) -> str:
    parts = [f"profile {profile}, data {data}: {_schedule(records)}"]
    if profile != "paper":
        parts.append("Not comparable with the paper's numbers: another scale, other data.")
    for stage, where in (("quality_val", "validation"), ("quality_train", "training")):
        chosen = [r for r in records if r["stage"] == stage]
        if chosen:
            count = " or ".join(sorted({str(r["metrics"]["iou"]["n"]) for r in chosen}))
            parts.append(f"Mask quality on the {where} images ({count} instances)\n\n" + _quality(chosen))
    if any(r["stage"] == "ap_val" for r in records):
        parts.append(_retention(data, records))
    return "\n\n".join(parts)


def _schedule(records: list[Record]) -> str:
    """How the labelers among the records were trained, in words."""
    lines = []
    for record in records:
        if record["stage"] == "train_labeler":
            columns, config = record["columns"], record["config"]
            lines.append(
                f"encoder {columns['encoder']}, recipe {columns['recipe']}, {record['metrics']['steps']['value']:g} steps "
                f"of {config['train']['batch']} RoIs at {config['roi']['size']}², seed {columns['seed']}, "
                f"{record['seconds'] / 60:.1f} min"
            )
    return "; ".join(dict.fromkeys(lines)) or "no labeler trained"


def _quality(records: list[Record]) -> str:
    order = list(NAMES)
    records = sorted(records, key=lambda r: (order.index(n) if (n := r["columns"]["labeler"]) in order else 99, r["key"]))
    header, identify = _identity(records, "labeler")
    rows = [[*identify(r), *(_number(r, metric) for metric in QUALITY)] for r in records]
    return table([*header, *QUALITY.values()], rows)


def _retention(data: str, records: list[Record]) -> str:
    """AP with human masks and with pseudo-labels, and their ratio where the former is enough to divide by."""
    scores = sorted(
        (r for r in records if r["stage"] == "ap_val"), key=lambda r: (r["columns"]["supervision"] != "human", r["key"])
    )
    ratios = {r["inputs"]["pseudo"]: r for r in records if r["stage"] == "retention"}
    by_address = {f"ap_val/{r['key']}": r for r in scores}
    weakest = WEAKEST.get(data, WEAKEST_ELSEWHERE)
    header, identify = _identity(scores, "supervision")
    rows = []
    for record in scores:
        ratio = ratios.get(f"ap_val/{record['key']}")
        text = ""
        if ratio is not None:
            denominator = by_address[ratio["inputs"]["human"]]["metrics"]["mask_ap"]["value"]
            text = _interval(ratio) if denominator >= weakest else f"too weak to divide by (human < {weakest:g})"
        rows.append([*identify(record), *(_number(record, metric) for metric in AP), text])
    images = scores[0]["metrics"]["mask_ap"]["n"]
    title = f"Segmenter {scores[0]['columns']['segmenter']} on {images} validation images (retention: 95 % interval)"
    return title + "\n\n" + table([*header, *AP.values(), "retention"], rows)


def _identity(records: list[Record], first: str) -> tuple[list[str], Callable[[Record], list[str]]]:
    """Columns that tell the records apart: `first`, and every other in which records that agree so far differ."""
    shown = [first]
    for name in IDENTITY:
        seen: dict[tuple[Any, ...], set[Any]] = {}
        for record in records:
            columns = record["columns"]
            seen.setdefault(tuple(columns.get(s) for s in shown), set()).add(columns.get(name))
        if name != first and any(len(values) > 1 for values in seen.values()):
            shown.append(name)

    def identify(record: Record) -> list[str]:
        columns = record["columns"]
        cells = ["" if columns.get(name) is None else str(columns[name]) for name in shown]
        if first == "labeler":
            cells[0] = NAMES.get(cells[0], cells[0])
        elif cells[0] == "human":
            cells[0] = "human masks"
        else:
            cells[0] = f"{NAMES.get(columns['labeler'], columns['labeler'])} masks"
        return cells

    names = {"labeler": "labeler", "supervision": "trained on"}
    return [names.get(name, name) for name in shown], identify


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned to be read in a terminal too: the first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def _number(record: Record, metric: str) -> str:
    entry = record["metrics"].get(metric)
    return "-" if entry is None else f"{entry['value']:.3f}"


def _interval(record: Record) -> str:
    if "retention" not in record["metrics"]:
        return "human-mask AP 0: nothing to divide by"
    value, low, high = (record["metrics"][f"retention{part}"]["value"] for part in ("", "_low", "_high"))
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of a store."""
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("results/runs"), help="folder of run.json files")
    files = sorted(parser.parse_args(arguments).store.glob("*/*/run.json"))
    records = [record for file in files if (record := json.loads(file.read_text()))["status"] == "done"]
    if not records:
        print("the store holds no finished run; `make demo` makes one", file=sys.stderr)
        return 1
    print(summary(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
