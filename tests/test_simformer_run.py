"""SimFormer as one method among others: what a run of it ends in, its stages' keys, and whole runs."""

import json
from pathlib import Path

import pytest
import torch

from analysis.summary import summary
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from tests import sweeps
from tests.simformer_cases import changed
from tests.test_end_to_end import command

CPU = torch.device("cpu")
SIMFORMER = ("labeler=simformer", "profile=smoke")


def stages(compose, store: Path, *more: str) -> dict[str, list[Stage]]:
    graph = Graph(changed(compose, *more, of=SIMFORMER), Store(store), CPU)
    found: dict[str, list[Stage]] = {}
    for stage in in_order(graph.targets()):
        found.setdefault(stage.name, []).append(stage)
    return found


def keys(compose, store: Path, *more: str) -> dict[str, list[str]]:
    return {name: [it.key for it in found] for name, found in stages(compose, store, *more).items()}


def test_it_chooses_its_data_and_ends_in_class_maps(compose, tmp_path: Path) -> None:
    config = compose("labeler=simformer")
    assert (config.data.name, config.segmenter.name, config.compare) == ("shapes12", "none", [])
    found = stages(compose, tmp_path)
    assert {"semantic_val", "weak_train", "train_simformer", "segment_val", "miou_val", "similarity_val"} <= {*found}
    assert not any(name.startswith(("label_", "quality_", "boxes_", "train_segmenter")) for name in found)


