"""SimFormer's tables: numbers stand as printed, ours stand beside the rows that they are."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from paper_runs import PAPERS, Runs, made, measured, of, part
from test_paper_numbers import dotted

from analysis.audit import AGREES, claims, report
from analysis.paper.table import PaperTable, Row
from analysis.paper_numbers import find_cell, load
from analysis.rendering import markdown
from mal.config import Config
from mal.methods.simformer.stages import supervision
from tests import sweeps

Compose = Callable[..., Config]

FOLDER = "simformer"
TABLES = {name: table for name, table in load().items() if table.file.parent.name == FOLDER and table.rows}
PAPER = {"profile": "paper", "data": "coco_stuff_10k", "seed": 0}
MINI = {"profile": "mini", "data": "car_parts", "split": "P1", "novel": 5, "encoder": "mobilenetv2", "points": 50}
BELOW = "Not comparable: profile mini, data car_parts: another scale, other data"


def scored(runs: Runs, value: float, *, steps: int = 60000, **columns: Any) -> str:
    """The records of a network: training, class maps, their mIoUs with bounds; again after pseudo-labels, if any."""
    method = {"recipe": "paper", "encoder": "resnet50", "split": "S1", "novel": 43, "pairs": "cross", "points": 100}
    method |= {"complement": True, "student": "across", "supervision": "weak", "pseudo": "none"}
    columns = {**PAPER, "labeler": FOLDER, **method, **columns}
    pairs = {"kind": columns["pairs"], "points": columns["points"]}
    config = {
        "seed": columns["seed"],
        "encoder": {"name": columns["encoder"], "pretrained": True},
        "simformer": {"learning": {"batch": 8, "steps": steps}, "pairs": pairs},
    }
    trained = runs.add("train_simformer", columns, config=config)
    if columns["pseudo"] != "none":
        made_up = runs.add("pseudo_train", columns, config={}, inputs={"network": trained})
        trained = runs.add("train_simformer", columns, config=config, inputs={"pseudo": made_up})
    maps = runs.add("segment_val", columns, inputs={"network": trained})
    figures = {"novel_miou": value, "novel_miou_low": value - 0.01, "novel_miou_high": value + 0.02}
    figures |= {"base_miou": 0.4, "miou": 0.35}
    return runs.add("miou_val", columns, config={"images": "all"}, inputs={"maps": maps}, **figures)


def published(runs: Runs, value: float, **columns: Any) -> None:
    """The records of MaskFormer's published network."""
    columns = {
        **PAPER,
        "labeler": FOLDER,
        "encoder": "resnet50",
        "supervision": "published",
        "pseudo": "none",
        **columns,
    }
    network = runs.add("published_simformer", columns)
    maps = runs.add("segment_val", columns, inputs={"network": network})
    runs.add("miou_val", columns, config={"images": "all"}, inputs={"maps": maps}, novel_miou=value)


# --- printed numbers -------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there() -> None:
    assert {name: len(table.rows) for name, table in TABLES.items()} == {
        "simformer_tab1": 12, "simformer_tab2": 12, "simformer_tab3": 24,
    }  # fmt: skip
    for table in TABLES.values():
        assert all(row.printed["novel"] for row in table.rows)
        assert {row.names["split"][0] for row in table.rows} == {"S"}


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("tab1.j50_s1", "30.7"), ("tab1.j50_s4", "29.2"), ("tab1.j100_s2", "26.0"), ("tab1.j150_s3", "31.6"),
        ("tab2.basic_s1", "27.0"), ("tab2.self_s2", "24.3"), ("tab2.basic_s4", "25.6"), ("tab2.cross_s3", "31.5"),
        ("tab3.retab_s4", "25.6"), ("tab3.simformer_s7", "25.1"), ("tab3.simformer_star_s9", "24.0"),
        ("tab3.oracle_s5", "35.1"), ("tab3.oracle_s8", "36.5"),
    ],
)  # fmt: skip
def test_numbers_stand_as_printed(cell: str, printed: str) -> None:
    assert find_cell(f"{FOLDER}_{cell}.novel", TABLES[f"{FOLDER}_tab1"], TABLES).text == printed


def test_rows_of_a_split_are_that_splits() -> None:
    for table in TABLES.values():
        for row in table.rows:
            assert row.id.endswith(f"_{row.names['split'].lower()}")
            if row.ours is not None:
                assert row.ours["split"] == row.names["split"]
                assert f"simformer.split.name={row.ours['split']}" in str(row.run)


