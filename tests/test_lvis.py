"""LVIS's protocol: AP is the lvis package's, on its own photographs too, and comes out of the match arrays again."""

import contextlib
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mal.data.annotations import decode_mask, encode_mask
from mal.errors import AnnotationError, ConfigError
from mal.metrics import federated
from mal.metrics.ap import average_precision
from mal.metrics.bootstrap import METRICS, ap_from_matches, retention
from mal.metrics.federated import federation
from mal.metrics.matches import MatchArrays

Json = dict[str, Any]
SIDE = 96
NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"} | {f"ap_{group}": f"AP{group.lower()}" for group in "SMLrcf"}


def disc(x: float, y: float, w: float, h: float) -> np.ndarray:
    rows, columns = np.arange(SIDE)[:, None] + 0.5, np.arange(SIDE)[None] + 0.5
    return ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1


def drawn(seed: int, *, images: int = 10, categories: int = 7) -> tuple[Json, list[Json]]:
    """An LVIS file with negative and not exhaustive categories, and detections: jittered, doubled, of nothing, tied,
    in categories of every kind."""
    rng = np.random.default_rng(seed)
    ids = [3 * k + 2 for k in range(categories)]
    coco: Json = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": f"c{k}", "frequency": "rcf"[i % 3]} for i, k in enumerate(ids)],
    }
    results: list[Json] = []

    def box() -> list[float]:
        w, h = np.exp(rng.uniform(np.log(8), np.log(90), 2))
        return [float(rng.uniform(0, SIDE - w)), float(rng.uniform(0, SIDE - h)), float(w), float(h)]

    def detect(image: int, category: int, bbox: list[float]) -> None:
        score = float(np.round(rng.random(), int(rng.integers(1, 4))))
        mask = encode_mask(disc(*bbox))
        results.append({"image_id": image, "category_id": category, "bbox": bbox, "score": score, "segmentation": mask})

    for number in range(images):
        image = 5 * number + 1
        shuffled = [int(k) for k in rng.permutation(ids)]
        present, absent = shuffled[:2], shuffled[2:4]
        open_ended = [k for k in (*present, absent[0]) if rng.random() < 0.4]
        entry = {"id": image, "height": SIDE, "width": SIDE, "coco_url": f"http://images/val2017/{image}.jpg"}
        coco["images"].append(entry | {"neg_category_ids": absent, "not_exhaustive_category_ids": open_ended})
        for category in present:
            for _ in range(rng.integers(1, 4)):
                bbox = box()
                mask = disc(*bbox)
                annotation = {"id": len(coco["annotations"]) + 1, "image_id": image, "category_id": category}
                annotation |= {"bbox": bbox, "area": float(mask.sum()), "segmentation": encode_mask(mask)}
                coco["annotations"].append(annotation)
                for _ in range(rng.integers(0, 3)):
                    jitter = rng.normal(0, 0.06, 4) * [bbox[2], bbox[3], bbox[2], bbox[3]]
                    detect(image, category, [max(1.0, float(v)) for v in np.array(bbox) + jitter])
        for category in ids:
            detect(image, category, box())
    return coco, results


def lvis_package(coco: Json, results: list[Json], tmp_path: Path, *, iou_type: str) -> dict[str, float]:
    """What the lvis package says. It is older than NumPy 2, and judges a mask's size by its box where it is given one:
    so masks go without boxes, as detectron2 hands them over."""
    lvis = pytest.importorskip("lvis", reason="the package lvis is not installed: python -m pip install --no-deps lvis")
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    drop = "bbox" if iou_type == "segm" else "segmentation"
    found = [{key: value for key, value in result.items() if key != drop} for result in results]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch, _quiet():
        warnings.simplefilter("ignore")
        patch.setattr(np, "float", float, raising=False)
        truth = lvis.LVIS(str(tmp_path / "truth.json"))
        evaluator = lvis.LVISEval(truth, lvis.LVISResults(truth, found), iou_type)
        evaluator.run()
    values = {ours: float(evaluator.results[theirs]) for ours, theirs in NAMES.items()}
    return {name: value for name, value in values.items() if value > -1}


@contextlib.contextmanager
def _quiet():
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def from_matches(matches: MatchArrays) -> dict[str, float]:
    values = {name: ap_from_matches(matches, metric=name) for name in METRICS}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def without_frequencies(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name in METRICS}


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(4))
def test_ap_is_the_lvis_packages_and_comes_out_of_the_matches_again(seed, iou_type, tmp_path):
    coco, results = drawn(seed)
    metrics, matches = average_precision(coco, results, iou_type=iou_type, max_detections=300, federated=True)
    assert 0.05 < metrics["ap"] < 0.95
    assert metrics == pytest.approx(lvis_package(coco, results, tmp_path, iou_type=iou_type), abs=1e-9)
    assert from_matches(matches) == pytest.approx(without_frequencies(metrics), abs=1e-9)


