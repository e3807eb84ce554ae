"""Partial-RES's tables: numbers stand as printed, ours stand beside the rows that they are."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from paper_runs import PAPERS, Runs, made, measured, of, part
from test_paper_numbers import CONF, dotted

from analysis.audit import AGREES, CANNOT, claims, report
from analysis.paper.table import Row
from analysis.paper_numbers import find_cell, load
from analysis.rendering import markdown
from analysis.summary import summary
from mal.config import Config
from tests import sweeps

Compose = Callable[..., Config]
FOLDER = "partialres"
EVERYTHING = {name: table for name, table in load().items() if table.file.parent.name == FOLDER}
TABLES = {name: table for name, table in EVERYTHING.items() if table.rows}
METHOD = {
    "labeler": FOLDER, "recipe": "ours", "encoder": "darknet53", "model": "sequence", "percent": 100.0, "start": "rec",
    "cctf": "none", "pmca": False, "task": "zero", "pseudo": "none", "contour_points": 12,
}  # fmt: skip
PAPER = {"profile": "paper", "data": "refcocog_umd", "seed": 0, **METHOD}
PAPERS_OWN = {"sequence": {"points": 12, "shuffle": 0.2}, "network": {"text": {"words": 20}}}
DEMO = {"profile": "demo", "data": "scenes", "seed": 0, **METHOD, "encoder": "pyramid_nano", "steps": 1500}


def scored(runs: Runs, iou: float, *, epochs: int = 90, **columns: Any) -> str:
    """The records of a network: training, answers, IoU with bounds and Pr@k."""
    columns = PAPER | columns
    res = {"batch": 128, "epochs": epochs, "steps": columns.get("steps")}
    config = {"seed": columns["seed"], "encoder": {"pretrained": True}, "partialres": {"res": res, **PAPERS_OWN}}
    trained = runs.add("train_res", columns, config=config, steps=9)
    answers = runs.add("refer_val", columns, inputs={"network": trained})
    figures = {"mean_iou": iou, "mean_iou_low": iou - 0.01, "mean_iou_high": iou + 0.02, "overall_iou": iou - 0.03}
    figures |= {f"pr{k}": iou - (k - 50) / 100 for k in (50, 60, 70, 80, 90)} | {"ceiling": 0.87}
    return runs.add("res_val", columns, config={"images": "all"}, inputs={"answers": answers}, **figures)


# --- printed numbers -------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there() -> None:
    assert {name: len(table.rows) for name, table in EVERYTHING.items()} == {
        "partialres_tab1": 3, "partialres_res": 9, "partialres_rec": 8, "partialres_parts": 0, "partialres_pseudo": 0,
        "partialres_retention": 0,
    }  # fmt: skip
    for table in TABLES.values():
        assert all(all(row.printed.values()) for row in table.rows)


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("tab1.taskwise.iou", "53.87"), ("tab1.taskwise.pr90", "6.29"), ("tab1.zero.pr60", "60.57"),
        ("tab1.learnable.pr50", "67.73"), ("tab1.learnable.pr90", "7.07"), ("res.seqtr_coco_val.iou", "67.26"),
        ("res.seqtr_plus_testb.iou", "48.19"), ("res.seqtr_umd_test.iou", "55.64"),
        ("res.partial_plus_testa.iou", "52.06"), ("rec.seqtr_coco_testa.accuracy", "85.00"),
        ("rec.seqtr_plus_testb.accuracy", "58.78"), ("rec.seqtr_umd_val.accuracy", "71.35"),
    ],
)  # fmt: skip
def test_numbers_stand_as_printed(cell: str, printed: str) -> None:
    assert find_cell(f"{FOLDER}_{cell}", TABLES[f"{FOLDER}_tab1"], TABLES).text == printed


def test_pr_falls_with_its_threshold() -> None:
    for row in TABLES["partialres_tab1"].rows:
        values = [float(printed.text) for name, printed in row.printed.items() if printed and name != "iou"]
        assert values == sorted(values, reverse=True)


def test_the_learnable_token_is_first_in_every_column_and_the_zero_one_last_in_one() -> None:
    found = [(one.verdict, one.remark) for one in claims(TABLES)]
    assert found == [(AGREES, ""), (AGREES, ""), (CANNOT, "not zero.pr90 > taskwise.pr90")]
    printed = "\n".join(markdown(table) for table in report(load()))
    assert "They are two points, opposite corners of the box" in printed


@pytest.mark.skipif(not (CONF / "experiment" / FOLDER / "tab1.yaml").is_file(), reason="its experiment has no file yet")
@pytest.mark.parametrize("row", TABLES["partialres_tab1"].rows, ids=lambda row: row.id)
def test_the_command_of_a_row_computes_that_row_at_its_scale(row: Row, compose: Compose) -> None:
    (job,) = sweeps.jobs(*TABLES["partialres_tab1"].command(row).split()[3:])
    config = compose(*job)
    own = config.partialres
    columns = {
        "data": config.data.name,
        "labeler": config.labeler.name,
        "model": own.network.model,
        "percent": own.few.percent,
        "start": own.res.start,
        "cctf": own.parts.cctf,
        "pmca": own.parts.pmca,
        "task": own.sequence.task,
        "pseudo": own.pseudo.kind,
    }
    assert {name: columns[name] for name in row.ours or {}} == row.ours
    values = dict(dotted(dataclasses.asdict(config)))
    for settings in row.scale.values():
        assert {key: values[key] for key in settings} == dict(settings)


# --- ours beside them ------------------------------------------------------------------------------------------------


def test_seeds_are_one_row_beside_the_number_of_their_token() -> None:
    runs = Runs()
    for seed, iou in enumerate((0.54, 0.55, 0.56)):
        scored(runs, iou, seed=seed)
    scored(runs, 0.56, task="learnable")
    scored(runs, 0.53, task="taskwise", start="none", epochs=60)
    table = made(runs, "partialres_tab1")
    ours = [row for row in part(table, PAPERS) if row["numbers"] == "ours"]
    assert [of(row, "method", "[TASK]", "IoU", "Pr@.9") for row in ours] == [
        ["Multi-task", "Task-wise", "53.0", "13.0"],
        ["Refine REC", "Zero", "55.0 (54.0 … 56.0)", "15.0 (14.0 … 16.0)"],
        ["Refine REC", "Learnable", "56.0", "16.0"],
    ]
    assert {row["ceiling"] for row in ours} == {"87.0", "87.0 (87.0 … 87.0)"}
    gaps = [row["IoU"] for row in part(table, PAPERS) if row["numbers"] == "difference"]
    assert gaps == ["-0.87", "+0.17", "+0.05"]


def test_other_trainings_are_no_row_of_the_paper() -> None:
    runs = Runs()
    for task in ("zero", "learnable"):
        scored(runs, 0.5, task=task, epochs=30)
        scored(runs, 0.6, task=task, cctf="matched", pmca=True)
        scored(runs, 0.6, task=task, percent=1.0)
    table = made(runs, "partialres_tab1")
    assert not measured(table)
    (heading,) = [title for title, _ in table.parts() if "epochs" in title]
    assert "partialres.res.epochs=30, not 90" in heading
    assert len([row for row in part(table, heading) if row["numbers"] == "ours"]) == 2
    assert {title for title, _ in table.parts()} == {PAPERS, heading}


def test_task_wise_stands_beside_the_others_at_any_scale() -> None:
    """By design it differs in more than its token: it starts from nothing, and learns as long as the others' two."""
    runs = Runs()
    scored(runs, 0.5, **DEMO)
    scored(runs, 0.52, **DEMO | {"task": "learnable"})
    scored(runs, 0.48, **DEMO | {"task": "taskwise", "start": "none", "steps": 7500})
    table = made(runs, "partialres_tab1")
    (heading,) = [title for title, _ in table.parts() if title != PAPERS]
    ours = [row for row in part(table, heading) if row["numbers"] == "ours"]
    assert [row["[TASK]"] for row in ours] == ["Task-wise", "Zero", "Learnable"]
    assert "steps=7500" in ours[0]["settings"]


