"""AP is the reference implementation's, comes out of the match arrays again, and its ratio is bounded honestly."""

import contextlib
import io
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mal.data.annotations import encode_mask
from mal.errors import AnnotationError, MalError
from mal.metrics.ap import average_precision
from mal.metrics.bootstrap import METRICS, Interval, ap_from_matches, ap_samples, retention
from mal.metrics.matches import AREAS, THRESHOLDS, MatchArrays

SIDE = 160
PYCOCOTOOLS = dict(zip(METRICS, range(6), strict=True))  # its stats begin with the same six


def ellipse(bbox: list[float], *, height: int, width: int) -> np.ndarray:
    x, y, w, h = bbox
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    return ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1


def random_set(seed: int, *, images: int = 12, categories: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of all sizes, some crowds; detections jittered around them, some doubled, some of nothing, some tied."""
    rng = np.random.default_rng(seed)
    coco: dict[str, Any] = {
        "images": [{"id": 7 * i + 3, "height": SIDE, "width": SIDE, "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": 10 * k + 5, "name": str(k)} for k in range(categories)],
        "annotations": [],
    }
    results = []

    def box() -> list[float]:
        w, h = np.exp(rng.uniform(np.log(8), np.log(140), 2))
        return [float(rng.uniform(0, SIDE - w)), float(rng.uniform(0, SIDE - h)), float(w), float(h)]

    def detect(image: int, category: int, bbox: list[float]) -> None:
        mask = ellipse(bbox, height=SIDE, width=SIDE)
        score = float(np.round(rng.random(), int(rng.integers(1, 4))))
        found = {"image_id": image, "category_id": category, "bbox": bbox, "score": score}
        results.append(found | {"segmentation": encode_mask(mask)})

    for image in coco["images"]:
        for _ in range(rng.integers(0, 7)):
            category, bbox = int(rng.choice([k["id"] for k in coco["categories"]])), box()
            mask = ellipse(bbox, height=SIDE, width=SIDE)
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]),  # begins at 0, which COCO's own code stumbles over
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": bbox,
                    "area": float(mask.sum()),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": encode_mask(mask),
                }
            )
            for _ in range(rng.integers(0, 3)):
                jitter = rng.normal(0, 0.06, 4) * [bbox[2], bbox[3], bbox[2], bbox[3]]
                detect(image["id"], category, [max(0.0, float(v)) for v in np.array(bbox) + jitter])
        detect(image["id"], int(rng.choice([k["id"] for k in coco["categories"]])), box())
    return coco, results


def pycocotools(coco: dict[str, Any], results: list[dict[str, Any]], *, iou_type: str) -> dict[str, float]:
    drop = "bbox" if iou_type == "segm" else "segmentation"
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference is older than NumPy 2
        truth = COCO()
        truth.dataset = json.loads(json.dumps(coco))
        for number, annotation in enumerate(truth.dataset["annotations"], start=1):
            annotation["id"] = number
        truth.createIndex()
        found = truth.loadRes([{k: v for k, v in result.items() if k != drop} for result in results])
        evaluator = COCOeval(truth, found, iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = {name: float(evaluator.stats[index]) for name, index in PYCOCOTOOLS.items()}
    return {name: value for name, value in stats.items() if value > -1}


def from_matches(matches: MatchArrays) -> dict[str, float]:
    values = {name: ap_from_matches(matches, metric=name) for name in METRICS}
    return {name: value for name, value in values.items() if not math.isnan(value)}


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(4))
def test_ap_is_pycocotools_ap_and_comes_out_of_the_matches_again(seed: int, iou_type: str) -> None:
    coco, results = random_set(seed)
    metrics, matches = average_precision(coco, results, iou_type=iou_type)
    assert 0.02 < metrics["ap"] < 0.9
    assert metrics == pytest.approx(pycocotools(coco, results, iou_type=iou_type), abs=1e-9)
    assert from_matches(matches) == pytest.approx(metrics, abs=1e-9)


@pytest.fixture(scope="module")
def photographs(coco_mini: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO objects, and ellipses in their jittered boxes as detections with random scores."""
    coco = json.loads((coco_mini / "annotations" / "instances_val2017_mini.json").read_text())
    sizes = {image["id"]: image for image in coco["images"]}
    rng = np.random.default_rng(0)
    results = []
    for annotation in coco["annotations"]:
        image = sizes[annotation["image_id"]]
        x, y, w, h = (np.array(annotation["bbox"]) * rng.normal(1, 0.05, 4)).tolist()
        mask = ellipse([x, y, max(w, 1.0), max(h, 1.0)], height=image["height"], width=image["width"])
        found = {"image_id": image["id"], "category_id": annotation["category_id"], "score": float(rng.random())}
        results.append(found | {"bbox": [x, y, w, h], "segmentation": encode_mask(mask)})
    return coco, results


@pytest.mark.slow
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_on_photographs_with_polygons_and_crowds_too(
    photographs: tuple[dict[str, Any], list[dict[str, Any]]], iou_type: str
) -> None:
    metrics, matches = average_precision(*photographs, iou_type=iou_type)
    assert 0.02 < metrics["ap"] < 0.9
    assert metrics == pytest.approx(pycocotools(*photographs, iou_type=iou_type), abs=1e-9)
    assert from_matches(matches) == pytest.approx(metrics, abs=1e-9)


def test_only_the_best_detections_of_an_image_count() -> None:
    coco, results = random_set(1)
    metrics, matches = average_precision(coco, results, max_detections=2)
    kept: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: -result["score"]):
        cell = kept.setdefault((result["image_id"], result["category_id"]), [])
        if len(cell) < 2:
            cell.append(result)
    fewer = [result for cell in kept.values() for result in cell]
    assert len(fewer) < len(results)
    assert metrics == pytest.approx(pycocotools(coco, fewer, iou_type="segm"), abs=1e-9)
    assert from_matches(matches) == pytest.approx(metrics, abs=1e-9)


