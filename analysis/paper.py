"""Tables 1, 2 and 7 of the paper from run.json files, one table each: `python -m analysis.paper tab1_coco`."""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from analysis.records import Record, UnreadableRecordError, by_address, finished
from analysis.seeds import lineage, over_seeds, spread
from analysis.tables import PAPER_DATA, ratio, table

TESTDEV = Path("results/testdev.yaml")
SEGMENTERS = {  # the segmenter of a record → its backbone and model, in the paper's words and order
    "solov2_r50": ("ResNet-50", "SOLOv2"),
    "solov2_r101_dcn": ("ResNet-101-DCN", "SOLOv2"),
    "solov2_x101_dcn": ("ResNeXt-101-DCN", "SOLOv2"),
    "cascade_convnext_s": ("ConvNeXt-Small", "Cascade R-CNN"),
    "cascade_convnext_b": ("ConvNeXt-Base", "Cascade R-CNN"),
    "mask2former_swin_s": ("Swin-Small", "Mask2Former"),
    "mask_rcnn_r50_dcn": ("ResNet-50-DCN", "Mask R-CNN"),
    "mask_rcnn_r101_dcn": ("ResNet-101-DCN", "Mask R-CNN"),
    "mask_rcnn_x101_32x4d": ("ResNeXt-101-32x4d-FPN", "Mask R-CNN"),
    "mask_rcnn_x101_64x4d": ("ResNeXt-101-64x4d-FPN", "Mask R-CNN"),
    "solov2_tiny": ("tiny", "SOLOv2"),
    "cascade_tiny": ("tiny", "Cascade R-CNN"),
    "mask2former_tiny": ("tiny", "Mask2Former"),
    "mask_rcnn_tiny": ("tiny", "Mask R-CNN"),
}
ENCODERS = {
    "convnext_b": "ConvNeXt-Base",
    "swin_b": "Swin-Base",
    "deit_s": "ViT-DeiT-Small",
    "deit_b": "ViT-DeiT-Base",
    "mae_b": "ViT-MAE-Base",
    "mae_l": "ViT-MAE-Large",
}
DATA = {"coco": "COCO", "lvis": "LVIS v1"}
BOX_AP = {f"box_ap{part}": f"AP{part}" for part in ("", "50", "75", "_S", "_M", "_L")}
MASK_LABELS = {"boxes": "None", "human": "GT mask", "pseudo": "MAL mask"}


@dataclass(frozen=True)
class Results:
    """All records, and what ties them together."""

    known: dict[str, Record]
    ratios: dict[str, Record]
    testdev: dict[str, float]  # predictions_test/key → mask AP in [0, 1], as the server said

    def humans(self, group: list[Record]) -> list[Record]:
        """The APs with human masks that a group's APs with pseudo-labels are divided by."""
        ratios = [self.ratios.get(f"ap_val/{record['key']}") for record in group]
        found = [self.known.get(ratio["inputs"]["human"]) for ratio in ratios if ratio is not None]
        return [record for record in found if record is not None] if len(found) == len(group) else []

    def submission(self, score: Record) -> str | None:
        """The address of the test predictions of the segmenter that an ap_val record is of; None without any."""
        detections = self.known.get(score["inputs"].get("predictions", ""), {"inputs": {}})
        segmenter = detections["inputs"].get("segmenter")
        for address, record in self.known.items():
            if record["stage"] == "predictions_test" and record["inputs"]["segmenter"] == segmenter:
                return address
        return None


def tab1_coco(records: list[Record], results: Results) -> str:
    """Mask AP on COCO val2017 and test-dev, and retention."""
    groups = _groups(records, results, COCO, lambda r: r["columns"]["supervision"] in ("human", "pseudo"))
    rows = []
    for group in groups:
        pseudo, human = _test(group, results), _test(results.humans(group), results)
        test_cell = pseudo if isinstance(pseudo, str) else f"{100 * pseudo:.1f}"
        test_ratio = "-" if isinstance(pseudo, str) or isinstance(human, str) else f"{100 * pseudo / human:.1f}"
        rows.append([*_method(group), _mean(group, "mask_ap"), test_cell, _retention(group, results), test_ratio])
    measured = ["mask AP val", "mask AP test-dev", "Ret. val", "Ret. test-dev"]
    return table(["method", "labeler", "backbone", "model", "sup.", *measured], _told_apart(rows, groups, results))


