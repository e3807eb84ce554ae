"""A table of another paper, over a stage of its method's own: one file, and no Python."""

from pathlib import Path
from textwrap import dedent

import pytest
from paper_runs import NOWHERE, Runs, measured, of, part

from analysis.audit import claims, retentions
from analysis.paper.layout import Builder
from analysis.paper.results import Results
from analysis.paper_numbers import load
from analysis.rendering import Table

DETECTORS = """\
    number: 1
    paper: Points
    name: points_voc
    experiment: points/tab1
    title: Detectors from points
    identity:
      encoder: {title: encoder, text: "{encoder:encoder}"}
      sup: {title: sup., text: {labeler: {points: Point, "*": Other}}}
    quantities:
      ap50: {title: mAP50, unit: per cent, measured: mask_ap50, count: images}
      cat: {title: cat, unit: per cent, measured: mask_ap50/cat}
      miou: {title: mIoU, unit: fraction, measured: miou}
    more:
      ap25: {title: mAP25, unit: per cent, measured: mask_ap25, interval: true, note: "mAP25 is nowhere printed."}
      ap75: {title: mAP75, unit: per cent, measured: mask_ap75}
    results:
      - {stage: voc_val, labeler: "points*"}
    order: [{encoder: encoder}]
    words: {encoder: {vit_s: ViT-S, vit_b: ViT-B}}
    ours: {data: voc, labeler: points}
    scale: {train_detector: {epochs: 12}}
    rows:
      - {id: vit_s, names: {encoder: ViT-S, sup: Point}, printed: {ap50: "48.4", cat: "-", miou: "0.612"},
         ours: {encoder: vit_s}, run: encoder=vit_s}
      - {id: vit_b, names: {encoder: ViT-B, sup: Point}, printed: {ap50: "50.1", cat: "61.0", miou: "-"},
         ours: {encoder: vit_b}, run: encoder=vit_b}
      - {id: other, names: {encoder: "-", sup: Other}, printed: {ap50: "40.0", cat: "-", miou: "-"}}
    claims:
      - {where: caption, quote: better by 1.7, says: "1.7", difference: [vit_b.ap50, vit_s.ap50]}
    slips:
      - {where: §4, quote: 1.8 better, remark: It is 1.7.}
"""


def rendered(folder: Path, text: str, runs: Runs) -> Table:
    """The table of a file, beside MAL's folder or none."""
    (folder / "points").mkdir()
    (folder / "points" / "tab1.yaml").write_text(dedent(text), encoding="utf-8")
    (table,) = (tables := load(folder)).values()
    return Builder(table, Results.of(runs.records, NOWHERE), tables).build()


def detected(runs: Runs, ap50: float, *, epochs: int = 12, **columns: object) -> None:
    """A detector's record; its mAP50 has an interval of its own."""
    columns = {"profile": "paper", "data": "voc", "seed": 0, "labeler": "points", "encoder": "vit_s"} | columns
    trained = runs.add("train_detector", columns, config={"seed": columns["seed"], "epochs": epochs})
    figures = {"mask_ap50": ap50, "mask_ap50_low": ap50 - 0.02, "mask_ap50_high": ap50 + 0.03, "miou": ap50 + 0.1}
    figures |= {"mask_ap50/cat": ap50 + 0.2, "mask_ap25": ap50 + 0.15}
    runs.add("voc_val", columns, inputs={"detector": trained}, **figures)