@pytest.mark.parametrize("data", ["refcoco", "scenes"])
def test_seqtrs_numbers_are_quoted_and_ours_are_not_comparable(data: str) -> None:
    runs = Runs()
    scored(runs, 0.5, data=data, start="none")
    scored(runs, 0.4, data=data, percent=5.0)  # no row of a table of all masks
    runs.add("rec_val", PAPER | {"data": data}, rec_accuracy=0.7, box_iou=0.4, ellipse_iou=0.45)
    for name, text in (("partialres_res", "IoU, ours"), ("partialres_rec", "accuracy, ours")):
        table = made(runs, name)
        assert {row["computed by"] for row in part(table, PAPERS)} == {"quoted by the paper"}
        (heading,) = [title for title, _ in table.parts() if title.startswith("Not comparable")]
        (row,) = part(table, heading)
        assert row[text] in ("50.0", "70.0")


def test_the_ladder_stands_from_few_masks_alone_to_all_of_them() -> None:
    runs = Runs()
    both = {**DEMO, "task": "learnable", "cctf": "matched", "pmca": True}
    few = {"percent": 5.0}
    scored(runs, 0.52, **both)
    scored(runs, 0.46, **both | few | {"pseudo": "model", "threshold": 0.1})
    scored(runs, 0.45, **both | few | {"pseudo": "model", "threshold": 2.0})
    scored(runs, 0.41, **both | few)
    scored(runs, 0.42, **DEMO | few | {"task": "learnable"})
    scored(runs, 0.16, **DEMO | few | {"task": "learnable", "start": "none", "steps": 7500})
    scored(runs, 0.14, **DEMO | few | {"task": "learnable", "start": "none"})
    scored(runs, 0.20, **DEMO | few | {"model": "query"})
    columns = ("masks, %", "starts", "model", "CCTF", "PMCA", "also from", "d below", "steps", "IoU")
    points = "contour points"
    table = made(runs, "partialres_parts")
    assert [name for name in table.header if "IoU" in name or "Pr" in name or "ceil" in name] == [
        "IoU", "IoU, 95 % interval", "Pr@.5", "ceiling",
    ]  # fmt: skip
    assert [of(row, *columns) for row in measured(table, "")] == [
        ["5", "from scratch", points, "-", "-", "-", "-", "1500", "0.140"],
        ["5", "from scratch", points, "-", "-", "-", "-", "7500", "0.160"],
        ["5", "from REC", points, "-", "-", "-", "-", "1500", "0.420"],
        ["5", "from REC", points, "column and row", "yes", "-", "-", "1500", "0.410"],
        ["5", "from REC", points, "column and row", "yes", "its own predictions", "0.1", "1500", "0.460"],
        ["5", "from REC", points, "column and row", "yes", "its own predictions", "all", "1500", "0.450"],
        ["5", "from REC", "query and pixel mask", "-", "-", "-", "-", "1500", "0.200"],
        ["100", "from REC", points, "column and row", "yes", "-", "-", "1500", "0.520"],
    ]