def tab2_lvis(records: list[Record], results: Results) -> str:
    """Mask AP on LVIS and retention; the labeler's training data may be another set's."""
    groups = _groups(records, results, LVIS, lambda r: r["columns"]["supervision"] in ("human", "pseudo"))
    rows = []
    for group in groups:
        trained_on = "-" if _setting(group, "supervision") == "human" else _labeler_data(group)
        numbers = [_mean(group, f"mask_ap{part}") for part in ("", "_r", "_c", "_f")]
        name, labeler, backbone, model, supervision = _method(group)
        rows.append([name, labeler, backbone, model, trained_on, supervision, *numbers, _retention(group, results)])
    header = ["method", "labeler", "backbone", "model", "training data", "sup."]
    return table([*header, "mask AP val", "AP_r", "AP_c", "AP_f", "Ret. val"], _told_apart(rows, groups, results))


def tab7_detection(records: list[Record], results: Results) -> str:
    """Box AP of detectors with no mask head, with human masks and with MAL's."""
    groups = _groups(records, results, (*LVIS, *COCO), lambda r: ":" not in r["columns"].get("labeler", ""))

    def detector(group: list[Record]) -> tuple[str, ...]:
        return SEGMENTERS[_setting(group, "segmenter")][0], _setting(group, "data"), _setting(group, "segmenter")

    compared = {detector(group) for group in groups if _setting(group, "supervision") == "boxes"}
    groups = [group for group in groups if detector(group) in compared]
    groups.sort(key=lambda g: (_place(g), _setting(g, "data"), list(MASK_LABELS).index(_setting(g, "supervision"))))
    rows = []
    for group in groups:
        backbone, data, _ = detector(group)
        name = [f"{backbone} ({SEGMENTERS[_setting(group, 'segmenter')][1]})", DATA.get(data, data)]
        rows.append([*name, MASK_LABELS[_setting(group, "supervision")], *(_mean(group, metric) for metric in BOX_AP)])
    return table(["backbone", "dataset", "mask labels", *BOX_AP.values()], _told_apart(rows, groups, results, width=3))


LVIS = ("mask_rcnn_r50_dcn", "mask_rcnn_r101_dcn", "mask_rcnn_x101_32x4d", "mask_rcnn_x101_64x4d", "mask_rcnn_tiny")
COCO = tuple(name for name in SEGMENTERS if name not in LVIS)
TABLES: dict[str, Callable[[list[Record], Results], str]] = {
    "tab1_coco": tab1_coco,
    "tab2_lvis": tab2_lvis,
    "tab7_detection": tab7_detection,  # the one table that sets data sets side by side
}


def paper_table(name: str, records: Iterable[Record], *, testdev: dict[str, float] | None = None) -> str:
    """One of `TABLES` as Markdown, a part for each profile and, but for Table 7, data set.

    AP and retention are in per cent; where there are several seeds, their mean, lowest and highest.
    """
    records = list(records)
    ratios = {record["inputs"]["pseudo"]: record for record in records if record["stage"] == "retention"}
    results = Results(by_address(records), ratios, testdev or {})
    scores = [record for record in records if record["stage"] == "ap_val"]
    parts = []
    together = ("profile",) if name == "tab7_detection" else ("profile", "data")
    for key in sorted({tuple(record["columns"][column] for column in together) for record in scores}):
        chosen = [record for record in scores if tuple(record["columns"][column] for column in together) == key]
        rendered = TABLES[name](chosen, results)
        if rendered.count("\n") < 2:  # a header and its rule: none of the table's segmenters
            continue
        parts.append(f"{name}, {', '.join(f'{c} {value}' for c, value in zip(together, key, strict=True))}, per cent")
        if key[0] != "paper" or not {record["columns"]["data"] for record in chosen} <= set(PAPER_DATA):
            parts.append("Not comparable with the paper's numbers: another scale, other data.")
        parts.append(rendered)
    return "\n\n".join(parts) or f"the store has nothing for it yet: python experiments/run.py experiment={name}"


