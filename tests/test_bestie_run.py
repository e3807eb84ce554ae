"""BESTIE as one method among others: its stages, their keys, and whole runs on drawn and real images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mal.data.annotations import decode_mask, read, write
from mal.data.categories import Categories
from mal.data.views import VIEWS
from mal.encoders.config import EncoderConfig
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.errors import ConfigError
from mal.label import main
from mal.methods.attentionshift.own_files import wrote as wrote_attentionshift
from mal.methods.bestie import own_files
from mal.methods.bestie.checkpoint import CLASSES_FILE, load
from mal.methods.bestie.map_quality import map_quality
from mal.methods.bestie.network import ClassNetwork
from mal.methods.bestie.train_classes import train as train_classes
from mal.methods.registry import find
from mal.run import run
from tests.bestie_cases import SMOKE, changed, draw
from tests.few_photographs import few_photographs
from tests.small_configs import stages_of
from tests.test_end_to_end import command

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
POINTS = (*SMOKE, "segmenter=none", "compare=[]", "tracking=none")
LABELS = {"label_train", "label_val", "quality_train", "quality_val"}
FOUND = {"detect_bestie", "own_ap_val"}
LEARNED = {"train_bestie", *LABELS, *FOUND}


def keys(compose, store: Path, *more: str) -> dict[str, str]:
    config = compose(*POINTS, *more)
    return {name: stages[0].key for name, stages in stages_of(config, store).items()}


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("bestie.detection.window=9", FOUND),
        ("bestie.detection.flip=false", {"class_maps_train", "class_maps_val", *LEARNED}),
        ("bestie.class_maps.reach=.3", {"class_maps_train", "class_maps_val", *LEARNED}),
        ("bestie.losses.hardest=.5", LEARNED),
        ("bestie.learning.steps=3", LEARNED),
        ("bestie.learning.class_steps=3", {"train_class_maps", "class_maps_train", "class_maps_val", *LEARNED}),
        ("bestie.class_maps.radius=.2", {"train_class_maps", "class_maps_train", "class_maps_val", *LEARNED}),
        ("train.workers=1", set()),
        ("attentionshift.learning.batch=4", set()),
    ],
)
def test_a_setting_changes_the_keys_of_those_who_read_it(compose, tmp_path: Path, setting: str, stages: set) -> None:
    one, other = keys(compose, tmp_path), keys(compose, tmp_path, setting)
    assert {name for name in one if one[name] != other[name]} == stages


def test_its_stages_start_from_points_and_never_from_boxes(compose, tmp_path: Path) -> None:
    stages = stages_of(compose(*POINTS), tmp_path)
    inputs = {name: set(found[0].inputs) for name, found in stages.items()}
    assert inputs["train_class_maps"] == {"points"}
    assert inputs["class_maps_train"] == {"points", "network"}
    assert inputs["train_bestie"] == {"points", "maps"}
    assert inputs["label_val"] == {"points", "network"}
    assert not {name for name in stages if name.startswith("boxes")}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("bestie.detection.window=40", "has no pixel in its middle; choose an odd number"),
        ("bestie.losses.hardest=0", r"bestie\.losses\.hardest=0"),
        ("bestie.learning.steps=0", r"bestie\.learning\.steps=0"),
        ("bestie.scale.scales=[]", "must be a list of at least one positive number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(compose, setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose(*POINTS, setting)


def test_networks_that_cannot_be_built_are_known_before_any_work(compose) -> None:
    config = changed(compose)
    config.encoder = EncoderConfig(name="rigid", timm="mixer_s32_224", pretrained=False)
    for names in ({"train_class_maps"}, {"train_bestie"}):
        with pytest.raises(ConfigError, match="takes images of one size only"):
            find("bestie").preflight(config, CPU, names)
    find("bestie").preflight(config, CPU, {"label_val"})


def test_the_paper_scale_is_the_released_programs(compose) -> None:
    own = compose("labeler=bestie", "profile=paper", "data=voc", "encoder=mae_s", "segmenter=none").bestie
    assert (own.scale.crop, own.learning.batch, own.learning.steps) == (416, 16, 50_000)
    assert (own.learning.lr, own.learning.power) == (5e-5, 0.9)
    assert (own.targets.sigma, own.targets.region) == (6, 50)
    assert (own.losses.hardest, own.losses.centre, own.losses.offset) == (0.2, 200, 0.01)
    assert (own.detection.window, own.detection.peak, own.detection.flip) == (41, 0.1, True)


def test_class_maps_are_measured_against_human_masks(compose, tmp_path: Path) -> None:
    points, config = draw(tmp_path, images=3), changed(compose, "class_maps.reach=0")
    train_classes(points, tmp_path / "images", config, folder=tmp_path, device=CPU)
    trained = load(tmp_path / CLASSES_FILE, config, CPU, kind=ClassNetwork)
    human = read(tmp_path / "annotations.json", masks=True)
    with torch.no_grad():
        trained.network.classifier.weight.zero_()
        trained.network.classifier.bias.copy_(torch.tensor([0.0, *[1.0] * 6]))
    found = map_quality(trained, points, human, tmp_path / "images", config)  # the first class of each image, all over
    covered, common, first = 0, dict.fromkeys(range(7), 0), dict.fromkeys(range(7), 0)
    whole = dict.fromkeys(range(7), 0)
    for image in human["images"]:
        truth = np.zeros((96, 96), dtype=int)
        for a in human["annotations"]:
            if a["image_id"] == image["id"]:
                mask = decode_mask(a["segmentation"], height=96, width=96).astype(bool)
                truth[mask] = a["category_id"]
        chosen = min(a["category_id"] for a in points["annotations"] if a["image_id"] == image["id"])
        covered += int((truth > 0).sum())
        common[chosen] += int((truth == chosen).sum())
        first[chosen] += truth.size
        for label in range(7):
            whole[label] += int((truth == label).sum())
    ious = [common[c] / (first[c] + whole[c] - common[c]) for c in range(1, 7) if whole[c]]
    assert found["map_iou"] == pytest.approx(covered / (3 * 96 * 96))
    assert found["map_share"] == 1
    assert found["map_share_human"] == pytest.approx(covered / (3 * 96 * 96))
    assert found["map_miou"] == pytest.approx(sum(ious) / len(ious))


def test_categories_are_matched_by_name() -> None:
    learned = Categories.of({"categories": [{"id": 7, "name": "b"}, {"id": 2, "name": "a"}]}, agnostic=False)
    assert (learned.ids, learned.names) == ([2, 7], ["a", "b"])
    theirs = {"categories": [{"id": 1, "name": "b"}, {"id": 3, "name": "c"}], "annotations": [{"category_id": 1}]}
    assert learned.labels_of(theirs, source="it") == {1: 1}
    theirs["annotations"] += [{"category_id": 3}] * 2
    assert learned.unknown(theirs) == {"c": 2}
    agnostic = Categories.of(theirs, agnostic=True)
    assert agnostic.labels_of(theirs, source="it") == {1: 0, 3: 0}
    assert not agnostic.unknown(theirs)


def test_its_file_is_its_own() -> None:
    categories = {"ids": [1], "names": ["a"], "agnostic": False}
    ours = {"config": "x", "bestie": {}, "categories": categories}
    assert own_files.wrote(ours)
    assert not wrote_attentionshift(ours)
    assert not own_files.wrote({**ours, "categories": {"ids": [1]}})
    assert not own_files.wrote({"config": "x", "network": {}, "categories": categories})
    points = {"annotations": [{"category_id": 4, "points": [[1, 1], [2, 2]], "iscrowd": 1}]}
    coco = {"categories": [{"id": 4, "name": "zebra"}], "images": [], **points}
    texts = [finding.text for finding in own_files.OWN_FILES.look(ours, None, coco)]
    assert "did not learn: zebra (1); it learned a: rename" in texts[0]
    assert "several points" in texts[1]
    assert "1 crowd (iscrowd 1)" in texts[2]


@pytest.mark.slow
def test_a_labeler_labels_a_file_of_ones_own_as_its_run_does(compose, tmp_path: Path, capsys) -> None:
    config = compose(*POINTS, f"store={tmp_path / 'runs'}")
    run(config)
    (labeler,) = (tmp_path / "runs").glob("train_bestie/*/labeler.pt")
    (drawn,) = (tmp_path / "runs").glob("shapes_val/*")
    (labels,) = (tmp_path / "runs").glob("label_val/*/labels.json")
    write(tmp_path / "points.json", VIEWS["points"](read(drawn / "annotations.json", masks=False)))
    arguments = ["--images", str(drawn / "images"), "--points", str(tmp_path / "points.json"), "--device", "cpu"]
    assert main([*arguments, "--labeler", str(labeler), "--out", str(tmp_path / "masks.json")]) == 0
    ours, theirs = (json.loads(path.read_text())["annotations"] for path in (tmp_path / "masks.json", labels))
    assert [a["segmentation"] for a in ours] == [a["segmentation"] for a in theirs]
    state = load_checkpoint(labeler)
    next(iter(state["bestie"].values())).fill_(float("nan"))
    save_checkpoint(tmp_path / "bad.pt", state)
    capsys.readouterr()
    assert main([*arguments, "--labeler", str(tmp_path / "bad.pt"), "--out", str(tmp_path / "b.json")]) != 0
    assert "are NaN or infinite; copy the labeler.pt again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_from_points_to_retention(tmp_path: Path) -> None:
    said = command("labeler=bestie", "data=parts", "compare=[disc]", store=tmp_path / "runs").stdout
    for words in ("BESTIE", "disc at the point", "mAP50", "retention", "labeler.pt", "sheet.png"):
        assert words in said
    record = json.loads(next((tmp_path / "runs").glob("class_maps_val/*/run.json")).read_text())
    assert 0 <= record["metrics"]["map_miou"]["value"] <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("coco_mini")
def test_it_runs_on_real_photographs(tmp_path: Path) -> None:
    """Crowds, tiny objects, up to sixty objects an image, and images without any."""
    small = [
        "bestie.learning.class_steps=2", "bestie.learning.steps=2", "bestie.learning.batch=2",
        "bestie.scale.short_side=64", "bestie.scale.crop=64", "bestie.scale.test_short_side=64",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "experiments/run.py", "labeler=bestie", "data=coco_mini", "profile=mini", "segmenter=none",
         "compare=[disc]", f"store={tmp_path / 'runs'}", "tracking=none", "train.workers=0", *small,
         *few_photographs("coco_mini", tmp_path, count=24)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "disc at the point" in done.stdout
