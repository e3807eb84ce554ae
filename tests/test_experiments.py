"""Experiments that list rows: the paper's rows and no others, what they share computed once, LVIS end to end."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import CompactHydraException

from analysis.tables import paper_tables
from mal.config import Config
from mal.data.annotations import read
from mal.data.sources import files_split
from mal.engine.graph import Stage, in_order
from mal.engine.store import Fingerprints, Store
from mal.errors import ConfigError
from mal.request import Graph
from mal.run import run
from mal.segmenters.config_checks import check as check_segmenter
from tests import sweeps
from tests.paper_data import coco_and_lvis

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
PROFILES = ("smoke", "demo", "mini", "paper")
LISTS = ("tab1_coco", "tab2_lvis", "tab7_detection")
Compose = Callable[..., Config]


def overrides(experiment: str, profile: str) -> list[list[str]]:
    """The overrides of each row of an experiment."""
    return sweeps.jobs(f"experiment={experiment}", f"profile={profile}")


def brought(job: list[str]) -> list[str]:
    """What a row itself chooses and sets."""
    return [it for it in job if it.startswith(("segmenter", "labeler_data="))]


CROSSINGS = [
    pytest.param(experiment, profile, marks=() if profile in ("mini", "paper") else pytest.mark.slow)
    for experiment in LISTS
    for profile in PROFILES
]


@pytest.mark.parametrize(("experiment", "profile"), CROSSINGS)
def test_every_row_composes_with_every_profile(compose, experiment, profile):
    config = compose(*overrides(experiment, profile)[-1])  # composing takes a second; all are composed below
    check_segmenter(config.segmenter)
    assert (config.experiment, config.profile, config.compare) == (experiment, profile, [])


def described(config: Config) -> tuple[Any, ...]:
    segmenter, other = config.segmenter, config.data.labeler_train.name
    return config.data.name, segmenter.name, segmenter.dcn, segmenter.mask_head, other, config.encoder.name


def test_the_rows_are_the_papers(compose):
    assert [brought(job) for job in overrides("tab1_coco", "paper")] == [
        ["segmenter=solov2_r50"],
        ["segmenter=solov2_r101_dcn"],
        ["segmenter=solov2_x101_dcn"],
        ["segmenter=cascade_convnext_s"],
        ["segmenter=cascade_convnext_b"],
        ["segmenter=mask2former_swin_s"],
    ]
    jobs = overrides("tab2_lvis", "paper")
    assert [brought(job) for job in jobs] == [
        ["segmenter=mask_rcnn_r50"],
        ["segmenter=mask_rcnn_r101"],
        ["segmenter=mask_rcnn_x101_32x4d"],
        ["segmenter=mask_rcnn_x101_64x4d"],
        ["segmenter=mask_rcnn_x101_32x4d", "labeler_data=coco"],
        ["segmenter=mask_rcnn_x101_64x4d", "labeler_data=coco"],
        ["segmenter=mask_rcnn_r50", "segmenter.dcn=true"],
        ["segmenter=mask_rcnn_r101", "segmenter.dcn=true"],
    ]
    assert described(compose(*jobs[0])) == ("lvis", "mask_rcnn_r50", False, True, None, "mae_b")
    assert described(compose(*jobs[-2])) == ("lvis", "mask_rcnn_r50", True, True, None, "mae_b")
    assert described(compose(*jobs[5])) == ("lvis", "mask_rcnn_x101_64x4d", False, True, "coco", "mae_b")
    jobs = overrides("tab7_detection", "paper")
    heads = Counter(it.lower() for job in jobs for it in job if "mask_head" in it)
    assert heads == {"segmenter.mask_head=false": 7, "segmenter.mask_head=true": 7}
    assert described(compose(*jobs[9])) == ("coco", "cascade_convnext_s", False, True, None, "mae_b")


def test_lvis_brings_its_test_settings_and_its_training_order_to_any_segmenter(compose):
    for segmenter in ("mask_rcnn_tiny", "mask_rcnn_r50"):
        chosen = compose("data=lvis", "profile=paper", f"segmenter={segmenter}").segmenter
        assert (chosen.test.score, chosen.test.max_detections) == (1e-4, 300)
        assert (chosen.schedule.repeat_threshold, chosen.schedule.repeat_rounding) == (1e-3, "up")
        values = chosen.test.batch * chosen.test.max_detections * 1204 * (2 * chosen.heads.mask_cells) ** 2
        assert 2 * 4 * values < 4e9  # of masks and their sigmoid, on a card of 16 GB
    plain = compose("data=coco", "profile=paper").segmenter
    assert (plain.test.score, plain.test.max_detections, plain.schedule.repeat_threshold) == (0.05, 100, None)
    assert compose("data=lvis", "segmenter.test.score=0.01").segmenter.test.score == 0.01


def test_a_row_is_what_its_experiment_lists_under_that_name(compose):
    asked = sweeps.jobs("experiment=tab2_lvis", "profile=paper", "row=lvis_r101_dcn", "seed=0,1")
    assert [brought(job) for job in asked] == [["segmenter=mask_rcnn_r101", "segmenter.dcn=true"]] * 2
    with pytest.raises(CompactHydraException, match=r"row=lvis_r18 is not a row of .*; choose one of .*lvis_r50"):
        sweeps.jobs("experiment=tab2_lvis", "row=lvis_r18")
    with pytest.raises(ConfigError, match=r"row=lvis_r50 names a row of an experiment's file; add experiment=NAME"):
        compose("row=lvis_r50")
    with pytest.raises(ConfigError, match=r"row=1 names a row"):
        compose("row=1")


def test_a_value_on_the_command_line_outranks_a_rows_and_a_choice_is_refused():
    (job,) = sweeps.jobs("experiment=tab2_lvis", "profile=paper", "row=lvis_r50_dcn", "segmenter.dcn=false")
    assert brought(job) == ["segmenter=mask_rcnn_r50", "segmenter.dcn=False"]
    with pytest.raises(CompactHydraException, match="is of labeler_data=coco, but the command says labeler_data=coco_"):
        sweeps.jobs("experiment=tab2_lvis", "profile=paper", "row=lvis_x101_32x4d_from_coco", "labeler_data=coco_mini")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["data=lvis", "data.class_agnostic=true"], "class_agnostic=true: LVIS"),
        (["data=coco_mini", "data.test.annotations=a.json"], "COCO's evaluation server wants categories"),
        (["data.labeler_train.annotations=a.json"], "set all three, or none"),
    ],
)
def test_data_that_does_not_go_together_is_refused(compose, wrong, named):
    with pytest.raises(ConfigError, match=named):
        compose(*wrong)


# --- the graphs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_and_lvis(tmp_path_factory.mktemp("coco"))


def graph(compose: Compose, root: Path, store: Path, *chosen: str) -> Graph:
    return Graph(compose(*chosen, f"data.root={root}"), Store(store), torch.device("cpu"))


def stages(made: Graph) -> dict[str, list[Stage]]:
    """By name, of all that a run asks for."""
    found: dict[str, list[Stage]] = {}
    for stage in in_order(made.targets()):
        found.setdefault(stage.name, []).append(stage)
    return found


@pytest.mark.slow
def test_what_the_tables_rows_share_is_one_stage(compose, root, tmp_path):
    every: set[Stage] = set()
    for experiment in LISTS:
        for job in overrides(experiment, "paper"):
            every |= set(in_order(graph(compose, root, tmp_path, *job).targets()))
    assert Counter(stage.name for stage in every)["train_labeler"] == 2  # on COCO and on LVIS
    trained = [stage for stage in every if stage.name == "train_segmenter"]
    assert Counter((s.columns["data"], s.columns["supervision"]) for s in trained) == {
        ("coco", "human"): 6,
        ("coco", "pseudo"): 6,
        ("coco", "boxes"): 1,
        ("lvis", "human"): 6,  # once a segmenter, for Tables 2 and 7 and both labelers
        ("lvis", "pseudo"): 6 + 2,
        ("lvis", "boxes"): 6,
    }
    named = {s.columns["segmenter"] for s in trained if s.columns["data"] == "lvis"}
    assert named == {f"mask_rcnn_{name}" for name in ("r50", "r101", "r50_dcn", "r101_dcn", "x101_32x4d", "x101_64x4d")}


def test_a_labeler_of_other_data_is_the_one_that_was_trained_there(compose, root, tmp_path):
    """COCO's labeler, trained for Table 1, labels LVIS; what does not depend on it keeps its key."""
    small = ["profile=smoke", "segmenter=mask_rcnn_tiny"]
    on_coco = stages(graph(compose, root, tmp_path, *small, "data=coco"))
    on_lvis = stages(graph(compose, root, tmp_path, *small, "data=lvis"))
    opened = stages(graph(compose, root, tmp_path, *small, "data=lvis", "labeler_data=coco"))
    assert opened["train_labeler"] == on_coco["train_labeler"] != on_lvis["train_labeler"]
    assert opened["train_labeler"][0].columns["data"] == "coco"
    assert opened["label_train"] != on_lvis["label_train"]
    assert opened["label_train"][0].columns["labeler"] == "mal:coco"
    assert set(opened["boxes_train"]) == {*on_coco["boxes_train"], *on_lvis["boxes_train"]}
    kinds = {s.columns["supervision"]: [s] for s in on_lvis["train_segmenter"]}
    assert [s for s in opened["train_segmenter"] if s.columns["supervision"] == "human"] == kinds["human"]
    assert opened["retention"] != on_lvis["retention"]
    itself = stages(graph(compose, root, tmp_path, *small, "data=coco", "labeler_data=coco"))
    assert {name: set(found) for name, found in itself.items()} == {n: set(found) for n, found in on_coco.items()}