@pytest.fixture(scope="module")
def photographs(lvis_mini: Path) -> tuple[Json, list[Json]]:
    """LVIS objects, and what a segmenter might find: shifted, grown, dropped and doubled masks, false alarms in
    negative, not exhaustive and unlisted categories, and one image with more than 300 detections."""
    coco = json.loads((lvis_mini / "lvis_val_mini.json").read_text())
    rng = np.random.default_rng(0)
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    every = [category["id"] for category in coco["categories"]]
    results: list[Json] = []

    def detect(image: int, category: int, mask: np.ndarray, score: float) -> None:
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            bbox = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            found = {"image_id": image, "category_id": category, "bbox": [float(side) for side in bbox]}
            results.append(found | {"segmentation": encode_mask(mask), "score": float(score)})

    for annotation in coco["annotations"]:
        height, width = sizes[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], height=height, width=width)
        for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.6, 0.2]))):
            shift = np.float32([[1, 0, rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)]])
            moved = cv2.warpAffine(mask.astype(np.uint8), shift, (width, height))
            square = np.ones((int(rng.integers(1, 5)),) * 2, dtype=np.uint8)
            moved = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(moved, square)
            other = rng.random() < 0.1
            category = int(rng.choice(every)) if other else annotation["category_id"]
            detect(annotation["image_id"], category, moved.astype(bool), rng.beta(4, 2))
    for image in coco["images"]:
        height, width = sizes[image["id"]]
        wrong = [*image["neg_category_ids"], *image["not_exhaustive_category_ids"], *rng.choice(every, 5).tolist()]
        wrong *= 30 if image is coco["images"][0] else 1
        for category in wrong:
            x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
            mask = np.zeros((height, width), dtype=bool)
            mask[y : y + int(rng.integers(8, 200)), x : x + int(rng.integers(8, 200))] = True
            detect(image["id"], category, mask, rng.beta(2, 3))
    return coco, results


@pytest.mark.slow
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_on_lvis_photographs_too(photographs, iou_type, tmp_path):
    coco, results = photographs
    counts = np.bincount([result["image_id"] for result in results])
    assert counts.max() > 300
    metrics, matches = average_precision(coco, results, iou_type=iou_type, max_detections=300, federated=True)
    assert 0.1 < metrics["ap"] < 0.9
    assert set(metrics) == set(NAMES)
    assert metrics == pytest.approx(lvis_package(coco, results, tmp_path, iou_type=iou_type), abs=1e-9)
    assert from_matches(matches) == pytest.approx(without_frequencies(metrics), abs=1e-9)
    assert metrics["ap"] != pytest.approx(average_precision(coco, results, iou_type=iou_type)[0]["ap"], abs=0.01)


@pytest.mark.slow
def test_retention_on_lvis_photographs_is_bounded_by_resampling_their_images(photographs):
    coco, results = photographs
    rng = np.random.default_rng(1)
    fewer = [result for result in results if rng.random() < 0.9]
    pseudo, human = (average_precision(coco, found, max_detections=300, federated=True) for found in (fewer, results))
    interval = retention(pseudo[1], human[1], resamples=100)
    assert interval.value == pytest.approx(pseudo[0]["ap"] / human[0]["ap"])
    assert 0.6 < interval.low < interval.value < interval.high < 1.1


