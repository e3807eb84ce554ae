"""Labelling: masks come back where their boxes are, every annotation gets one, and finished shards are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal.data import shapes
from mal.data.annotations import decode_mask, encode_mask, read, strip
from mal.errors import ImageError
from mal.methods.baselines import box, ellipse
from mal.methods.baselines.gt import human_labeler
from mal.methods.labelling import image_labeler, label_dataset
from mal.metrics.masks import mask_quality


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=5, size=128, seed=3, split="val")
    return folder


def decoded(label: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    return decode_mask(label["segmentation"], height=size[0], width=size[1])


def test_human_masks_copied_score_one(drawn, tmp_path):
    human = read(drawn / "annotations.json", masks=True)
    labels = label_dataset(
        strip(human), drawn / "images", human_labeler(human), folder=tmp_path, shard_images=2, name="label"
    )
    metrics, _ = mask_quality(labels, human)
    assert metrics["iou"] == 1.0
    assert metrics["boundary_iou"] == 1.0


def test_every_field_survives_but_those_a_label_replaces(drawn, tmp_path):
    coco = strip(read(drawn / "annotations.json", masks=False))
    coco["annotations"][0] |= {"track": 7, "flagged": True, "flag_reason": "old"}
    coco["info"]["note"] = "kept"
    labels = label_dataset(coco, drawn / "images", image_labeler(ellipse.masks), folder=tmp_path, shard_images=3)
    assert [a["id"] for a in labels["annotations"]] == [a["id"] for a in coco["annotations"]]
    assert labels["annotations"][0]["track"] == 7
    assert "flagged" not in labels["annotations"][0]
    assert {k: v for k, v in labels.items() if k != "annotations"} == {
        k: v for k, v in coco.items() if k != "annotations"
    }


def test_a_box_without_a_mask_is_filled_and_flagged(drawn, tmp_path):
    coco = strip(read(drawn / "annotations.json", masks=False))

    def only_the_first(shard: dict[str, Any], _images: Path) -> dict[int, dict[str, Any]]:
        size = (shard["images"][0]["height"], shard["images"][0]["width"])
        empty = {"segmentation": encode_mask(np.zeros(size, dtype=bool)), "area": 0}
        some = {"segmentation": encode_mask(np.ones(size, dtype=bool)), "area": size[0] * size[1]}
        return {1: some, 2: empty}

    labels = label_dataset(coco, drawn / "images", only_the_first, folder=tmp_path, shard_images=100)["annotations"]
    assert "flagged" not in labels[0]
    assert labels[1]["flag_reason"] == "the mask is empty"
    assert labels[2]["flagged"]
    for label in labels[1:]:
        x, y, w, h = label["bbox"]
        mask = decoded(label, (128, 128))
        assert mask.sum() == label["area"] > 0
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min()) == (int(x), int(y))
        assert columns.max() <= x + w
        assert rows.max() <= y + h


def test_an_unreadable_image_is_left_out_and_its_boxes_are_flagged(drawn, tmp_path):
    coco = strip(read(drawn / "annotations.json", masks=False)) | {"unreadable_images": [2]}
    labels = label_dataset(coco, drawn / "images", image_labeler(box.masks), folder=tmp_path, shard_images=2)
    assert "unreadable_images" not in labels
    assert {a["image_id"] for a in labels["annotations"] if a.get("flagged")} == {2}


def test_finished_shards_are_not_labelled_again(drawn, tmp_path):
    coco = strip(read(drawn / "annotations.json", masks=False))
    seen: list[int] = []

    def counting(shard: dict[str, Any], images: Path) -> dict[int, dict[str, Any]]:
        seen.extend(image["id"] for image in shard["images"])
        if len(seen) == 4:
            raise ImageError("killed here")
        return image_labeler(box.masks)(shard, images)

    with pytest.raises(ImageError):
        label_dataset(coco, drawn / "images", counting, folder=tmp_path / "a", shard_images=2)
    labels = label_dataset(coco, drawn / "images", counting, folder=tmp_path / "a", shard_images=2)
    assert seen == [1, 2, 3, 4, 3, 4, 5]
    assert labels == label_dataset(
        coco, drawn / "images", image_labeler(box.masks), folder=tmp_path / "b", shard_images=5
    )


@pytest.mark.parametrize(
    "damage",
    [lambda _: "", lambda _: "{}", lambda text: text[:-20], lambda _: "[" * 200_000, lambda _: "[1]",
     lambda text: text.replace('"area": ', '"area": 1'), lambda _: '{"digest": 1, "labels": {}}',
     lambda text: json.dumps({**json.loads(text), "labels": {}})],
)  # fmt: skip
def test_a_damaged_shard_is_labelled_again_and_flags_no_box(drawn, tmp_path, capsys, damage):
    coco = strip(read(drawn / "annotations.json", masks=False))
    seen: list[int] = []

    def counting(shard: dict[str, Any], images: Path) -> dict[int, dict[str, Any]]:
        seen.extend(image["id"] for image in shard["images"])
        return image_labeler(ellipse.masks)(shard, images)

    whole = label_dataset(coco, drawn / "images", counting, folder=tmp_path, shard_images=2)
    shard = sorted(tmp_path.glob("shards/*.json"))[1]
    shard.write_text(damage(shard.read_text()))
    assert label_dataset(coco, drawn / "images", counting, folder=tmp_path, shard_images=2) == whole
    assert seen == [1, 2, 3, 4, 5, 3, 4]
    assert f"{shard} is not used, its images are labelled again" in capsys.readouterr().err


def test_shards_of_another_size_are_not_taken_for_those_of_this_one(drawn, tmp_path):
    human = read(drawn / "annotations.json", masks=True)

    def interrupted(shard, images):
        if shard["images"][0]["id"] != human["images"][0]["id"]:
            raise KeyboardInterrupt
        return image_labeler(ellipse.masks)(shard, images)

    with pytest.raises(KeyboardInterrupt):
        label_dataset(strip(human), drawn / "images", interrupted, folder=tmp_path, shard_images=2)
    labels = label_dataset(
        strip(human), drawn / "images", image_labeler(ellipse.masks), folder=tmp_path, shard_images=4
    )
    assert not any(annotation.get("flagged") for annotation in labels["annotations"])
