"""One command from photographs and boxes to masks: what it says, refuses, keeps, and goes on with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal import autolabel
from mal.data import shapes
from mal.data.annotations import decode_mask
from mal.errors import ConfigError
from mal.methods.mal.labeler_file import config_of, read_labeler
from mal.methods.mal.shipped import DEFAULT, SHIPPED
from mal.own import own_boxes
from mal.own.forecast import training_seconds


@pytest.fixture
def own(tmp_path):
    """Photographs' stand-ins and boxes of a user's: images/, boxes.json without masks, and the masks."""
    shapes.generate(tmp_path, images=4, size=128, seed=3, split="train")
    coco = json.loads((tmp_path / "annotations.json").read_text())
    truth = {a["id"]: a.pop("segmentation") for a in coco["annotations"]}
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    return tmp_path, coco, truth


def call(folder: Path, *more: str) -> int:
    named = ["--images", folder / "images", "--boxes", folder / "boxes.json", "--out", folder / "masks.json"]
    return autolabel.main([*map(str, named), "--workers", "0", *more])


def test_the_shipped_labeler_labels_without_learning(own, capsys):
    folder, coco, truth = own
    assert call(folder, "--labeler", DEFAULT) == 0
    said = capsys.readouterr().out
    assert f"{len(coco['annotations'])} boxes on 4 images" in said
    assert "labelling takes about" in said
    labels = json.loads((folder / "masks.json").read_text())
    assert [a["id"] for a in labels["annotations"]] == [a["id"] for a in coco["annotations"]]
    assert (folder / "masks_preview.png").is_file()
    assert "masks to look at first" in said
    assert (folder / "masks_review.html").is_file()
    assert not (folder / "masks_autolabel").exists()
    ious, filled = [], []
    for annotation in labels["annotations"]:
        image = next(i for i in coco["images"] if i["id"] == annotation["image_id"])
        size = {"height": image["height"], "width": image["width"]}
        human = decode_mask(truth[annotation["id"]], **size)
        mask = decode_mask(annotation["segmentation"], **size)
        box = np.zeros_like(human)
        x, y, w, h = map(round, annotation["bbox"])
        box[y : y + h, x : x + w] = True
        ious.append((mask & human).sum() / (mask | human).sum())
        filled.append((box & human).sum() / (box | human).sum())
    assert np.mean(ious) > np.mean(filled) + 0.03  # drawings, of which it has never seen one


@pytest.mark.slow
def test_it_learns_goes_on_where_it_was_and_keeps_what_it_learned(own, capsys, monkeypatch):
    folder, _, _ = own
    more = ("--steps", "3", "--preview", "0", "--no-review")
    original = own_boxes.execute

    def stopped(stage, store, *, device):
        if stage.name == "train_labeler":
            raise KeyboardInterrupt
        return original(stage, store, device=device)

    monkeypatch.setattr(own_boxes, "execute", stopped)
    assert call(folder, *more) == 130
    assert not (folder / "masks.json").exists()
    monkeypatch.setattr(own_boxes, "execute", original)
    assert call(folder, *more) == 0
    said = capsys.readouterr().out
    assert "learning takes about" in said
    assert "(3 steps)" in said
    labeler = folder / "masks_autolabel" / "labeler.pt"
    learned, shipped = read_labeler(labeler), read_labeler(SHIPPED)
    assert config_of(learned, source=labeler).train.start == DEFAULT
    moved = [not np.array_equal(learned["teacher"][k], v) for k, v in shipped["teacher"].items()]
    assert any(moved)
    first = (folder / "masks.json").read_bytes()
    assert call(folder, *more) == 0
    said = capsys.readouterr().out
    assert "learning takes about" not in said
    assert "all of this was there already" in said
    assert (folder / "masks.json").read_bytes() == first
    assert call(folder, "--labeler", str(labeler), "--overwrite", "--preview", "0", "--no-review") == 0
    assert [a["segmentation"] for a in json.loads((folder / "masks.json").read_text())["annotations"]] == [
        a["segmentation"] for a in json.loads(first)["annotations"]
    ]


def test_files_that_mislead_are_refused_until_told_otherwise(own, capsys):
    folder, coco, _ = own
    for annotation in coco["annotations"]:
        annotation["attributes"] = {"rotation": 30.0}
    (folder / "boxes.json").write_text(json.dumps(coco))
    assert call(folder, "--labeler", DEFAULT) == 1
    both = capsys.readouterr()
    assert "misleads" in both.out
    assert "--anyway" in both.err
    assert not (folder / "masks.json").exists()
    assert call(folder, "--labeler", DEFAULT, "--anyway", "--preview", "0", "--no-review") == 0


def test_files_that_stop_a_run_are_refused_before_torch_is_loaded(own, capsys):
    folder, _, _ = own
    Image.new("RGB", (8, 8)).save(next((folder / "images").iterdir()))
    monitored = sys.modules.get("mal.own.own_boxes")
    assert call(folder, "--labeler", DEFAULT, "--anyway") == 1
    both = capsys.readouterr()
    assert "images have another size" in both.out
    assert "stop a run" in both.err
    assert sys.modules.get("mal.own.own_boxes") is monitored


def test_images_that_are_to_be_skipped_do_not_stop_the_others(own, capsys):
    folder, coco, _ = own
    (folder / "images" / coco["images"][2]["file_name"]).write_bytes(b"no image")
    quick = ("--labeler", DEFAULT, "--preview", "0", "--no-review")
    assert call(folder, *quick) == 1
    assert "--on-bad-image skip" in capsys.readouterr().out
    assert call(folder, *quick, "--on-bad-image", "skip") == 0
    labels = json.loads((folder / "masks.json").read_text())["annotations"]
    flagged = {a["image_id"] for a in labels if a.get("flagged")}
    assert flagged == {coco["images"][2]["id"]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--labeler", "nowhere.pt"), "nowhere.pt"),
        (("--labeler", DEFAULT, "--steps", "5"), "--steps 5 is for learning"),
        (("--labeler", DEFAULT, "--seed", "5"), "--seed 5 is for learning"),
        (("--steps", "0"), "--steps 0"),
        (("--labeler", DEFAULT, "--network", "both"), "holds the teacher alone, without the student"),
        (("--labeler", DEFAULT, "--format", "yolo", "--review"), "--review is for one file of masks"),
    ],
)
def test_options_that_cannot_be_are_a_sentence(own, capsys, more, message):
    folder, _, _ = own
    assert call(folder, *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_file_changed_by_hand_is_not_replaced(own, capsys):
    folder, _, _ = own
    (folder / "masks.json").write_text("{}")
    assert call(folder, "--labeler", DEFAULT) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "masks.json").read_text() == "{}"


def test_the_shipped_settings_train(own):
    folder, _, _ = own
    options = autolabel._parser().parse_args(
        ["--images", str(folder / "images"), "--boxes", str(folder / "boxes.json"), "--out", "x.json"]
    )
    options.steps, options.seed = 5, 0
    config = own_boxes.own_config(config_of(read_labeler(DEFAULT), source=SHIPPED), options)
    assert config.encoder.checkpoint is None
    assert not config.encoder.pretrained
    assert training_seconds(config, 10, own_boxes.pick_device("cpu")) > 0
    options.steps = -1
    with pytest.raises(ConfigError, match="--steps"):
        own_boxes.own_config(config, options)
