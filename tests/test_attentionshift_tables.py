"""AttentionShift's tables: its experiments run at every scale, and its papers' numbers stand as printed."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from paper_runs import PAPERS, Runs, made, measured, of, part
from test_paper_numbers import dotted

from analysis.audit import CANNOT, claims
from analysis.lineage import over_seeds
from analysis.paper.table import PaperTable, Row
from analysis.paper_numbers import find_cell, load
from analysis.records import by_address
from mal.config import Config
from mal.engine.store import Store
from mal.overrides import menu
from mal.request import Graph
from mal.run import check_all, run, sweep_ahead
from mal.run_notes import notes_of
from slurm.cluster import read_cluster
from slurm.plan import make_plan
from tests import sweeps
from tests.conftest import CONF

Compose = Callable[..., Config]
FOLDER = "attentionshift"
EXPERIMENTS = ("tab1", "tab2", "tab3", "voc", "coco")
TABLES = {name: table for name, table in load().items() if table.file.parent.name == FOLDER and table.rows}
PROFILES = ("smoke", "demo", "mini", "paper")


def jobs(name: str, *more: str) -> list[list[str]]:
    return sweeps.jobs(f"experiment={FOLDER}/{name}", *more)


def test_every_table_has_an_experiment_and_the_menu_shows_it() -> None:
    files = {path.stem for path in (CONF / "experiment" / FOLDER).glob("*.yaml")}
    assert set(EXPERIMENTS) <= files
    assert {table.experiment for table in TABLES.values()} == {f"{FOLDER}/{name}" for name in EXPERIMENTS}
    (line,) = [line for line in menu(CONF).splitlines() if line.strip().startswith("experiment=")]
    assert {f"{FOLDER}/{name}" for name in files} < {*line.partition("=")[2].split("|")}


CROSSINGS = [
    pytest.param(name, profile, marks=() if place % len(PROFILES) == number % len(PROFILES) else pytest.mark.slow)
    for place, name in enumerate(EXPERIMENTS)
    for number, profile in enumerate(PROFILES)
]


@pytest.mark.parametrize(("name", "profile"), CROSSINGS)
def test_every_experiment_composes_with_every_profile(name: str, profile: str, compose: Compose) -> None:
    config = compose(*jobs(name, f"profile={profile}")[-1])
    check_all(config)
    assert (config.experiment, config.labeler.name, config.compare) == (f"{FOLDER}/{name}", FOLDER, ["disc"])
    assert config.data.name == {"mini": "coco_mini", "paper": "coco" if name == "coco" else "voc"}.get(profile, "parts")
    assert config.encoder.name == ("vit_nano16" if profile != "paper" else "mae_b" if name == "coco" else "mae_s")
    assert (config.segmenter.name == "none") == (name != "voc")


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        pytest.param(
            name, profile, marks=() if (name, profile) in {("fig2", "smoke"), ("fig3", "paper")} else pytest.mark.slow
        )
        for name in ("fig2", "fig3", "fig4")
        for profile in PROFILES
    ],
)
def test_every_figure_composes_with_every_profile(name: str, profile: str, compose: Compose, tmp_path: Path) -> None:
    (job,) = jobs(name, f"profile={profile}")
    config = compose(*job, f"store={tmp_path}")
    check_all(config)
    assert (config.experiment, config.compare, config.segmenter.name) == (f"{FOLDER}/{name}", [], "none")
    assert config.attentionshift.looks.enabled == (name != "fig4")
    if config.data.name == "parts":
        names = {job.stage.name for job in make_plan([config], read_cluster("local")).jobs.values()}
        assert {"own_ap_val", "quality_val"} <= names
        assert ("parts_val" in names) == (name != "fig4")


def test_all_rows_plan_on_a_cluster_and_share_what_they_can(compose: Compose, tmp_path: Path) -> None:
    """The tables' last row is one network; Table 3 tests it otherwise, the main paper's trains a segmenter besides."""
    rows = [
        compose(*job, f"store={tmp_path}", "tracking=none")
        for name in EXPERIMENTS[:4]
        for job in jobs(name, "profile=smoke")
    ]
    assert len(rows) == 3 + 4 + 2 + 1
    names = Counter(job.stage.name for job in make_plan(rows, read_cluster("local")).jobs.values())
    assert names["train_attentionshift"] == 3 + 3
    assert names["own_ap_val"] == 3 + 3 + 1 + 1
    assert names["train_bestie"] == 1
    assert (names["shapes_train"], names["points_train"]) == (1, 1)
    assert (names["train_segmenter"], names["retention"]) == (2, 1)
    assert sweep_ahead(rows).startswith("10 rows: ")


def test_an_experiment_in_a_folder_says_its_small_stand_ins(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(compose(*jobs("tab1", "profile=smoke")[0], f"store={tmp_path}", "tracking=none", "dry_run=true"))
    assert "to do  own_ap_val " in capsys.readouterr().out
    config = compose(*jobs("tab1", "profile=smoke", "encoder=vit_nano")[0], f"store={tmp_path}")
    notes = notes_of(Graph(config, Store(tmp_path), torch.device("cpu")))
    assert "attentionshift/tab1: in place of the paper's models, small ones: encoder=vit_nano" in notes


# --- printed numbers -------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there() -> None:
    counts = {
        name: sum(printed is not None for row in table.rows for printed in row.printed.values())
        for name, table in TABLES.items()
    }
    expected = {"tab1": 9, "tab2": 4, "tab3": 9, "voc": 18, "coco": 9}
    assert counts == {f"{FOLDER}_{name}": count for name, count in expected.items()}
    for table in TABLES.values():
        for row in table.rows:
            values = [printed.value for printed in row.printed.values() if printed]
            if table.name != f"{FOLDER}_coco":  # AP is between AP50 and AP75
                assert values == sorted(values, reverse=True), (table.name, row.id)


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("tab1.kmeans.map25", "67.4"),
        ("tab1.attnshift.map75", "24.3"),
        ("tab2.mask_baseline.map50", "37.0"),
        ("tab2.point_attnshift.map50", "53.2"),
        ("tab3.bestie_hrnet48.map25", "66.4"),
        ("tab3.attnshift.map75", "25.4"),
        ("voc.mask_rcnn_human.map25", "76.7"),
        ("voc.attnshift_mask_rcnn.map75", "30.4"),
        ("coco.bestie.ap", "17.7"),
        ("coco.attnshift_b.ap75", "19.4"),
    ],
)
def test_numbers_stand_as_printed(cell: str, printed: str) -> None:
    assert find_cell(f"{FOLDER}_{cell}", TABLES[f"{FOLDER}_tab1"], TABLES).text == printed


def test_the_audit_finds_what_cannot_follow() -> None:
    found = [finding for finding in claims(TABLES) if finding.verdict == CANNOT]
    assert [(one.printed, one.computed, one.remark) for one in found] == [
        ("all", "5 of 6", "not attnshift.map25 > kmeans.map25"),
        ("6.7", "7.700", ""),
        ("36.2", "47.100", ""),
    ]
    slips = " ".join(f"{slip.quote} {slip.remark}" for table in TABLES.values() for slip in table.slips)
    for said in ("with a Mask R-CNN retrained", "It is mAP50", "As shown in Table 3", "Table 1 prints 66.7"):
        assert said in slips


FILLED = [(table, row) for table in TABLES.values() for row in table.rows if row.run is not None]
QUICK = {table.name: row.id for table, row in FILLED}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(t, row, id=f"{t.name}-{row.id}", marks=() if QUICK[t.name] == row.id else pytest.mark.slow)
        for t, row in FILLED
    ],
)
def test_the_command_of_a_row_computes_that_row_at_its_scale(table: PaperTable, row: Row, compose: Compose) -> None:
    (job,) = sweeps.jobs(*table.command(row).split()[3:])
    config = compose(*job)
    points = config.attentionshift.steps.mask_points
    columns = {
        "data": config.data.name,
        "labeler": config.labeler.name,
        "encoder": config.encoder.name,
        "key_points": config.attentionshift.steps.shift.method,
        "taught_by": f"{points.source} {points.supervision}",
        "segmenter": config.segmenter.name,
        "supervision": (row.ours or {}).get("supervision"),  # a run trains on both
    }
    assert {name: columns[name] for name in row.ours or {}} == row.ours
    values = dict(dotted(dataclasses.asdict(config)))
    for settings in row.scale.values():
        assert {key: values[key] for key in settings} == dict(settings)


# --- ours beside them ------------------------------------------------------------------------------------------------


def detected(runs: Runs, map50: float, *, views: bool = False, **columns: object) -> str:
    """The records of AttentionShift's own detector: training, detections, their mAPs with bounds."""
    known = {"labeler": FOLDER, "recipe": "paper", "encoder": "mae_s", "key_points": "shift"}
    columns = {"profile": "paper", "data": "voc", "seed": 0, **known, "taught_by": "parts points"} | columns
    shift = {"shift": {"method": columns["key_points"]}}
    source, supervision = str(columns["taught_by"]).split()
    shift["mask_points"] = {"source": source, "supervision": supervision}
    config = {
        "seed": columns["seed"],
        "encoder": {"name": columns["encoder"], "pretrained": True},
        "attentionshift": {"learning": {"batch": 16, "epochs": 12, "steps": None}, "steps": shift},
    }
    trained = runs.add("train_attentionshift", columns, config=config)
    sides = ([600, 800, 400] * 2, [1000] * 3 + [1333] * 3) if views else ([600], [1000])
    scale = {"test_short_sides": sides[0], "test_long_sides": sides[1], "test_flip": views}
    found = runs.add(
        "detect_attentionshift", columns, config={"attentionshift": {"scale": scale}}, inputs={"network": trained}
    )
    figures = {}
    for name, value in (("25", map50 + 0.15), ("50", map50), ("75", map50 / 2)):
        figures |= {f"mask_map{name}": value, f"mask_map{name}_low": value - 0.01, f"mask_map{name}_high": value + 0.02}
    config = {"images": "all", "voc": {"resamples": 50, "seed": columns["seed"]}}
    return runs.add("own_ap_val", columns, config=config, inputs={"predictions": found}, mask_ap=map50 / 3, **figures)