def test_the_tables_agree_with_each_other_and_the_slips_are_named() -> None:
    found = list(claims(TABLES))
    assert Counter(one.verdict for one in found) == {AGREES: len(found)}
    shared = [one for one in found if one.computed.rstrip("0") == f"{one.printed}".rstrip("0")]
    assert len(shared) == 5  # J = 100 in four splits, and S4 of Table 3
    printed = "\n".join(markdown(table) for table in report(load()))
    for said in ("has no DistLoss", "published ResNet-50 checkpoint", "scores the novel classes of S3"):
        assert said in printed


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
    own = config.simformer
    weak = supervision(config) == "weak"
    columns = {
        "data": config.data.name,
        "labeler": config.labeler.name,
        "split": own.split.name,
        "supervision": supervision(config),
        "pairs": own.pairs.kind if weak else "none",
        "points": own.pairs.points,
        "complement": weak and own.losses.complement > 0,
        "pseudo": own.pseudo.kind,
    }
    assert {name: columns[name] for name in row.ours or {}} == row.ours
    values = dict(dotted(dataclasses.asdict(config)))
    for settings in row.scale.values():
        assert {key: values[key] for key in settings} == dict(settings)


# --- ours beside them ------------------------------------------------------------------------------------------------


def test_seeds_are_one_row_beside_the_number_of_their_split() -> None:
    runs = Runs()
    for seed, value in enumerate((0.30, 0.31, 0.32)):
        scored(runs, value, seed=seed)
    scored(runs, 0.26, split="S2")
    scored(runs, 0.30, points=50)
    rows = measured(made(runs, "simformer_tab1"))
    columns = ("points", "split", "novel mIoU, paper", "novel mIoU, ours", "novel mIoU, difference", "base mIoU")
    assert [of(row, *columns) for row in rows] == [
        ["J = 50", "S1", "30.7", "30.0", "-0.7", "40.0"],
        ["J = 100", "S1", "31.1", "31.0 (30.0 … 32.0)", "-0.1", "40.0 (40.0 … 40.0)"],
        ["J = 100", "S2", "26.0", "26.0", "+0.0", "40.0"],
    ]
    assert rows[1]["novel mIoU, 95 % interval"] == "0: [29.0, 32.0]; 1: [30.0, 33.0]; 2: [31.0, 34.0]"


def test_configurations_are_named_and_a_shorter_training_is_no_row() -> None:
    runs = Runs()
    for pairs, value in (("none", 0.27), ("sampler", 0.275), ("self", 0.28), ("cross", 0.31)):
        scored(runs, value, pairs=pairs)
    table = made(runs, "simformer_tab2")
    assert [of(row, "configuration", "novel mIoU, difference") for row in measured(table)] == [
        ["Basic Model", "+0.0"], ["Self-Pair", "+0.2"], ["Cross-Pair", "-0.1"],
    ]  # fmt: skip
    (sampler,) = part(table, "At the paper's scale and on its data, but none of its rows")
    assert of(sampler, "configuration", "split", "novel mIoU, ours") == ["sampler alone", "S1", "27.5"]
    short = Runs()
    scored(short, 0.2, steps=900)
    scored(short, 0.2, steps=900, pairs="none")
    heading = "simformer.learning.steps=900, not 60000"
    assert [heading in title for title, _ in made(short, "simformer_tab2").parts()] == [False, True]


def test_an_oracle_is_no_weak_run_and_a_star_no_plain_one() -> None:
    runs = Runs()
    for split in ("S4", "S9"):
        scored(runs, 0.30, split=split)
        scored(runs, 0.32, split=split, pseudo="own")
        published(runs, 0.36, split=split)
        scored(runs, 0.35, split=split, supervision="oracle", pairs="none", complement=False)
        scored(runs, 0.10, split=split, pseudo="complement", pairs="none")
    scored(runs, 0.2, split="S4", pairs="none")  # the Basic Model is a row of Table 2
    table = made(runs, "simformer_tab3")
    assert [of(row, "method", "split", "novel mIoU, ours", "novel mIoU, difference") for row in measured(table)] == [
        ["SimFormer", "S4", "30.0", "+0.5"], ["SimFormer", "S9", "30.0", "+6.8"],
        ["SimFormer*", "S4", "32.0", "+0.3"], ["SimFormer*", "S9", "32.0", "+8.0"],
        ["FullyOracle", "S4", "36.0", "+0.0"], ["FullyOracle", "S9", "36.0", "+1.3"],
    ]  # fmt: skip
    others = part(table, "At the paper's scale and on its data, but none of its rows")
    assert [of(row, "method", "split") for row in others] == [
        ["complement*", "S4"], ["FullyOracle (trained here)", "S4"],
        ["complement*", "S9"], ["FullyOracle (trained here)", "S9"],
    ]  # fmt: skip
    quoted = [row for row in part(table, PAPERS) if row["method"] == "RETAB*"]
    assert {row["computed by"] for row in quoted} == {"quoted by the paper"}


