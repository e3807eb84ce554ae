"""labeler=file: another program's masks, taken by annotation id, and refused where they belong to other boxes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_configs import changed

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import decode_mask, encode_mask, read, strip, write
from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError
from mal.methods.baselines.file import file_labeler
from mal.methods.labelling import label_dataset
from mal.request import Graph
from mal.run import run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=3, size=128, seed=3, split="val")
    return folder


@pytest.fixture
def theirs(drawn) -> dict[str, Any]:
    """Another program's file: its first mask is a polygon, its second has a score, its third is flagged."""
    coco = read(drawn / "annotations.json", masks=True)
    first, second, third = coco["annotations"][:3]
    x, y, w, h = first["bbox"]
    first["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    second["score"] = 0.25
    third |= {"flagged": True, "flag_reason": "theirs"}
    return coco


def labelled(theirs: dict[str, Any], drawn: Path, folder: Path) -> dict[str, Any]:
    boxes = strip(read(drawn / "annotations.json", masks=False))
    write(folder / "theirs.json", theirs)
    labeler = file_labeler(folder / "theirs.json", boxes)
    return label_dataset(boxes, drawn / "images", labeler, folder=folder, shard_images=2)


def test_masks_arrive_by_id_whatever_the_order(theirs, drawn, tmp_path):
    expected = {a["id"]: a for a in theirs["annotations"]}
    shuffled = {**theirs, "annotations": theirs["annotations"][::-1], "images": theirs["images"][::-1]}
    for annotation in labelled(shuffled, drawn, tmp_path)["annotations"]:
        other = expected[annotation["id"]]
        masks = [decode_mask(a["segmentation"], height=128, width=128) for a in (annotation, other)]
        np.testing.assert_array_equal(*masks)
        assert annotation["area"] == masks[0].sum()
        for key in ("score", "flagged", "flag_reason"):
            assert annotation.get(key) == other.get(key)


def test_an_empty_mask_becomes_the_flagged_box(theirs, drawn, tmp_path):
    theirs["annotations"][0]["segmentation"] = encode_mask(np.zeros((128, 128), dtype=bool))
    first = labelled(theirs, drawn, tmp_path)["annotations"][0]
    assert first["flagged"]
    assert first["flag_reason"] == "the mask is empty"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: c["annotations"].pop(4), r"lacks 1 of the \d+ annotations.*ids \d+; label the same boxes"),
        (lambda c: c["annotations"][4].pop("segmentation"), "segmentation"),
        (lambda c: c["annotations"][0].update(image_id=c["images"][2]["id"]), "1 of the annotations on other images"),
        (lambda c: c["images"][0].update(height=129), "128 x 129 pixels there and 128 x 128 here"),
        (lambda c: c["annotations"][1]["segmentation"].update(size=[64, 64]), r"RLE's size is \[64, 64\]"),
    ],
    ids=["absent", "maskless", "moved", "image size", "mask size"],
)
def test_a_file_of_other_boxes_is_refused_by_name(spoil, words, theirs, drawn, tmp_path):
    boxes = strip(read(drawn / "annotations.json", masks=False))
    for annotation in theirs["annotations"][2:]:
        if annotation["image_id"] == theirs["images"][0]["id"] and words.startswith("128"):
            annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    if words.startswith("128"):
        for annotation in theirs["annotations"]:
            annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    spoil(theirs)
    write(tmp_path / "theirs.json", theirs)
    with pytest.raises(AnnotationError, match=words) as raised:
        file_labeler(tmp_path / "theirs.json", boxes)
    assert "theirs.json" in str(raised.value)


@pytest.fixture(scope="module")
def smoke(compose) -> Config:
    return compose("profile=smoke", "segmenter=none", "tracking=none", "compare=[]")


def test_human_masks_as_a_file_score_one(smoke, tmp_path):
    """The whole way, on the validation images alone; the stage follows the file's content."""
    store = Store(tmp_path / "runs")
    graph = Graph(smoke, store, torch.device("cpu"))
    given = tmp_path / "val.json"
    shapes.generate(tmp_path / "drawn", **graph.val.drawn.config)
    given.write_bytes((tmp_path / "drawn" / "annotations.json").read_bytes())
    config = changed(smoke, **{"labeler.name": "file", "labeler.val_file": str(given), "store": str(store.root)})
    run(config)
    (record,) = [store.read("quality_val", p.parent.name) for p in store.root.glob("quality_val/*/run.json")]
    assert record["metrics"]["iou"]["value"] == 1.0
    assert not list(store.root.glob("label_train/*"))
    before = Graph(config, store, torch.device("cpu"))
    key = before.labels(before.val).key
    coco = copy.deepcopy(read(given, masks=True))
    coco["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    write(given, coco)
    after = Graph(config, store, torch.device("cpu"))
    assert after.labels(after.val).key != key


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labeler.name": "file"}, "labeler.file=FILE"),
        ({"labeler.name": "file", "labeler.file": "nowhere.json"}, "labeler.file=nowhere.json: there is no such file"),
        ({"compare": ["file"]}, "labeler.val_file=FILE"),
    ],
)
def test_a_file_that_is_not_given_is_asked_for(smoke, settings, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run(changed(smoke, store=str(tmp_path), **settings))


def test_a_segmenter_needs_masks_of_the_training_images(compose):
    with pytest.raises(ConfigError, match=r"labeler\.file=FILE"):
        compose("labeler=file", "labeler.val_file=val.json")