def test_data_brings_its_evaluation_and_a_segmenter_is_defined_by_what_its_backend_reads(compose, root, tmp_path):
    found = stages(graph(compose, root, tmp_path, "profile=smoke", "data=coco"))
    assert "predictions_test" not in found
    assert not {"cascade", "grid", "queries"} & set(found["train_segmenter"][0].config["segmenter"])
    assert set(found["ap_val"][0].config) == {"images", "class_agnostic", "max_detections"}
    lvis = stages(graph(compose, root, tmp_path, "profile=smoke", "data=lvis"))
    assert lvis["train_segmenter"][0].config["segmenter"]["schedule"]["repeat_threshold"] == 1e-3
    assert lvis["ap_val"][0].config["federated"] is True


def test_a_detector_without_masks_is_trained_once_and_divided_by_nothing(compose, root, tmp_path):
    found = stages(graph(compose, root, tmp_path, "profile=smoke", "data=coco", "segmenter.mask_head=false"))
    assert [stage.columns["supervision"] for stage in found["train_segmenter"]] == ["boxes"]
    assert found["train_segmenter"][0].inputs == {}
    assert "retention" not in found


def test_test_images_are_predicted_by_both_segmenters_of_a_row(compose, root, tmp_path):
    test = ["data.test.annotations=annotations/image_info_test-dev2017.json", "data.test.images=test2017"]
    found = stages(graph(compose, root, tmp_path, "profile=smoke", "data=coco", *test))
    assert [s.columns["supervision"] for s in found["predictions_test"]] == ["human", "pseudo"]
    assert {s.inputs["segmenter"] for s in found["predictions_test"]} == set(found["train_segmenter"])