def test_kept_and_rejected_predictions_have_a_table_of_their_own() -> None:
    runs = Runs()
    run = DEMO | {"percent": 5.0, "pseudo": "model", "threshold": 0.2, "cctf": "matched", "pmca": True}
    runs.add("pseudo_quality_train", run, share_kept=0.48, kept_iou=0.61, rejected_iou=0.3, correlation=-0.71)
    (row,) = measured(made(runs, "partialres_pseudo"), "")
    columns = ("masks, %", "d below", "kept", "IoU of the kept", "IoU of the rejected", "correlation of d and IoU")
    assert of(row, *columns) == ["5", "0.2", "48.0", "0.610", "0.300", "-0.710"]


def test_what_masks_from_expressions_keep_stands_beside_boxes_with_each_seeds_own_quality() -> None:
    runs = Runs()
    here = {"profile": "demo", "data": "scenes"}
    for seed, iou in ((0, 0.5), (1, 0.7)):
        human = runs.pair("mask_rcnn_tiny", human=0.4, pseudo=0.1, seed=seed, labeler="partialres", percent=5.0, **here)
        runs.quality_of(runs.latest("mask_rcnn_tiny"), iou)
        runs.pair("mask_rcnn_tiny", human=0.4, pseudo=0.05, seed=seed, divided_by=human, labeler="ellipse", **here)
    for record in runs.records:
        if record["stage"].startswith("label_"):  # as Partial-RES's labels are made
            record["inputs"] = {
                "network": record["inputs"]["labeler"],
                "expressions": record["stage"].replace("label", "expressions") + "/x",
            }
    table = made(runs, "partialres_retention")
    found = [of(row, "trained on", "IoU of the labels", "kept") for row in measured(table, "")]
    assert found == [
        ["human masks", "-", "-"],
        ["Partial-RES (expressions, in given boxes)", "60.0 (50.0 … 70.0)", "25.0 (25.0 … 25.0)"],
        ["inscribed ellipses (boxes)", "-", "12.5 (12.5 … 12.5)"],
    ]
    assert [title for title, _ in made(runs, "tab2_lvis").parts()] == ["The paper's rows"]