def _groups(
    records: list[Record], results: Results, segmenters: Iterable[str], wanted: Callable[[Record], bool]
) -> list[list[Record]]:
    """The records of a table's segmenters, seeds together: those with human masks first, then MAL's, as the paper."""
    mine = [r for r in records if r["columns"]["segmenter"] in segmenters and wanted(r)]
    mine = [r for r in mine if r["columns"]["supervision"] != "pseudo" or r["columns"]["labeler"].startswith("mal")]
    groups = over_seeds(mine, results.known)
    return sorted(
        groups,
        key=lambda g: (_setting(g, "supervision") == "pseudo", ":" in _setting(g, "labeler"), _place(g), g[0]["key"]),
    )


def _setting(group: list[Record], name: str) -> str:
    return group[0]["columns"].get(name) or ""


def _place(group: list[Record]) -> int:
    return list(SEGMENTERS).index(_setting(group, "segmenter"))


def _method(group: list[Record]) -> list[str]:
    """Method, labeler's backbone, segmenter's backbone, its model, supervision."""
    backbone, model = SEGMENTERS[_setting(group, "segmenter")]
    if _setting(group, "supervision") == "human":
        return [model, "-", backbone, model, "Mask"]
    encoder = _setting(group, "encoder")
    return ["Mask Auto-Labeler", ENCODERS.get(encoder, encoder), backbone, model, "Box"]


def _labeler_data(group: list[Record]) -> str:
    data = _setting(group, "labeler").partition(":")[2] or _setting(group, "data")
    return DATA.get(data, data)


def _mean(group: list[Record], metric: str) -> str:
    values = [100 * record["metrics"][metric]["value"] for record in group if metric in record["metrics"]]
    return spread(values, "{:.1f}") if len(values) == len(group) else "-"


def _retention(group: list[Record], results: Results) -> str:
    """The mean over seeds, or why there is none; of one seed, with its interval over images."""
    found = [ratio(record, results.ratios, results.known) for record in group]
    whole = [r["metrics"] for r in found if not isinstance(r, str)]
    if len(whole) < len(found):
        return next(reason for reason in found if isinstance(reason, str))
    value, low, high = ([100 * m[f"retention{end}"]["value"] for m in whole] for end in ("", "_low", "_high"))
    return spread(value, "{:.1f}") if len(whole) > 1 else f"{value[0]:.1f} [{low[0]:.1f}, {high[0]:.1f}]"


def _test(group: list[Record], results: Results) -> float | str:
    """The server's AP, a mean over seeds; or what to do for it: `submit`, or nothing to submit yet (-)."""
    addresses = [results.submission(record) for record in group]
    missing = [address for address in addresses if address is not None and address not in results.testdev]
    if missing:
        return f"submit {', '.join(missing)}"
    if not addresses or None in addresses:
        return "-"
    return sum(results.testdev[address] for address in addresses if address) / len(addresses)


def _told_apart(
    rows: list[list[str]], groups: list[list[Record]], results: Results, *, width: int = 5
) -> list[list[str]]:
    """Rows with the same first `width` cells, whose settings differ all the same, get a digest of their settings."""
    names = [tuple(row[:width]) for row in rows]
    return [
        [f"{row[0]} #{lineage(group[0], results.known)}", *row[1:]] if names.count(name) > 1 else row
        for row, group, name in zip(rows, groups, names, strict=True)
    ]


def read_testdev(path: Path) -> dict[str, float]:
    """What COCO's server said of submitted predictions: predictions_test/key → mask AP in [0, 1]. No file: nothing yet.

    Raises:
        UnreadableRecordError: an entry is no such pair.
    """
    entries: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    for address, value in entries.items():
        if not str(address).startswith("predictions_test/") or not isinstance(value, float) or not 0 <= value <= 1:
            raise UnreadableRecordError(
                f"{path}: {address}: {value} is no predictions_test/KEY with a mask AP in [0, 1], such as 0.391"
            )
    return entries


def main(arguments: list[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m analysis.paper", description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--store", type=Path, default=Path("results/runs"), help="folder of run.json files")
    parser.add_argument("--testdev", type=Path, default=TESTDEV, help="what COCO's server said; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        print(paper_table(options.table, finished(options.store), testdev=read_testdev(options.testdev)))
    except UnreadableRecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