def test_class_agnostic_ap_forgives_the_wrong_category() -> None:
    coco, _ = random_set(2)
    perfect = [
        {key: annotation[key] for key in ("image_id", "bbox", "segmentation")} | {"category_id": 25, "score": 0.5}
        for annotation in coco["annotations"]
        if not annotation["iscrowd"]
    ]
    metrics, _ = average_precision(coco, perfect, class_agnostic=True)
    assert metrics["ap"] == pytest.approx(1)
    assert average_precision(coco, perfect)[0]["ap"] < 0.5


def test_no_detection_at_all_scores_zero() -> None:
    coco, _ = random_set(3)
    metrics, matches = average_precision(coco, [])
    assert set(metrics.values()) == {0.0}
    assert ap_from_matches(matches) == 0


def test_a_size_without_objects_has_no_metric() -> None:
    coco, results = random_set(0)
    for annotation in coco["annotations"]:
        annotation["area"] = 96.0**2 + 1
    metrics, _ = average_precision(coco, results)
    assert "ap_S" not in metrics
    assert "ap_M" not in metrics
    assert metrics["ap_L"] > 0


def test_evaluation_leaves_its_inputs_alone_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    coco, results = random_set(0)
    before = json.dumps([coco, results])
    average_precision(coco, results)
    assert json.dumps([coco, results]) == before
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_measured_is_refused() -> None:
    coco, results = random_set(0)
    crowds = coco | {"annotations": [a | {"iscrowd": 1} for a in coco["annotations"]]}
    bare = [{key: value for key, value in a.items() if key != "segmentation"} for a in coco["annotations"]]
    with pytest.raises(AnnotationError, match="not a crowd"):
        average_precision(crowds, results)
    with pytest.raises(AnnotationError, match="annotation 0 has no mask"):
        average_precision(coco | {"annotations": bare}, results)
    with pytest.raises(AnnotationError, match="result 1 has image_id 999"):
        average_precision(coco, [results[0], results[1] | {"image_id": 999}])
    with pytest.raises(AnnotationError, match="result 0 has category_id 4"):
        average_precision(coco, [results[0] | {"category_id": 4}])


def test_arrays_survive_the_disk(tmp_path: Path) -> None:
    coco, results = random_set(0)
    _, matches = average_precision(coco, results)
    matches.save(tmp_path / "matches.npz")
    again = MatchArrays.load(tmp_path / "matches.npz")
    for name in MatchArrays.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(matches, name))
    (tmp_path / "matches.npz").write_bytes(b"PK half a file")
    with pytest.raises(MalError, match="evaluate again"):
        MatchArrays.load(tmp_path / "matches.npz")


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_counting_an_image_twice_is_adding_its_copy(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=5)))
    coco, results = random_set(seed, images=5, categories=2)
    rng = np.random.default_rng(seed)
    for result in results:
        result["score"] = float(rng.random())  # without ties: see ap_from_matches
    copied: dict[str, Any] = {"images": [], "annotations": [], "categories": coco["categories"]}
    found = []
    for image, count in zip(coco["images"], weights, strict=True):
        for _ in range(count):
            identity = len(copied["images"])
            copied["images"].append(image | {"id": identity})
            mine = [a | {"image_id": identity} for a in coco["annotations"] if a["image_id"] == image["id"]]
            copied["annotations"] += mine
            found += [r | {"image_id": identity} for r in results if r["image_id"] == image["id"]]
    assume(_has_objects(copied))
    metrics, _ = average_precision(copied, found)
    _, matches = average_precision(coco, results)
    for name, value in metrics.items():
        assert ap_from_matches(matches, weights, metric=name) == pytest.approx(value, abs=1e-9)


def _has_objects(coco: dict[str, Any]) -> bool:
    return any(not annotation["iscrowd"] for annotation in coco["annotations"])


# --- retention -----------------------------------------------------------------------------------------------------