def test_seeds_are_one_row_although_their_intervals_are_drawn_with_them() -> None:
    runs = Runs()
    for seed, value in enumerate((0.5, 0.52, 0.54)):
        detected(runs, value, seed=seed)
    for seed in (0, 1, 2):
        detected(runs, 0.45, seed=seed, key_points="kmeans")
    scores = [record for record in runs.records if record["stage"] == "own_ap_val"]
    assert [len(group) for group in over_seeds(scores, by_address(runs.records))] == [3, 3]
    kmeans, shift = measured(made(runs, f"{FOLDER}_tab1"))
    assert of(shift, "key-points", "backbone", "mAP50, paper", "mAP50, ours", "mAP50, difference", "seeds") == [
        "AttnShift", "ViT-S", "53.2", "52.0 (50.0 … 54.0)", "-1.2", "0, 1, 2",
    ]  # fmt: skip
    assert shift["mAP50, 95 % interval"] == "0: [49.0, 52.0]; 1: [51.0, 54.0]; 2: [53.0, 56.0]"
    assert of(kmeans, "key-points", "mAP25, paper", "mAP25, ours", "computed by") == [
        "K-Means", "67.4", "60.0 (60.0 … 60.0)", "",
    ]  # fmt: skip


def test_each_table_compares_its_own_setting_and_names_its_rows() -> None:
    runs = Runs()
    for taught_by in ("attention mask", "parts mask", "attention points", "parts points"):
        detected(runs, 0.4, taught_by=taught_by, profile="demo", data="parts", encoder="vit_nano16")
    for key_points in ("kmeans_star", "kmeans"):
        detected(runs, 0.3, key_points=key_points, profile="demo", data="parts", encoder="vit_nano16")
    heading = "Not comparable: profile demo, data parts: another scale, other data"
    first, second, third = (part(made(runs, f"{FOLDER}_tab{number}"), heading) for number in (1, 2, 3))
    assert [row["key-points"] for row in first] == ["K-Means", "K-Means*", "AttnShift"]
    assert [of(row, "sup.", "method") for row in second] == [
        ["Mask", "Baseline"], ["Mask", "AttentionShift"], ["Point", "Baseline"], ["Point", "AttentionShift"],
    ]  # fmt: skip
    assert [of(row, "method", "backbone", "mAP50, ours") for row in third] == [["AttnShift", "vit_nano16", "40.0"]]
    assert all(row["mAP50, paper"] == "" for row in (*first, *second, *third))