def test_a_small_scale_stands_apart_from_the_papers_numbers() -> None:
    runs = Runs()
    for pseudo in ("none", "cam", "complement", "own"):
        scored(runs, 0.13, pseudo=pseudo, pairs="cross" if pseudo in ("none", "own") else "none", **MINI)
    scored(runs, 0.34, supervision="oracle", pairs="none", **MINI)
    for points, pairs in ((100, "cross"), (50, "none"), (50, "sampler")):
        scored(runs, 0.12, **MINI | {"points": points, "pairs": pairs})
    scored(runs, 0.05, **MINI | {"pairs": "none", "complement": False})
    first, second, third = (part(made(runs, f"simformer_tab{number}"), BELOW) for number in (1, 2, 3))
    assert [of(row, "points", "split") for row in first] == [["J = 50", "P1"], ["J = 100", "P1"]]
    assert [row["configuration"] for row in second] == [
        "without CompLoss, Basic Model", "Basic Model", "sampler alone", "Cross-Pair", "Cross-Pair",
    ]  # fmt: skip
    assert [row["method"] for row in third if row["settings"].count("points=100") == 0] == [
        "complement*", "cam*", "SimFormer", "SimFormer*", "FullyOracle (trained here)",
    ]  # fmt: skip
    assert all(row["novel mIoU, paper"] == "" for row in (*first, *second, *third))


def test_what_similarities_and_pseudo_labels_know_has_tables_of_its_own() -> None:
    runs = Runs()
    columns = {**MINI, "labeler": FOLDER, "recipe": "paper", "seed": 0, "complement": True, "student": "across"}
    columns |= {"supervision": "weak", "pairs": "cross", "pseudo": "none"}
    runs.add("similarity_val", columns, teacher_auc=0.49, student_auc=0.55)
    runs.add("similarity_val", columns | {"pairs": "sampler"}, student_auc=0.5)
    for pseudo, right in (("complement", 0.9), ("own", 0.4)):
        runs.add("pseudo_quality_train", columns | {"pseudo": pseudo}, share_kept=0.25, share_right=right)
    told = made(runs, "simformer_similarity")
    assert [of(row, "configuration", "AUC of SimNet", "AUC of the student") for row in measured(told, "")] == [
        ["sampler alone", "-", "0.500"], ["Cross-Pair", "0.490", "0.550"],
    ]  # fmt: skip
    labels = made(runs, "simformer_pseudo")
    assert [of(row, "pseudo-labels", "labelled", "right") for row in measured(labels, "")] == [
        ["complement", "25.0", "90.0"], ["SimFormer's own", "25.0", "40.0"],
    ]  # fmt: skip


def test_all_networks_stand_in_one_table_by_what_they_learned_from() -> None:
    runs = Runs()
    scored(runs, 0.13, **MINI)
    scored(runs, 0.12, **MINI | {"student": "within"})
    scored(runs, 0.11, **MINI | {"pairs": "none", "complement": False})
    scored(runs, 0.15, pseudo="own", **MINI)
    scored(runs, 0.34, **MINI | {"supervision": "oracle", "pairs": "none", "complement": False})
    columns = ("masks of", "trained again on", "configuration", "CompLoss", "points", "student", "novel mIoU")
    assert [of(row, *columns) for row in measured(made(runs, "simformer_rows"), "")] == [
        ["base classes", "-", "Basic Model", "no", "-", "-", "11.0"],
        ["base classes", "-", "Cross-Pair", "yes", "J = 50", "across", "13.0"],
        ["base classes", "-", "Cross-Pair", "yes", "J = 50", "within", "12.0"],
        ["base classes", "its own predictions", "Cross-Pair", "yes", "J = 50", "across", "15.0"],
        ["all classes", "-", "Basic Model", "no", "-", "-", "34.0"],
    ]