def test_a_runs_summary_says_what_boxes_masks_and_pseudo_masks_are_worth() -> None:
    runs = Runs()
    columns = DEMO | {"percent": 5.0, "pseudo": "model", "threshold": 0.2, "task": "learnable"}
    rec = {name: DEMO[name] for name in ("profile", "data", "seed", "labeler", "recipe", "encoder", "model")}
    runs.add("train_rec", rec, config={"partialres": {"rec": {"batch": 32}}}, steps=6000)
    runs.add("rec_val", rec, rec_accuracy=0.8, box_iou=0.45, ellipse_iou=0.5)
    scored(runs, 0.46, **columns)
    runs.add("pseudo_quality_train", columns, share_kept=0.48, kept_iou=0.61)
    text = summary(runs.records)
    assert "Partial-RES, boxes, encoder pyramid_nano, recipe ours, 6000 steps of 32 expressions, seed 0" in text
    learned = "from boxes, learnable [TASK], own predictions of d < 0.2"
    assert f"Partial-RES ({learned}), masks of 5 %, encoder pyramid_nano" in text
    assert "Masks from expressions, 9 expressions of the validation images [95 % interval]" in text
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert ["Partial-RES", "0.800", "0.450", "0.500"] in lines
    assert [f"Partial-RES ({learned})", "0.460 [0.450, 0.480]", "0.430", "0.460", "0.260", "0.060", "0.870"] in lines
    assert "Pseudo masks (model, d < 0.2): 48.0% kept; IoU of these 0.610" in text
    assert text.count("d: how far the extent") == 1


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"model": "query"}, "Partial-RES's rival, a query (from boxes)"),
        ({"start": "none"}, "Partial-RES (from scratch, zero [TASK])"),
        ({"task": "taskwise", "start": "none"}, "Partial-RES (boxes and masks at once)"),
        ({"cctf": "matched"}, "Partial-RES (from boxes, CCTF, zero [TASK])"),
        ({"cctf": "transposed"}, "Partial-RES (from boxes, CCTF transposed, zero [TASK])"),
        ({"text": "bert-base"}, "Partial-RES (bert-base, from boxes, zero [TASK])"),
        ({"pmca": True, "pseudo": "box"}, "Partial-RES (from boxes, PMCA, zero [TASK], filled boxes)"),
    ],
)
def test_networks_of_one_encoder_are_told_apart_by_what_they_are(columns: dict[str, Any], name: str) -> None:
    runs = Runs()
    scored(runs, 0.4, **DEMO | {"task": "learnable"})
    scored(runs, 0.5, **DEMO | columns)
    text = summary(runs.records)
    assert f"; {name}, masks of 100 %" in text
    assert f"\n| {name}" in text


def test_it_is_said_which_images_expressions_were_asked_of() -> None:
    runs = Runs()
    for images in ("odd", "all"):
        runs.add("res_val", DEMO | {"seed": len(images)}, config={"images": images}, mean_iou=0.4)
        placed = {"odd": "the odd-placed validation images", "all": "the validation images"}[images]
        assert f"expressions of {placed} [95 %" in summary(runs.records[-1:])
