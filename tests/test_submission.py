"""Predictions on images without annotations, packed as COCO's evaluation server takes them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_segmenter import make_dataset, tiny, train

from mal.data.annotations import decode_mask, encode_mask, read_images
from mal.data.submission import write_submission
from mal.errors import AnnotationError, ConfigError
from mal.segmenters import inference


def result(image: int, score: float, **more: Any) -> dict[str, Any]:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:9, 3:8] = True
    found = {"image_id": image, "category_id": 18, "bbox": [3.0, 2.0, 5.0, 7.0], "score": score}
    return found | {"segmentation": encode_mask(mask)} | more


def unpacked(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as packed:
        assert packed.namelist() == [f"{path.stem}.json"]
        return json.loads(packed.read(packed.namelist()[0]))


def test_the_file_has_the_servers_name_and_fields_and_nothing_else(tmp_path):
    images = Path("annotations/image_info_test-dev2017.json")
    path = write_submission([result(7, 0.5)], tmp_path, images=images, algorithm="solov2_r50-mal:coco-0123abcd")
    assert path.name == "detections_test-dev2017_solov2-r50-mal-coco-0123abcd_results.zip"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    entry = unpacked(path)[0]
    assert set(entry) == {"image_id", "category_id", "segmentation", "score"}
    assert entry["segmentation"]["size"] == [20, 30]
    assert decode_mask(entry["segmentation"], height=20, width=30).sum() == 35


def test_each_image_sends_its_hundred_best(tmp_path):
    rng = np.random.default_rng(0)
    scores = {1: rng.random(130), 2: rng.random(40)}
    results = [result(image, float(score)) for image in scores for score in scores[image]]
    found = unpacked(write_submission(results, tmp_path, images=Path("test.json"), algorithm="x"))
    for image, all_scores in scores.items():
        kept = [entry["score"] for entry in found if entry["image_id"] == image]
        assert kept == sorted(all_scores, reverse=True)[:100]


def test_nothing_found_is_an_empty_list(tmp_path):
    assert unpacked(write_submission([], tmp_path, images=Path("test.json"), algorithm="x")) == []


def test_boxes_alone_are_refused(tmp_path):
    boxes = [{key: value for key, value in result(1, 0.5).items() if key != "segmentation"}]
    with pytest.raises(ConfigError, match="boxes only"):
        write_submission(boxes, tmp_path, images=Path("test.json"), algorithm="x")
    assert list(tmp_path.iterdir()) == []


def test_images_are_read_from_a_file_without_annotations(tmp_path):
    path = tmp_path / "image_info_test-dev2017.json"
    entry = {"id": 3, "file_name": "3.jpg", "height": 2, "width": 5}
    path.write_text(json.dumps({"images": [entry], "categories": []}))
    assert read_images(path) == [entry]
    path.write_text(json.dumps({"images": [entry, entry | {"id": 4, "height": None}]}))
    with pytest.raises(AnnotationError, match="image 4: height is None"):
        read_images(path)
    for empty in ({"images": []}, {"annotations": []}, []):
        path.write_text(json.dumps(empty))
        with pytest.raises(AnnotationError, match="has no list of images"):
            read_images(path)


@pytest.mark.slow
def test_a_segmenter_predicts_on_images_without_annotations(tmp_path):
    """If this fails for a new backend: let its `predict` use `read_images`."""
    dataset = make_dataset(tmp_path / "data", images=2)
    config = tiny("schedule.steps=1", "test.score=0")
    train(dataset, tmp_path / "out", config)
    coco = json.loads((dataset / "annotations.json").read_text())
    bare = dataset / "image_info.json"
    bare.write_text(json.dumps({"images": coco["images"], "categories": coco["categories"]}))

    def predict(annotations: Path) -> list[dict[str, Any]]:
        return inference.predict(
            checkpoint=tmp_path / "out" / "segmenter.pt",
            annotations=annotations,
            images=dataset / "images",
            config=config,
            device=torch.device("cpu"),
        )

    found = predict(bare)
    assert found
    assert found == predict(dataset / "annotations.json")