def test_one_view_stands_in_table_1_and_twelve_in_table_3() -> None:
    runs = Runs()
    detected(runs, 0.5)
    detected(runs, 0.55, views=True)
    (one,), (twelve,) = (measured(made(runs, f"{FOLDER}_tab{number}")) for number in (1, 3))
    assert (one["mAP50, ours"], one["mAP50, difference"]) == ("50.0", "-3.2")
    assert (twelve["mAP50, ours"], twelve["mAP50, difference"]) == ("55.0", "+0.6")
    rows = part(made(runs, f"{FOLDER}_tab3"), PAPERS)
    assert [row["computed by"].rpartition("profile=paper ")[2] for row in rows] == [
        "quoted by the paper", "row=bestie encoder.checkpoint=FILE", "",
    ]  # fmt: skip


def test_only_segmenters_that_learned_from_attentionshifts_masks_stand_in_the_main_papers_table() -> None:
    runs = Runs()
    runs.pair("mask_rcnn_r50", human=0.4, pseudo=0.3, data="voc")  # MAL's
    assert measured(made(runs, f"{FOLDER}_voc")) == []
    own = {"labeler": FOLDER, "encoder": "mae_s", "key_points": "shift", "taught_by": "parts points"}
    runs.pair("mask_rcnn_r50", human=0.4, pseudo=0.32, data="voc", **own)
    rows = measured(made(runs, f"{FOLDER}_voc"))
    assert {row["method"] for row in rows} == {"human masks", "AttnShift"}