def test_what_an_image_was_not_searched_for_is_not_judged():
    coco, results = drawn(0)
    unknown = []
    for image in coco["images"]:
        listed = {*image["neg_category_ids"]}
        listed |= {a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"]}
        unknown += [r for r in results if r["image_id"] == image["id"] and r["category_id"] not in listed]
    assert len(unknown) >= 20
    metrics, matches = average_precision(coco, results, federated=True)
    fewer = [result for result in results if result not in unknown]
    assert average_precision(coco, fewer, federated=True)[0] == metrics
    assert len(matches.det_score) == len(fewer)
    assert average_precision(coco, results)[0]["ap"] < metrics["ap"]


def test_a_false_alarm_costs_where_the_category_is_absent_and_nothing_where_it_is_not_exhaustive():
    coco, _ = drawn(1)
    perfect = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.5}
        for annotation in coco["annotations"]
    ]
    image = coco["images"][0]
    category = next(a["category_id"] for a in coco["annotations"] if a["image_id"] != image["id"])
    image["neg_category_ids"] = [category]
    coco["annotations"] = [
        a for a in coco["annotations"] if (a["image_id"], a["category_id"]) != (image["id"], category)
    ]
    image["not_exhaustive_category_ids"] = []
    alarm = {"image_id": image["id"], "category_id": category, "bbox": [0, 0, 9, 9], "score": 0.9}
    alarm["segmentation"] = encode_mask(disc(0, 0, 9, 9))
    assert average_precision(coco, perfect, federated=True)[0]["ap"] == pytest.approx(1)
    assert average_precision(coco, [*perfect, alarm], federated=True)[0]["ap"] < 1
    image["not_exhaustive_category_ids"] = [category]
    assert average_precision(coco, [*perfect, alarm], federated=True)[0]["ap"] == pytest.approx(1)


def test_the_limit_is_of_an_image_whatever_the_categories(tmp_path):
    coco, results = drawn(2)
    metrics, matches = average_precision(coco, results, max_detections=6, federated=True)
    best = []
    for image in coco["images"]:
        here = [result for result in results if result["image_id"] == image["id"]]
        best += sorted(here, key=lambda result: -result["score"])[:6]
    assert len(best) == 60 < len(results)
    assert metrics == pytest.approx(lvis_package(coco, best, tmp_path, iou_type="segm"), abs=1e-9)
    assert from_matches(matches) == pytest.approx(without_frequencies(metrics), abs=1e-9)


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_counting_an_image_twice_is_adding_its_copy(data):
    seed = data.draw(st.integers(0, 1000))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=5)))
    assume(weights.any())
    coco, results = drawn(seed, images=5, categories=5)
    rng = np.random.default_rng(seed)
    for result in results:
        result["score"] = float(rng.random())  # without ties: see ap_from_matches
    copied: Json = {"images": [], "annotations": [], "categories": coco["categories"]}
    found: list[Json] = []
    for image, count in zip(coco["images"], weights, strict=True):
        for _ in range(count):
            identity = len(copied["images"])
            copied["images"].append(image | {"id": identity})
            copied["annotations"] += [
                a | {"image_id": identity} for a in coco["annotations"] if a["image_id"] == image["id"]
            ]
            found += [r | {"image_id": identity} for r in results if r["image_id"] == image["id"]]
    metrics, _ = average_precision(copied, found, federated=True)
    _, matches = average_precision(coco, results, federated=True)
    for name, value in without_frequencies(metrics).items():
        assert ap_from_matches(matches, weights, metric=name) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("cells", [1, 25, 60])
def test_evaluating_the_categories_in_parts_changes_nothing(cells, monkeypatch):
    coco, results = drawn(1)
    coco["categories"].append({"id": 1, "name": "nowhere", "frequency": "r"})
    metrics, matches = average_precision(coco, results, federated=True)
    monkeypatch.setattr(federated, "CELLS", cells)
    again, same = average_precision(coco, results, federated=True)
    assert again == pytest.approx(metrics, abs=1e-12)
    np.testing.assert_array_equal(same.det_state, matches.det_state)
    parts = list(federation(coco).parts([category["id"] for category in coco["categories"]]))
    assert sorted(category for chosen, _ in parts for category in chosen) == [2 + 3 * k for k in range(7)]
    assert all(len(chosen) == 1 or len(chosen) * len(images) <= cells for chosen, images in parts)


def test_no_detection_at_all_scores_zero():
    metrics, matches = average_precision(drawn(3)[0], [], federated=True)
    assert set(metrics.values()) == {0.0}
    assert ap_from_matches(matches) == 0


def test_a_file_that_is_not_lviss_is_refused():
    coco, results = drawn(0)
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        images = [coco["images"][0], {k: v for k, v in coco["images"][1].items() if k != key}]
        with pytest.raises(AnnotationError, match=rf"1 of 2 images have no list {key} \(ids 6\).*data\.format=coco"):
            average_precision(coco | {"images": images}, results, federated=True)
    categories = [coco["categories"][0], coco["categories"][1] | {"frequency": "often"}]
    with pytest.raises(AnnotationError, match=r"1 of 2 categories have no frequency .*'c5': 'often'"):
        average_precision(coco | {"categories": categories}, results, federated=True)
    with pytest.raises(ConfigError, match="class_agnostic"):
        average_precision(coco, results, federated=True, class_agnostic=True)