@pytest.mark.parametrize("more", [(), ("pseudo.kind=own",), ("pseudo.kind=cam",)])
def test_weak_training_starts_from_the_weak_view_alone(compose, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Class maps with novel pixels reach a network through none of its stages."""
    for name, found in stages(compose, tmp_path, *more).items():
        if name in ("train_simformer", "train_classifier", "pseudo_train"):
            for stage in found:
                inputs = {it.name for it in stage.inputs.values()} - {"shapes_train"}
                assert inputs <= {"weak_train", "pseudo_train", "train_simformer", "train_classifier"}


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("testing.short_side=96", {"segment_val", "miou_val", "similarity_val"}),
        ("testing.subset=P2", {"miou_val"}),
        ("testing.pairs=3", {"similarity_val"}),
        ("pseudo.cam_steps=9", set()),
    ],
)
def test_a_setting_changes_the_keys_of_those_who_read_it(compose, tmp_path: Path, setting: str, changed: set) -> None:
    one, other = keys(compose, tmp_path), keys(compose, tmp_path, setting)
    assert {name for name in one if one[name] != other[name]} == changed


def test_rows_share_what_does_not_know_what_they_vary(compose, tmp_path: Path) -> None:
    cross, retrained = keys(compose, tmp_path), keys(compose, tmp_path, "pseudo.kind=own")
    assert cross["train_simformer"][0] in retrained["train_simformer"]
    oracles = [
        keys(compose, tmp_path, "learning.supervision=oracle", f"{more}")["train_simformer"]
        for more in ("pairs.points=5", "split.name=P2", "losses.complement=0")
    ]
    assert oracles[0] == oracles[1] == oracles[2]
    assert "weak_train" not in stages(compose, tmp_path, "learning.supervision=oracle")


def test_columns_tell_rows_apart(compose, tmp_path: Path) -> None:
    def columns(*more: str) -> dict:
        return stages(compose, tmp_path, *more)["miou_val"][0].columns

    assert columns() == {
        "profile": "smoke", "data": "shapes12", "seed": 0, "labeler": "simformer", "recipe": "best",
        "encoder": "pyramid_nano", "split": "P1", "novel": 3, "pairs": "cross", "points": 8, "complement": True,
        "student": "across", "supervision": "weak", "pseudo": "none",
    }  # fmt: skip
    named = columns("split.classes=[plain warm,ground]", "losses.complement=0")
    assert (named["split"], named["novel"], named["complement"]) == ("own", 2, False)
    cam = columns("pseudo.kind=cam")
    assert (cam["pairs"], cam["complement"], cam["pseudo"]) == ("none", False, "cam")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["segmenter=solov2_tiny", "compare=[box]"], r"segmenter=solov2_tiny and compare=\[box\] can do nothing with"),
        (["clustering.enabled=true"], "ends in class maps"),
        (["simformer.split.name=P9"], "there is no split 'P9'"),
    ],
)
def test_what_it_has_no_use_for_is_refused(compose, tmp_path: Path, more: list[str], sentence: str) -> None:
    graph = Graph(compose(*SIMFORMER, *more), Store(tmp_path), CPU)
    with pytest.raises(ConfigError, match=sentence):
        (graph.check(), graph.targets())


def test_class_maps_are_nothing_for_a_method_of_boxes(compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds class maps"):
        Graph(compose("data=coco_stuff_10k"), Store(tmp_path), CPU)


def test_settings_that_make_no_sense_together_are_refused(compose) -> None:
    with pytest.raises(ConfigError, match="replaces masks that supervision=oracle has"):
        compose(*SIMFORMER, "simformer.pseudo.kind=own", "simformer.learning.supervision=oracle")
    with pytest.raises(ConfigError, match="compare names simformer"):
        compose("compare=[simformer]")


@pytest.mark.parametrize("name", ["tab1", "tab2", "tab3"])
@pytest.mark.parametrize(
    "profile", [pytest.param(each, marks=pytest.mark.slow) for each in ("smoke", "demo", "mini")] + ["paper"]
)
def test_every_experiment_has_rows_at_every_scale(name: str, profile: str) -> None:
    jobs = sweeps.jobs(f"experiment=simformer/{name}", f"profile={profile}")
    many = {"tab1": 6, "tab2": 14, "tab3": 20} if profile in ("demo", "mini") else {"tab1": 6, "tab2": 7, "tab3": 10}
    many = {"tab1": 12, "tab2": 12, "tab3": 30} if profile == "paper" else many
    assert len(jobs) == many[name]


@pytest.mark.slow
def test_a_whole_run_from_tags_to_a_table(tmp_path: Path) -> None:
    said = command("labeler=simformer", "simformer.pseudo.kind=own", "data=shapes12", store=tmp_path / "runs").stdout
    for words in (
        "SimFormer, encoder pyramid_nano",
        "novel mIoU",
        "pairs cross, re-trained",
        "Pseudo-labels (own)",
        "class maps: ",
    ):
        assert words in said
    (record,) = (tmp_path / "runs" / "miou_val").glob("*/run.json")
    metrics = json.loads(record.read_text())["metrics"]
    assert {"novel_miou", "novel_miou_low", "novel_miou_high", "base_miou", "miou"} <= set(metrics)


def record(stage: str, metrics: dict[str, float], **columns: object) -> dict:
    about = {
        "profile": "demo", "data": "shapes12", "seed": 0, "labeler": "simformer", "supervision": "weak",
        "pairs": "cross", "pseudo": "none", **columns,
    }  # fmt: skip
    values = {name: {"value": value, "n": 4} for name, value in metrics.items()}
    key = f"{abs(hash((stage, *about.values()))):016x}"[:16]
    return {
        "stage": stage, "key": key, "columns": about, "config": {}, "inputs": {}, "sources": {}, "metrics": values,
        "seconds": 60.0,
    }  # fmt: skip


def test_a_run_is_told_in_a_table_and_two_sentences() -> None:
    ends = {"": 0.25, "_low": 0.2, "_high": 0.3}
    found = {f"{name}{end}": value for name in ("novel_miou", "base_miou", "miou") for end, value in ends.items()}
    oracle = {"supervision": "oracle", "pairs": "none"}
    said = summary(
        [
            record("miou_val", found),
            record("miou_val", {**found, "novel_miou": 0.5}, **oracle),
            record("pseudo_quality_train", {"share_kept": 0.5, "share_right": 0.25}, pseudo="own"),
            record("similarity_val", {"student_auc": 0.75}),
        ]
    )
    lines = [" ".join(line.replace("|", " ").split()) for line in said.splitlines()]
    assert "pairs cross 25.0 [20.0, 30.0] 25.0 [20.0, 30.0] 25.0 [20.0, 30.0]" in lines
    assert "all masks (oracle) 50.0 [20.0, 30.0] 25.0 [20.0, 30.0] 25.0 [20.0, 30.0]" in lines
    assert "(own): 50.0% of the novel training pixels have a label, 25.0% of these the right one" in said
    assert "AUC of student 0.750 (chance .5)" in said
