"""AttentionShift as one method among others: its stages, their keys, and whole runs on drawn and real images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError
from mal.request import Graph
from tests.attentionshift_cases import SMOKE, draw
from tests.few_photographs import few_photographs
from tests.test_end_to_end import command

ROOT = Path(__file__).resolve().parents[1]
POINTS = ("labeler=attentionshift", "profile=smoke", "data=parts", "segmenter=none")


def keys(compose, store: Path, *more: str) -> dict[str, str]:
    graph = Graph(compose(*POINTS, *more), Store(store), torch.device("cpu"))
    found = {}
    waiting = graph.targets()
    while waiting:
        stage = waiting.pop()
        found[stage.name] = stage.key
        waiting += stage.inputs.values()
    return found


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("attentionshift.scale.test_flip=true", {"detect_attentionshift", "own_ap_val"}),
        ("attentionshift.labelling.source=map", {"label_train", "label_val", "quality_train", "quality_val"}),
        ("train.workers=0", set()),
        ("loss.mil_weight=2", set()),
        ("label.flip=false", set()),
    ],
)
def test_a_setting_changes_the_keys_of_those_who_read_it(compose, tmp_path: Path, setting: str, stages: set) -> None:
    one, other = keys(compose, tmp_path), keys(compose, tmp_path, setting)
    assert {name for name in one if one[name] != other[name]} == stages


def test_networks_that_are_kept_are_part_of_a_training(compose, tmp_path: Path) -> None:
    plain, asked = keys(compose, tmp_path), keys(compose, tmp_path, "attentionshift.learning.snapshots=2")
    assert set(asked) - set(plain) == {"course_val"}
    assert asked["train_attentionshift"] != plain["train_attentionshift"]


@pytest.mark.parametrize("setting", ["seed=1", "attentionshift.steps.shift.rounds=3", "data.points.kind=centroid"])
def test_what_is_learned_from_changes_all_that_follows(compose, tmp_path: Path, setting: str) -> None:
    one, other = keys(compose, tmp_path), keys(compose, tmp_path, setting)
    learned = {"train_attentionshift", "label_val", "quality_val", "detect_attentionshift", "own_ap_val"}
    assert learned <= {name for name in one if one[name] != other[name]}


def test_its_stages_start_from_points_and_never_from_boxes(compose, tmp_path: Path) -> None:
    graph = Graph(compose(*POINTS, "compare=[]"), Store(tmp_path), torch.device("cpu"))
    stages = {stage.name: stage for stage in graph.targets()}
    for name, inputs in (
        ("label_val", {"points", "network"}),
        ("train_attentionshift", {"points"}),
    ):
        stage = stages.get(name) or stages["quality_val"].inputs["labels"].inputs["network"]
        stage = stages["quality_val"].inputs["labels"] if name == "label_val" else stage
        assert set(stage.inputs) == inputs


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("attentionshift.learning.epochs=3", "exactly one of attentionshift.learning.epochs"),
        ("attentionshift.learning.steps=0", "must be positive"),
        ("attentionshift.learning.batch=3", None),
        ("attentionshift.learning.accumulate=2 attentionshift.learning.batch=3", "not divisible"),
        ("attentionshift.scale.test_long_sides=[9,9]", "one for each, or one for all"),
        ("attentionshift.steps.shift.method=mean", "is unknown; choose one of shift, kmeans_star, kmeans"),
        (
            "attentionshift.steps.mask_points.supervision=mask attentionshift.steps.shift.method=kmeans",
            "has no part in",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(compose, setting: str, sentence: str | None) -> None:
    if sentence is None:
        compose(*POINTS, *setting.split())
        return
    with pytest.raises(ConfigError, match=sentence):
        compose(*POINTS, *setting.split())


def split_files(folder: Path, **more: list) -> list[str]:
    """Drawn images of parts as train.json and val.json, with further annotations; the overrides that name them."""
    coco = json.loads((draw(folder) / "annotations.json").read_text())
    overrides = [f"data.root={folder}"]
    for name in ("train", "val"):
        whole = {**coco, "annotations": coco["annotations"] + more.get(name, [])}
        (folder / f"{name}.json").write_text(json.dumps(whole))
        overrides += [f"data.{name}.annotations={name}.json", f"data.{name}.images=images"]
    return overrides


def first_object(folder: Path) -> tuple[dict, int]:
    """The first object of the drawn images, and how many its image has."""
    coco = json.loads((draw(folder) / "annotations.json").read_text())
    first = coco["annotations"][0]
    return first, sum(a["image_id"] == first["image_id"] for a in coco["annotations"])


@pytest.mark.parametrize("crowded", ["train", "val"])
@pytest.mark.parametrize(
    "asked",
    [
        ("data.points.kind=inside",),
        ("data.points.kind=quasi_centre",),
        ("labeler=disc", "compare=[attentionshift]", "data.points.kind=box_centre"),
    ],
)
def test_more_objects_than_tokens_are_refused_before_training(
    compose, tmp_path: Path, crowded: str, asked: tuple[str, ...]
) -> None:
    first, own = first_object(tmp_path)
    more = [{**first, "id": 100 + n, "iscrowd": n % 2} for n in range(24)]  # crowds need no token
    bare = {"id": 200, "image_id": first["image_id"], "category_id": 1, "bbox": [3, 3, 0, 0], "point": [3, 3]}
    split, count = split_files(tmp_path, **{crowded: [*more, bare]}), own + 13
    for tokens in (count, count - 1):
        config = compose(*SMOKE, "data=coco", *split, *asked, f"attentionshift.tokens.count={tokens}")
        graph = Graph(config, Store(tmp_path / "store"), torch.device("cpu"))
        if tokens == count or asked[-1].endswith("quasi_centre"):  # which has no point for some objects
            graph.check()
            continue
        said = rf"{crowded}\.json: \S+ has {count} objects.*tokens\.count={count} or"
        with pytest.raises(AnnotationError, match=said):
            graph.check()


def test_the_fullest_of_all_files_is_named(compose, tmp_path: Path) -> None:
    first, own = first_object(tmp_path)
    more = [{**first, "id": 100 + n} for n in range(20)]
    split = split_files(tmp_path, train=more[:12], val=more)
    config = compose(*SMOKE, "data=coco", *split, "attentionshift.tokens.count=5")
    with pytest.raises(AnnotationError, match=rf"val\.json: .* set attentionshift\.tokens\.count={own + 20} or more"):
        Graph(config, Store(tmp_path / "store"), torch.device("cpu")).check()


@pytest.mark.slow
def test_a_whole_run_from_points_to_retention(tmp_path: Path) -> None:
    said = command("labeler=attentionshift", "data=parts", "compare=[disc,ellipse]", store=tmp_path / "runs").stdout
    for words in ("AttentionShift", "disc at the point", "mAP50", "retention", "labeler.pt", "sheet.png"):
        assert words in said
    (labels,) = (
        path for path in (tmp_path / "runs" / "label_val").glob("*/labels.json")
        if json.loads((path.parent / "run.json").read_text())["columns"]["labeler"] == "attentionshift"
    )  # fmt: skip
    for annotation in json.loads(labels.read_text())["annotations"]:
        assert {"id", "point", "points", "bbox", "segmentation"} <= set(annotation)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["coco_mini", "car_parts"])
@pytest.mark.usefixtures("shared_data")
def test_it_runs_on_real_photographs(tmp_path: Path, data: str) -> None:
    """Crowds, tiny objects, up to sixty objects an image, and images without any."""
    done = subprocess.run(
        [sys.executable, "experiments/run.py", "labeler=attentionshift", f"data={data}", "profile=mini",
         "segmenter=none", *few_photographs(data, tmp_path, count=12),
         "compare=[disc]", f"store={tmp_path / 'runs'}", "tracking=none", "attentionshift.learning.steps=2",
         "attentionshift.learning.batch=2", "attentionshift.tokens.count=120", "attentionshift.scale.short_sides=[64]",
         "attentionshift.scale.test_short_sides=[64]"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "disc at the point" in done.stdout