def test_a_methods_own_stage_stands_beside_its_papers_numbers(tmp_path: Path) -> None:
    runs = Runs()
    for seed, ap50 in enumerate((0.48, 0.5)):
        detected(runs, ap50, seed=seed)
    detected(runs, 0.3, epochs=1)
    detected(runs, 0.7, labeler="boxes")
    runs.pair("solov2_r50", human=0.4, pseudo=0.3)
    table = rendered(tmp_path, DETECTORS, runs)
    assert table.title == "Detectors from points (Table 1 of Points)"
    (row,) = measured(table)
    assert of(row, "encoder", "sup.", "mAP50, paper", "mAP50, ours", "mAP50, difference") == [
        "ViT-S", "Point", "48.4", "49.0 (48.0 … 50.0)", "+0.6",
    ]  # fmt: skip
    assert row["mAP50, 95 % interval"] == "0: [46.0, 51.0]; 1: [48.0, 53.0]"
    assert of(row, "cat, ours", "cat, 95 % interval", "cat, difference") == ["69.0 (68.0 … 70.0)", "", ""]
    assert of(row, "mIoU, ours", "mIoU, difference") == ["0.590 (0.580 … 0.600)", "-0.022"]
    assert of(row, "mAP25", "seeds", "n", "computed by") == ["64.0 (63.0 … 65.0)", "0, 1", "9 images", ""]
    assert "mAP75" not in table.header
    assert "mAP25 is nowhere printed." in table.notes
    _, missing, quoted = part(table, "The paper's rows")
    assert missing["computed by"] == "python experiments/run.py -m experiment=points/tab1 profile=paper encoder=vit_b"
    assert of(quoted, "mAP50, paper", "mAP50, ours", "computed by") == ["40.0", "", "quoted by the paper"]
    (short,) = part(table, "Not comparable: profile paper, data voc, but train_detector has epochs=1, not 12")
    assert of(short, "mAP50, paper", "mAP50, ours") == ["", "30.0"]


def test_the_audit_names_the_paper(tmp_path: Path) -> None:
    rendered(tmp_path, DETECTORS, Runs())
    (finding,) = claims(load(tmp_path))
    assert (finding.place, finding.verdict) == ("Table 1 of Points, caption: better by 1.7", "agrees")
    assert list(retentions(load(tmp_path))) == []


SETTINGS = """\
    name: layers
    title: By a setting of a method's own
    identity: {layers: {title: layers, text: "{layers}"}}
    quantities: {ap50: {title: mAP50, unit: per cent, measured: mask_ap50}}
    results: [{stage: voc_val, encoder: [null, vit_s]}]
    varied: layers
    order: [layers]
"""


def test_a_setting_that_only_the_records_know_can_be_varied_and_ordered(tmp_path: Path) -> None:
    runs = Runs()
    for layers, ap50 in ((10, 0.5), (9, 0.4)):
        detected(runs, ap50, layers=layers)
    detected(runs, 0.6, layers=9, epochs=1)  # no other beside it
    detected(runs, 0.7, layers=9, encoder="vit_b")
    table = rendered(tmp_path, SETTINGS, runs)
    assert [row[:2] for row in table.rows] == [("9", "40.0"), ("10", "50.0")]
    assert (table.title, table.headings) == ("By a setting of a method's own", ())
    assert not {"mAP50, paper", "mAP50, difference", "computed by"} & set(table.header)
    assert any(note.startswith("Left out: 1 result") for note in table.notes)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("encoder: vit_s", ["vit_s"]),
        ("encoder: vit_*", ["vit_b", "vit_s"]),
        ("encoder: [swin, vit_b]", ["swin", "vit_b"]),
        ("encoder: null", ["-"]),
        ("encoder: [null, swin]", ["-", "swin"]),
        ("any: [{encoder: swin}, {seed: 1}]", ["swin", "vit_s"]),
        ("none: [{encoder: swin}, {seed: 1}]", ["-", "vit_b"]),
        ("trained_on: coco", ["swin"]),
    ],
)
def test_conditions(tmp_path: Path, condition: str, kept: list[str]) -> None:
    runs = Runs()
    detected(runs, 0.1, encoder="vit_s", seed=1)
    detected(runs, 0.1, encoder="vit_b")
    detected(runs, 0.1, encoder="swin", labeler="points:coco")
    detected(runs, 0.1, encoder=None)
    text = SETTINGS.replace("varied: layers", "varied: ''").replace("layers", "encoder")
    table = rendered(tmp_path, text.replace("encoder: [null, vit_s]", condition), runs)
    assert sorted(row[0] for row in table.rows) == kept
