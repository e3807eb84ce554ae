"""SimFormer as one method among others: what a run of it ends in, its stages' keys, and whole runs."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from analysis.summary import summary
from analysis.weak_shot import ROWS, row_name
from mal.data.semantic import FILE, read_semantic
from mal.engine.graph import Stage, Workdir, in_order
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.simformer import diagnostics
from mal.methods.simformer.stages import supervision
from mal.request import Graph
from slurm.cluster import Resources
from slurm.plan import check_shares
from tests import sweeps
from tests.simformer_cases import changed, draw
from tests.small_configs import stages_of
from tests.test_end_to_end import command

CPU = torch.device("cpu")
SIMFORMER = ("labeler=simformer", "profile=smoke")


def stages(compose, store: Path, *more: str) -> dict[str, list[Stage]]:
    return stages_of(changed(compose, *more, of=SIMFORMER), store)


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
        ("testing.subset=P1", {"miou_val"}),
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
        (
            ["simformer.split.name=P1", "simformer.testing.subset=P2"],
            r"subset=P2 has classes that are not novel in the",
        ),
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
    with pytest.raises(ConfigError, match=r"would hand on what SimNet has not learned with simformer\.similarity"):
        changed(compose, "similarity.weight=0")
    changed(compose, "similarity.weight=0", "distillation.weight=0")
    changed(compose, "similarity.weight=0", "pairs.kind=none")  # nothing is handed on
    with pytest.raises(ConfigError, match="compare names simformer"):
        compose("compare=[simformer]")


def test_the_similarities_are_judged_on_the_images_that_results_are_of(compose, tmp_path: Path, monkeypatch) -> None:
    """As all results are: settings are chosen on the other half."""
    config = compose(*SIMFORMER, "data.val_images=odd")
    graph = Graph(config, Store(tmp_path), CPU)
    (stage,) = [it for it in in_order(graph.targets()) if it.name == "similarity_val"]
    draw(tmp_path / "maps", images=5)
    asked = []
    monkeypatch.setattr(diagnostics, "aucs", lambda _folder, truth, *_: (asked.append(truth), ({}, 0))[1])
    stage.work(Workdir(tmp_path, {"data": tmp_path / "maps", "network": tmp_path}, CPU))
    every = sorted(image.id for image in read_semantic(tmp_path / "maps" / FILE).images)
    assert [image.id for image in asked[0].images] == every[1::2]


def test_the_released_recipe_is_the_released_programs(compose) -> None:
    """Its table of differences (docs/method/simformer.md), as far as it holds for all splits of a data set."""
    coco, ade = (
        compose("labeler=simformer", "recipe=released", f"data={it}") for it in ("coco_stuff_10k", "ade20k_150")
    )
    assert (coco.simformer.augment.scales[-1], ade.simformer.augment.scales[-1]) == (1.5, 2.0)
    for config in (coco, ade):
        own = config.simformer
        assert len(own.augment.scales) == round(10 * (own.augment.scales[-1] - own.augment.scales[0])) + 1
        assert (config.seed, own.augment.tags, own.pairs.reference) == (6, "crop", "released")
    assert compose("labeler=simformer", "recipe=paper", "data=ade20k_150").seed == 0


@pytest.mark.parametrize(("more", "most"), [((), 4), (("pairs.kind=none",), 8), (("learning.supervision=oracle",), 8)])
def test_a_plan_keeps_an_image_and_its_reference_in_one_process(compose, tmp_path: Path, more, most: int) -> None:
    """Before anything is queued: in pairs a batch of 8 is shared by 4 processes at most."""
    settings = ("learning.batch=8", *more)
    (stage,) = stages(compose, tmp_path, *settings)["train_simformer"]
    config = changed(compose, *settings, of=SIMFORMER)
    check_shares(stage, config, Resources(gpus=most))
    with pytest.raises(ConfigError, match=r"simformer\.learning\.batch=8.* cannot be shared equally by the"):
        check_shares(stage, config, Resources(gpus=2 * most))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tab1", "tab2", "tab3", "rows", "fig1", "fig2"])
@pytest.mark.parametrize(
    "profile", [pytest.param(each, marks=pytest.mark.slow) for each in ("smoke", "demo", "mini")] + ["paper"]
)
def test_every_experiment_has_rows_at_every_scale(name: str, profile: str) -> None:
    jobs = sweeps.jobs(f"experiment=simformer/{name}", f"profile={profile}")
    many = {
        "smoke": {"tab1": 6, "tab2": 7, "tab3": 10, "rows": 11},
        "demo": {"tab1": 6, "tab2": 14, "tab3": 20, "rows": 22},
        "mini": {"tab1": 6, "tab2": 14, "tab3": 20, "rows": 66},
        "paper": {"tab1": 12, "tab2": 12, "tab3": 30, "rows": 44},
    }[profile]
    assert len(jobs) == {**many, "fig1": 3, "fig2": 3}[name]


@pytest.mark.slow
def test_the_rows_that_were_expected_to_differ_are_computed(compose) -> None:
    """Every row that a verdict needs, by the columns its results will have (analysis/weak_shot.py)."""
    found = set()
    for job in sweeps.jobs("experiment=simformer/rows", "profile=mini", "data=car_parts"):
        settings = [it.removeprefix("simformer.") for it in job if it.startswith("simformer.")]
        config = changed(compose, *settings)
        own = config.simformer
        columns = {"pairs": own.pairs.kind, "complement": own.losses.complement > 0, "pseudo": own.pseudo.kind}
        columns |= {"student": own.distillation.student, "supervision": supervision(config)}
        found.add((row_name({"columns": columns}), own.split.name, next(it for it in job if it.startswith("seed="))))
    assert {row for row, *_ in found} == {*ROWS}
    assert len(found) == 11 * 2 * 3


@pytest.mark.slow
def test_a_whole_run_from_tags_to_a_table(tmp_path: Path) -> None:
    said = command("labeler=simformer", "simformer.pseudo.kind=own", "data=shapes12", store=tmp_path / "runs").stdout
    for words in (
        "SimFormer, encoder pyramid_nano",
        "novel mIoU",
        "pairs cross, re-trained",
        "Pseudo-labels (own)",
        "network:  ",
        "maps:     ",
    ):
        assert words in said
    (record,) = (tmp_path / "runs" / "miou_val").glob("*/run.json")
    assert f"pictures: {record.parent / 'sheet.png'}" in said
    with Image.open(record.parent / "sheet.png") as picture:
        assert min(picture.size) > 200
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