def test_masks_from_points_stand_beside_others_of_the_same_data() -> None:
    runs = Runs()
    columns = {"profile": "demo", "data": "parts", "seed": 0}
    own = {"encoder": "vit_nano16", "recipe": "best", "key_points": "shift", "taught_by": "parts points"}
    for labeler, iou, more in (("box", 0.5, {}), (FOLDER, 0.45, own), ("disc", 0.4, {})):
        labels = runs.add("label_val", columns | {"labeler": labeler} | more)
        runs.add("quality_val", columns | {"labeler": labeler} | more, inputs={"labels": labels}, iou=iou)
    runs.quality(0.7, profile="demo", data="shapes")  # no labeler learned from points there
    table = made(runs, "point_masks")
    assert [row[:4] for row in table.rows] == [
        ("AttentionShift", "AttnShift", "parts points", "vit_nano16"),
        ("disc at the point", "-", "-", "-"),
        ("filled box", "-", "-", "-"),
    ]
    assert [row[table.header.index("mask IoU")] for row in table.rows] == ["45.0", "40.0", "50.0"]


def test_what_a_point_keeps_stands_beside_what_a_box_keeps() -> None:
    runs = Runs()
    here = {"profile": "demo", "data": "parts"}
    own = {"labeler": FOLDER, "encoder": "vit_nano16", "key_points": "shift", "taught_by": "parts points"}
    human = runs.pair("mask_rcnn_tiny", human=0.4, pseudo=0.36, **here)  # MAL's
    runs.pair("mask_rcnn_tiny", human=0.4, pseudo=0.2, divided_by=human, **here, **own)
    runs.pair("mask_rcnn_tiny", human=0.3, pseudo=0.2, **here | {"data": "shapes"})  # nothing learned from points there
    table = made(runs, "point_retention")
    titles = ("trained on", "segmenter", "mask AP", "kept")
    assert [[row[table.header.index(title)] for title in titles] for row in table.rows] == [
        ["human masks", "Mask R-CNN (tiny)", "40.0", "-"],
        ["AttentionShift (points)", "Mask R-CNN (tiny)", "20.0", "50.0"],
        ["MAL (boxes)", "Mask R-CNN (tiny)", "36.0", "90.0"],
    ]
