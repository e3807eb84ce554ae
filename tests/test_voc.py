"""VOC's mAP of masks: by its definition step by step, hand-made cases, and COCO's evaluator where the two agree."""

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mal import evaluation
from mal.context import Context
from mal.data.annotations import decode_mask, encode_mask
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.store import Store
from mal.errors import AnnotationError
from mal.metrics.matches import TRUE, MatchArrays
from mal.metrics.voc import IOUS, ap_samples, voc_map, voc_matches

SIDE = 20
Json = dict


def strip(start: int, stop: int) -> np.ndarray:
    """Columns of the image: masks whose IoUs are plain shares."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:, start:stop] = True
    return mask


def truth(*objects: tuple[int, int, np.ndarray], categories: int = 2, images: int = 3) -> Json:
    """Objects as (image, category, mask)."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(1, categories + 1)],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "bbox": [0, 0, 1, 1],
                "segmentation": encode_mask(mask),
            }
            for n, (image, category, mask) in enumerate(objects, 1)
        ],
    }


def found(*detections: tuple[int, int, float, np.ndarray]) -> list[Json]:
    return [
        {"image_id": image, "category_id": category, "score": score, "segmentation": encode_mask(mask)}
        for image, category, score, mask in detections
    ]


def measured(human: Json, results: list[Json]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    intervals, classes = voc_map(voc_matches(human, results), resamples=2, seed=0)
    return {name: interval.value for name, interval in intervals.items()}, classes


def brute_force(human: Json, results: list[Json], threshold: float, form: str) -> dict[int, Fraction]:
    """AP of each category, as the definition says it, in fractions. The objects of `human` are strips or any masks."""
    masks = [*human["annotations"], *results]
    pixels = {id(item): decode_mask(item["segmentation"], height=SIDE, width=SIDE) for item in masks}
    values = {}
    for category in sorted({a["category_id"] for a in human["annotations"]}):
        objects = [a for a in human["annotations"] if a["category_id"] == category]
        ranked = sorted(
            (r for r in results if r["category_id"] == category), key=lambda r: (-r["score"], r["image_id"])
        )
        taken, hits, curve = [], 0, []
        for rank, result in enumerate(ranked, 1):
            best, best_iou = None, 0.0
            for item in [a for a in objects if a["image_id"] == result["image_id"]]:
                both = (pixels[id(item)] & pixels[id(result)]).sum()
                iou = both / (pixels[id(item)] | pixels[id(result)]).sum()
                if iou > best_iou:
                    best, best_iou = item["id"], iou
            if best is not None and best_iou >= threshold and best not in taken:
                taken.append(best)
                hits += 1
            curve.append((Fraction(hits, len(objects)), Fraction(hits, rank)))
        best_at = lambda recall, curve=curve: max((p for r, p in curve if r >= recall), default=Fraction(0))  # noqa: E731
        if form == "11":
            values[category] = sum((best_at(Fraction(k, 10)) for k in range(11)), Fraction(0)) / 11
        else:
            recalls = sorted({Fraction(0), *(r for r, _ in curve)})
            values[category] = sum((best_at(b) * (b - a) for a, b in pairwise(recalls)), Fraction(0))
    return values


def random_case(seed: int, *, images: int = 6, categories: int = 3) -> tuple[Json, list[Json]]:
    rng = np.random.default_rng(seed)

    def mask() -> np.ndarray:
        whole = np.zeros((SIDE, SIDE), dtype=bool)
        (x, y), (w, h) = rng.integers(0, 8, 2), rng.integers(4, 12, 2)
        whole[y : y + h, x : x + w] = rng.random((h, w))[: SIDE - y, : SIDE - x] < 0.9
        return whole

    objects = [(int(rng.integers(1, images + 1)), int(rng.integers(1, categories)), mask()) for _ in range(25)]
    detections = []
    for image, category, shape in objects:
        for _ in range(int(rng.integers(0, 3))):
            near = np.roll(shape, rng.integers(-3, 4, 2), axis=(0, 1))
            detections.append((image, category, float(np.round(rng.random(), 1)), near))
    for _ in range(12):  # of any class, also of one without objects
        image, category = int(rng.integers(1, images + 1)), int(rng.integers(1, categories + 1))
        detections.append((image, category, float(rng.random()), mask()))
    return truth(*objects, categories=categories, images=images), found(*detections)


@pytest.mark.parametrize("seed", range(20))
def test_both_forms_are_those_of_the_definition(seed: int) -> None:
    human, results = random_case(seed)
    means, classes = measured(human, results)
    for form, end in (("11", ""), ("area", "_area")):
        for threshold in IOUS:
            expected = brute_force(human, results, threshold, form)
            name = f"{round(100 * threshold)}{end}"
            assert {key: values[f"ap{name}"] for key, values in classes.items()} == pytest.approx(
                {key: float(value) for key, value in expected.items()}, abs=1e-12
            )
            assert means[f"map{name}"] == pytest.approx(float(sum(expected.values()) / len(expected)), abs=1e-12)


def test_the_second_hit_of_an_object_is_false() -> None:
    human = truth((1, 1, strip(0, 10)), (2, 1, strip(0, 10)))
    results = found((1, 1, 0.9, strip(0, 10)), (1, 1, 0.8, strip(0, 10)), (2, 1, 0.7, strip(0, 10)))
    means, classes = measured(human, results)
    # recall ½ at precision 1, recall 1 at precision ⅔: recalls 0 … .5 and .6 … 1
    assert means["map50"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert means["map50_area"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert list(classes) == [1]


def test_a_detection_whose_best_object_is_taken_gets_no_other() -> None:
    """COCO's matching would give it the second one, with which its IoU is ½."""
    human = truth((1, 1, strip(0, 10)), (1, 1, strip(4, 20)))
    results = found((1, 1, 0.9, strip(0, 10)), (1, 1, 0.8, strip(0, 12)))  # 10/12 with the first, 8/20 with the second
    matches = voc_matches(human, results)
    assert (matches.det_state[0] == TRUE).tolist() == [[True, False]] * 3
    other = found((1, 1, 0.9, strip(0, 10)), (1, 1, 0.8, strip(4, 14)))  # 6/14 with the first, 10/16 with the second
    assert (voc_matches(human, other).det_state[0] == TRUE).tolist() == [[True, True], [True, True], [True, False]]


def test_an_iou_at_the_threshold_is_a_hit() -> None:
    human = truth((1, 1, strip(0, 16)))
    for wide, hits in ((12, [True, True, True]), (8, [True, True, False]), (4, [True, False, False])):
        matches = voc_matches(human, found((1, 1, 0.5, strip(0, wide))))
        assert (matches.det_state[0, :, 0] == TRUE).tolist() == hits


def test_detections_that_tie_go_by_image_and_in_their_order() -> None:
    human = truth((1, 1, strip(0, 10)), (2, 1, strip(0, 10)))
    good, bad = (1, 1, 0.5, strip(0, 10)), (1, 1, 0.5, strip(12, 20))
    assert measured(human, found(good, bad))[0]["map50_area"] == pytest.approx(1 / 2)
    assert measured(human, found(bad, good))[0]["map50_area"] == pytest.approx(1 / 4)
    assert measured(human, found((2, *bad[1:]), good))[0]["map50_area"] == pytest.approx(1 / 2)


def test_a_class_without_objects_does_not_count_and_one_without_detections_counts_as_nothing() -> None:
    human = truth((1, 1, strip(0, 10)), (2, 3, strip(0, 10)), categories=4)
    results = found((1, 1, 0.5, strip(0, 10)), (1, 2, 0.9, strip(0, 10)))
    means, classes = measured(human, results)
    assert means["map25"] == 0.5
    assert {key: values["ap25"] for key, values in classes.items()} == {1: 1.0, 3: 0.0}


def test_nothing_found_is_zero_and_nothing_to_find_is_refused() -> None:
    assert set(measured(truth((1, 1, strip(0, 4))), [])[0].values()) == {0.0}
    with pytest.raises(AnnotationError, match="nothing to measure AP on"):
        voc_matches(truth(), [])
    with pytest.raises(AnnotationError, match="result 0 has category_id 7"):
        voc_matches(truth((1, 1, strip(0, 4))), found((1, 7, 0.5, strip(0, 4))))


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten() -> None:
    """As floats 3/10 stays below .1 + .1 + .1."""
    human = truth(*((1 + n % 3, 1, strip(2 * n // 3, 2 * n // 3 + 2)) for n in range(10)))
    results = [{**a, "score": 1 - n / 10} for n, a in enumerate(human["annotations"][:3])]
    assert measured(human, results)[0]["map75"] == pytest.approx(4 / 11)


def test_the_11_point_form_is_that_of_cocos_evaluator_where_an_image_has_one_object_of_a_class() -> None:
    """pycocotools with 11 recalls: there its matching and VOC's cannot differ."""
    rng = np.random.default_rng(4)
    cells = [(image, category) for image in range(1, 13) for category in (1, 2)]
    objects = [(image, category, strip(*sorted(rng.choice(21, 2, replace=False)))) for image, category in cells]
    objects = [item for item in objects if rng.random() < 0.8]
    detections = [
        (image, category, float(rng.random()), np.roll(mask, int(rng.integers(-3, 4)), axis=1))
        for image, category, mask in objects
        for _ in range(3)
    ]
    human, results = truth(*objects, images=12), found(*detections)
    theirs = COCO()
    theirs.dataset = {**human, "annotations": [{**a, "iscrowd": 0, "area": 1.0} for a in human["annotations"]]}
    theirs.createIndex()
    evaluator = COCOeval(theirs, theirs.loadRes([dict(result) for result in results]), "segm")
    evaluator.params.iouThrs, evaluator.params.recThrs = np.array(IOUS), np.arange(11) / 10
    evaluator.params.maxDets, evaluator.params.areaRng, evaluator.params.areaRngLbl = [1000], [[0, 1e10]], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    means = measured(human, results)[0]
    expected = evaluator.eval["precision"][:, :, :, 0, 0].mean(axis=(1, 2))
    assert [means["map25"], means["map50"], means["map75"]] == pytest.approx(expected.tolist(), abs=1e-9)
    assert 0.1 < means["map75"] < means["map25"] < 0.9


# Resamples


def test_weights_count_images_as_if_they_were_there_so_often() -> None:
    human, results = random_case(3)
    results = [{**r, "score": n + r["score"] / 2} for n, r in enumerate(results)]  # no ties
    weights = np.array([2, 0, 1, 3, 0, 1])
    copies: list[Json] = []
    repeated: Json = {**human, "images": [], "annotations": []}
    for image, times in zip(human["images"], weights, strict=True):
        for copy in range(times):
            identity = 100 * image["id"] + copy
            repeated["images"].append({**image, "id": identity})
            own = [a for a in human["annotations"] if a["image_id"] == image["id"]]
            repeated["annotations"] += [{**a, "image_id": identity, "id": 1000 * copy + a["id"]} for a in own]
            copies += [{**r, "image_id": identity} for r in results if r["image_id"] == image["id"]]
    matches = voc_matches(human, results)
    (sample,) = ap_samples(matches, weights[None])
    together = voc_matches(repeated, copies)
    # within the copies of a true detection recall and precision rise together, so the curve is that of their end
    (whole,) = ap_samples(together, np.ones((1, len(together.image_ids)), dtype=np.int64))
    np.testing.assert_allclose(sample, whole, atol=1e-12)
    once = np.ones((1, 6), dtype=np.int64)
    np.testing.assert_allclose(ap_samples(matches, 3 * once), ap_samples(matches, once), atol=1e-12)


def test_an_interval_holds_its_value_and_narrows_with_images() -> None:
    widths = []
    for images in (6, 60):
        human, results = random_case(1, images=6)
        times = images // 6
        human = {
            **human,
            "images": [{**i, "id": i["id"] + 100 * k} for k in range(times) for i in human["images"]],
            "annotations": [
                {**a, "id": a["id"] + 1000 * k, "image_id": a["image_id"] + 100 * k}
                for k in range(times) for a in human["annotations"]
            ],
        }  # fmt: skip
        results = [{**r, "image_id": r["image_id"] + 100 * k} for k in range(times) for r in results]
        interval = voc_map(voc_matches(human, results), resamples=300, seed=0)[0]["map50"]
        assert interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < 0.6 * widths[0]


def test_matches_are_kept_by_image(tmp_path: Path) -> None:
    human, results = random_case(2)
    matches = voc_matches(human, results)
    matches.save(tmp_path / "matches.npz")
    again = voc_map(MatchArrays.load(tmp_path / "matches.npz"), resamples=20, seed=1)
    assert again == voc_map(matches, resamples=20, seed=1)


def test_without_classes_all_objects_are_of_one() -> None:
    human = truth((1, 1, strip(0, 10)), (1, 2, strip(10, 20)))
    results = found((1, 2, 0.9, strip(0, 10)), (1, 1, 0.8, strip(10, 20)))
    assert measured(human, results)[0]["map75"] == 0
    intervals, classes = voc_map(voc_matches(human, results, class_agnostic=True), resamples=2, seed=0)
    assert intervals["map75"].value == 1
    assert list(classes) == [1]


def test_a_segmenters_masks_are_measured_by_it_where_that_is_asked_for(compose, tmp_path: Path) -> None:
    human, results = random_case(5)
    (tmp_path / "human.json").write_text(json.dumps({**human, "annotations": [
        {**a, "bbox": [0, 0, 5, 5], "area": 9.0, "iscrowd": 0} for a in human["annotations"]]}))  # fmt: skip
    (tmp_path / "predictions.json").write_text(json.dumps([{**r, "bbox": [0, 0, 5, 5]} for r in results]))
    images = tmp_path / "images"
    images.mkdir()
    for image in human["images"]:
        Image.new("RGB", (SIDE, SIDE)).save(images / image["file_name"])
    files = [f"data.val.annotations={tmp_path / 'human.json'}", f"data.val.images={images}"]
    predictions = Stage("detect_val", 1, {}, lambda _: Result(), columns={"segmenter": "x"})
    stages = {}
    for asked in (True, False):
        config = compose("data=coco", *files, f"evaluate.voc={asked}", "evaluate.bootstrap=20")
        stages[asked] = evaluation.score(Context(config, Store(tmp_path / "runs"), torch.device("cpu")), predictions)
    assert "voc" not in stages[False].config
    folder = tmp_path / "ap"
    folder.mkdir()
    metrics = stages[True].work(Workdir(folder, {"predictions": tmp_path}, torch.device("cpu"))).metrics
    for name, value in measured(human, results)[0].items():
        assert metrics[f"mask_{name}"] == value
    assert metrics["mask_map50_low"] <= metrics["mask_map50"] <= metrics["mask_map50_high"]
    table = json.loads((folder / "voc_classes.json").read_text())
    assert [(row["name"], row["category_id"]) for row in table] == [("kind 1", 1), ("kind 2", 2)]