def simulated(
    rng: np.random.Generator, *, images: int, quality: float, difficulty: np.ndarray, found: np.ndarray | None = None
) -> MatchArrays:
    """Three objects an image, found with a chance that falls with the image's difficulty; one false alarm an image."""
    objects = 3
    chance = quality * (1 - difficulty)
    hits = rng.random((images, objects)) < chance[:, None] if found is None else found
    score = np.where(hits, rng.beta(4, 2, hits.shape), rng.beta(2, 4, hits.shape))
    scores = np.concatenate([score, rng.beta(2, 3, (images, 1))], axis=1).ravel()
    states = np.concatenate([hits, np.zeros((images, 1), dtype=bool)], axis=1).ravel()
    gt_image = np.repeat(np.arange(images), objects)
    return MatchArrays(
        image_ids=np.arange(images),
        category_ids=np.array([1]),
        thresholds=THRESHOLDS[:1],
        det_image=np.repeat(np.arange(images), objects + 1),
        det_category=np.zeros(images * (objects + 1), dtype=np.int64),
        det_score=scores,
        det_state=np.broadcast_to(states.astype(np.int8), (len(AREAS), 1, len(states))),
        gt_image=gt_image,
        gt_category=np.zeros(len(gt_image), dtype=np.int64),
        gt_counted=np.ones((len(AREAS), len(gt_image)), dtype=bool),
    )


def pair(seed: int, *, images: int) -> tuple[MatchArrays, MatchArrays]:
    """A pseudo-mask and a human-mask segmenter on the same images."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(images)
    pseudo = simulated(rng, images=images, quality=0.7, difficulty=difficulty)
    return pseudo, simulated(rng, images=images, quality=0.8, difficulty=difficulty)


def test_the_interval_covers_the_true_retention_as_often_as_it_says() -> None:
    pseudo, human = pair(0, images=100_000)
    truth = ap_from_matches(pseudo) / ap_from_matches(human)
    trials = 200
    covered = 0
    for seed in range(1, trials + 1):
        interval = retention(*pair(seed, images=80), resamples=300, seed=seed)
        covered += interval.low <= truth <= interval.high
    # binomial(200, .95): 180 … 198 holds with probability .997
    assert 0.90 <= covered / trials <= 0.99


def test_pairing_keeps_a_segmenter_that_is_always_slightly_worse_near_its_ratio() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(100)
    human = simulated(rng, images=100, quality=0.9, difficulty=difficulty)
    interval = retention(human, human, resamples=200, seed=0)
    assert interval == Interval(1, 1, 1)
    alone = ap_samples(human, rng.multinomial(100, np.full(100, 0.01), size=200))
    assert alone.std() > 0.01  # unpaired, the ratio would vary by this much


def test_the_same_seed_gives_the_same_interval_and_another_nearly_the_same() -> None:
    both = pair(5, images=100)
    first, again, other = (retention(*both, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert other.value == first.value
    assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=0.03)


def test_a_resample_without_human_ap_widens_the_interval_instead_of_vanishing() -> None:
    rng = np.random.default_rng(0)
    nothing, one = np.zeros((20, 3), dtype=bool), np.zeros((20, 3), dtype=bool)
    one[0, 0] = True  # (19/20)**20 = 36 % of the resamples lack the only image with a hit
    flat = np.zeros(20)
    human = simulated(rng, images=20, quality=1, difficulty=flat, found=one)
    interval = retention(human, human, resamples=200, seed=0)
    assert interval == Interval(1, 0, math.inf)
    never = simulated(rng, images=20, quality=1, difficulty=flat, found=nothing)
    undefined = retention(human, never, resamples=50, seed=0)
    assert math.isnan(undefined.value)
    assert (undefined.low, undefined.high) == (0, math.inf)
    assert retention(never, human, resamples=50, seed=0).value == 0


def test_two_evaluations_of_different_images_have_no_retention() -> None:
    first, second = pair(0, images=30)[0], pair(0, images=31)[1]
    with pytest.raises(MalError, match="image_ids"):
        retention(first, second)


def test_a_thousand_resamples_of_a_hundred_images_take_seconds() -> None:
    coco, results = random_set(9, images=100, categories=4)
    _, matches = average_precision(coco, results)
    started = time.process_time()
    retention(matches, matches, resamples=1000)
    assert time.process_time() - started < 10


def moved_ids(entries: list[dict[str, Any]], shift: int) -> list[dict[str, Any]]:
    """The entries with their own, image and category ids moved; annotations keep theirs."""
    keys = ("id", "image_id", "category_id")
    return [{**e, **{key: e[key] + shift for key in keys if key in e}} for e in entries]


@pytest.mark.parametrize("shift", [2**62, -(2**62), -50, 2**53])
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_ids_of_any_size_give_the_same_ap(shift: int, iou_type: str) -> None:
    """The evaluator behind passes ids through doubles, where those beyond 2**53 collide."""
    coco, results = random_set(5)
    expected, matches = average_precision(coco, results, iou_type=iou_type)
    moved = {kind: moved_ids(entries, shift) for kind, entries in coco.items()}
    found, named = average_precision(moved, moved_ids(results, shift), iou_type=iou_type)
    assert found == expected
    np.testing.assert_array_equal(named.det_state, matches.det_state)
    assert named.image_ids.tolist() == [i + shift for i in matches.image_ids.tolist()]
    assert named.category_ids.tolist() == [i + shift for i in matches.category_ids.tolist()]