def test_files_that_the_annotations_do_not_name_do_not_count(compose, root, tmp_path):
    data = compose("data=lvis", f"data.root={root}").data
    before = files_split("train", data, Fingerprints(tmp_path))
    for name in ("lvis_v1_test.json", "train2017/notes.txt", "val2017.zip", "train2017/another.jpg"):
        (root / name).write_text("{}")
    same = files_split("train", data, Fingerprints(tmp_path))
    (root / "train2017" / "another.jpg").unlink()
    assert before is not None
    assert same is not None
    assert before.sources == same.sources


# --- end to end ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lvis_goes_the_whole_way_and_a_labeler_of_coco_labels_it(compose, root, tmp_path, capsys):
    store = tmp_path / "runs"
    common = ["profile=smoke", "tracking=none", f"store={store}", f"data.root={root}", "compare=[]", "data=lvis"]
    common += ["segmenter=mask_rcnn_tiny", "segmenter.schedule.repeat_threshold=0.9"]
    test = ["data.test.annotations=annotations/image_info_test-dev2017.json", "data.test.images=test2017"]
    for more in (test, ["labeler_data=coco"], ["segmenter.mask_head=false"]):
        run(compose(*common, *more))
    capsys.readouterr()
    records = [json.loads(path.read_text()) for path in store.glob("*/*/run.json")]
    counts = Counter(record["stage"] for record in records)
    assert (counts["train_labeler"], counts["train_segmenter"], counts["predictions_test"]) == (2, 4, 2)
    scores = [record for record in records if record["stage"] == "ap_val"]
    masks = [record for record in scores if record["columns"]["supervision"] != "boxes"]
    assert len(masks) == 3
    for record in masks:
        assert {"mask_ap", "mask_ap_r", "mask_ap_c", "mask_ap_f", "box_ap", "box_ap_r"} <= record["metrics"].keys()
    boxes = next(record for record in scores if record["columns"]["supervision"] == "boxes")
    assert not any(name.startswith("mask") for name in boxes["metrics"])
    for path in store.glob("predictions_test/*"):
        assert [p.name for p in path.glob("detections_test-dev2017_mask-rcnn-tiny-*_results.zip")]
    labels = read(next(store.glob("label_train/*/labels.json")), masks=True)
    assert all({"neg_category_ids", "not_exhaustive_category_ids", "coco_url"} <= i.keys() for i in labels["images"])
    tables = {table.name: table for table in paper_tables(records, store)}
    (_, papers), (heading, ours) = tables["tab2_lvis"].parts()
    assert (len(papers), heading) == (10 + 4, "Not comparable: profile smoke, data lvis: another scale")
    assert [row[tables["tab2_lvis"].header.index("training data")] for row in ours] == ["-", "LVIS v1", "COCO"]
    _, (_, ours) = tables["tab7_detection"].parts()
    numbers = tables["tab7_detection"].header.index("numbers")
    assert [row[numbers] for row in ours] == ["ours", "95 % interval"] * 3
    ours = tuple(row for row in ours if row[numbers] == "ours")
    assert [row[0] for row in ours] == ["tiny (Mask R-CNN)"] * 3
