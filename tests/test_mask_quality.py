"""IoU and boundary IoU, and which instances they are counted over."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_masks

from mal.data.annotations import encode_mask
from mal.errors import AnnotationError
from mal.metrics.masks import boundary_iou, iou, mask_quality, select_images

mask_pairs = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: st.tuples(arrays.arrays(bool, shape), arrays.arrays(bool, shape))
)


def _count(first: np.ndarray, second: np.ndarray) -> float:
    """IoU pixel by pixel in float64."""
    inside = union = np.float64(0)
    for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
        inside += a and b
        union += a or b
    return float(inside / union) if union else 0.0


def _ring(mask: np.ndarray, distance: int) -> np.ndarray:
    """Mask pixels from which a step of at most `distance` rows and columns leaves the mask or the image."""
    height, width = mask.shape
    ring = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        top, bottom, left, right = row - distance, row + distance + 1, column - distance, column + distance + 1
        leaves_image = top < 0 or left < 0 or bottom > height or right > width
        ring[row, column] = leaves_image or not mask[top:bottom, left:right].all()
    return ring


@given(mask_pairs)
@settings(deadline=None, max_examples=100)
def test_iou_equals_counting_pixels(pair):
    first, second = pair
    assert iou(first, second) == _count(first, second)


@given(mask_pairs)
@settings(deadline=None, max_examples=60)
def test_boundary_iou_of_small_images_equals_brute_force(pair):
    first, second = pair  # at these sizes 2 % of the diagonal is under a pixel, so one pixel it is
    assert boundary_iou(first, second) == _count(_ring(first, 1), _ring(second, 1))


def _smooth_mask(rng: np.random.Generator, height: int, width: int, blobs: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(blobs):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 0.3 * height)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_boundary_iou_of_the_crop_equals_that_of_the_whole_image(seed):
    rng = np.random.default_rng(seed)
    height, width = 70 + 10 * seed, 160 - 5 * seed
    distance = round(0.02 * np.sqrt(height**2 + width**2))
    assert distance > 1
    first, second = (_smooth_mask(rng, height, width, blobs=1 + seed % 3) for _ in range(2))
    assert boundary_iou(first, second) == _count(_ring(first, distance), _ring(second, distance))


def test_boundary_iou_of_nested_squares():
    # 100 x 100 pixels: d = round(2.83) = 3. Rings 20² − 14² and 18² − 12² share 18² − 14² = 128 of 20² − 12² = 256.
    outer, inner = np.zeros((2, 100, 100), dtype=bool)
    outer[40:60, 40:60] = True
    inner[41:59, 41:59] = True
    assert boundary_iou(outer, inner) == 128 / 256
    assert iou(outer, inner) == 18**2 / 20**2


def test_the_image_border_counts_as_contour():
    # A mask that covers the image has the frame of width d = 1 as its boundary; the other one lies inside that frame.
    everything, middle = np.ones((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    middle[1:9, 1:9] = True
    assert boundary_iou(everything, everything) == 1
    assert boundary_iou(everything, middle) == 0


def _coco(masks: dict[int, np.ndarray], **changes: dict[int, object]) -> dict:
    """One image a mask; `changes` maps a key to {annotation id: value}."""
    annotations = []
    for identity, mask in masks.items():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        bbox = [10, 10, 20, 20]
        if len(rows):
            bbox = [int(v) for v in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]
        annotation = {"id": identity, "image_id": identity, "category_id": 1, "bbox": bbox, "iscrowd": 0}
        annotation["segmentation"] = encode_mask(mask)
        annotation |= {key: values[identity] for key, values in changes.items() if identity in values}
        annotations.append(annotation)
    images = [{"id": identity, "height": m.shape[0], "width": m.shape[1]} for identity, m in masks.items()]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def _square(side: int, *, columns: int | None = None) -> np.ndarray:
    mask = np.zeros((120, 120), dtype=bool)
    mask[5 : 5 + side, 5 : 5 + (side if columns is None else columns)] = True
    return mask


def test_perfect_masks_score_one():
    human = _coco({1: _square(10), 2: _square(50), 3: _square(100)})
    metrics, instances = mask_quality(human, human)
    ones = ("iou", "iou_class", "iou_S", "iou_M", "iou_L", "boundary_iou", "share_50", "share_75")
    assert [metrics[name] for name in ones] == [1.0] * len(ones)
    assert [metrics[name] for name in ("n", "n_S", "n_M", "n_L")] == [3, 1, 1, 1]
    assert "iou_own" not in metrics  # none is flagged
    assert instances["annotation_id"].tolist() == [1, 2, 3]


def test_means_over_instances_classes_and_sizes():
    category = {1: 1, 2: 1, 3: 2}
    human = _coco({1: _square(20), 2: _square(40), 3: _square(100)}, category_id=category)
    guess = _coco(
        {1: _square(20, columns=10), 2: _square(40), 3: _square(100, columns=76)},
        category_id=category,
        flagged={3: True},
    )
    metrics, instances = mask_quality(guess, human)
    assert instances["iou"].tolist() == [0.5, 1.0, 0.76]
    assert instances["flagged"].tolist() == [False, False, True]
    assert (metrics["iou_own"], metrics["n_own"]) == (0.75, 2)
    assert instances["area"].tolist() == [400, 1600, 10000]  # of the human box, not of what was predicted
    assert instances["size"].tolist() == ["S", "M", "L"]
    assert metrics["iou"] == pytest.approx((0.5 + 1 + 0.76) / 3)
    assert metrics["iou_class"] == pytest.approx((0.75 + 0.76) / 2)
    assert (metrics["iou_S"], metrics["iou_M"], metrics["iou_L"]) == (0.5, 1.0, 0.76)
    assert metrics["share_50"] == pytest.approx(2 / 3)  # over .5, so .5 itself is not
    assert metrics["share_75"] == pytest.approx(2 / 3)
    assert metrics["boundary_iou"] == pytest.approx(instances["boundary_iou"].mean())


def test_iou_agrees_with_pycocotools():
    rng = np.random.default_rng(0)
    truths, guesses = ({i: _smooth_mask(rng, 120, 120, 4) for i in range(1, 9)} for _ in range(2))
    _, instances = mask_quality(_coco(guesses), _coco(truths))
    for identity, measured in zip(instances["annotation_id"], instances["iou"], strict=True):
        encoded = [coco_masks.encode(np.asfortranarray(m[identity], dtype=np.uint8)) for m in (guesses, truths)]
        assert measured == pytest.approx(coco_masks.iou(encoded[:1], encoded[1:], [0])[0, 0], abs=1e-12)


def test_an_area_on_the_edge_belongs_to_the_larger_size():
    human = _coco({1: _square(32), 2: _square(96), 3: _square(31)})
    _, instances = mask_quality(human, human)
    assert instances["size"].tolist() == ["M", "L", "S"]


def test_crowds_tiny_boxes_and_empty_human_masks_are_not_scored():
    masks = {1: _square(10), 2: _square(10), 3: _square(10), 4: _square(0), 5: _square(10)}
    human = _coco(masks, iscrowd={2: 1}, bbox={3: [5, 5, 2, 10]})
    guess = {**human, "annotations": [a for a in human["annotations"] if a["id"] not in (2, 3)]}
    metrics, instances = mask_quality(guess, human)
    assert instances["annotation_id"].tolist() == [1, 5]
    assert metrics["n"] == 2


def test_an_empty_prediction_scores_zero():
    metrics, _ = mask_quality(_coco({1: _square(0)}), _coco({1: _square(10)}))
    assert (metrics["iou"], metrics["boundary_iou"]) == (0, 0)


def test_a_size_without_instances_has_a_count_and_no_iou():
    human = _coco({1: _square(10)})
    metrics, _ = mask_quality(human, human)
    assert (metrics["n_S"], metrics["n_M"], metrics["n_L"]) == (1, 0, 0)
    assert "iou_L" not in metrics
    assert not any(np.isnan(value) for value in metrics.values())


def test_what_cannot_be_matched_is_named():
    human = _coco({i: _square(10) for i in (7, 8, 9)})
    without = {**human, "annotations": [a for a in human["annotations"] if a["id"] == 8]}
    with pytest.raises(AnnotationError, match=r"2 annotations .* absent .* ids 7, 9"):
        mask_quality(without, human)
    maskless = {
        **human,
        "annotations": [{k: v for k, v in a.items() if k != "segmentation"} for a in human["annotations"]],
    }
    with pytest.raises(AnnotationError, match=r"have no mask .* ids 7, 8, 9"):
        mask_quality(maskless, human)
    moved = {**human, "annotations": [{**a, "image_id": 9} for a in human["annotations"]]}
    with pytest.raises(AnnotationError, match=r"another image .* ids 7, 8"):
        mask_quality(moved, human)
    with pytest.raises(AnnotationError, match="can be scored"):
        mask_quality(human, {**human, "annotations": []})


@given(st.lists(st.integers(1, 999), unique=True, max_size=12))
@settings(deadline=None, max_examples=50)
def test_even_and_odd_positions_part_the_images(ids):
    coco = {
        "images": [{"id": i} for i in ids],
        "annotations": [{"id": n, "image_id": i} for n, i in enumerate(2 * ids)],
        "categories": ["kept"],
    }
    even, odd = select_images(coco, "even"), select_images(coco, "odd")
    assert {image["id"] for image in even["images"]} == set(sorted(ids)[0::2])
    assert {image["id"] for image in odd["images"]} == set(sorted(ids)[1::2])
    for part in (even, odd):
        kept = {image["id"] for image in part["images"]}
        assert part["annotations"] == [a for a in coco["annotations"] if a["image_id"] in kept]
        assert part["categories"] == ["kept"]
    assert select_images(coco, "all") == coco
    with pytest.raises(AnnotationError, match="'first'"):
        select_images(coco, "first")


def test_a_file_numbered_otherwise_is_refused():
    first, second = np.zeros((120, 120), dtype=bool), np.zeros((120, 120), dtype=bool)
    first[5:25, 5:25], second[60:90, 60:90] = True, True
    human = _coco({1: first, 2: second})
    for annotation in human["annotations"]:
        annotation["image_id"] = 1
    predicted = copy.deepcopy(human)
    a, b = predicted["annotations"]
    a["id"], b["id"] = b["id"], a["id"]
    with pytest.raises(
        AnnotationError, match="2 annotations of the predicted file have the box of another object: ids 1, 2"
    ):
        mask_quality(predicted, human)


def test_masks_from_points_may_have_the_box_of_another_object():
    """They have no box but that of the mask, which a poor one shares with the object beside it."""
    first, second = np.zeros((120, 120), dtype=bool), np.zeros((120, 120), dtype=bool)
    first[5:25, 5:25], second[60:90, 60:90] = True, True
    human = _coco({1: first, 2: second})
    for annotation in human["annotations"]:
        annotation["image_id"] = 1
    predicted = copy.deepcopy(human)
    a, b = predicted["annotations"]
    a["id"], b["id"] = b["id"], a["id"]
    for annotation in predicted["annotations"]:
        annotation["points"] = [[10.0, 10.0]]
    assert mask_quality(predicted, human)[0]["iou"] == 0


def test_an_image_of_another_file_is_refused():
    human = _coco({1: _square(30)})
    human["images"][0]["file_name"] = "a/1.png"
    same, other = copy.deepcopy(human), copy.deepcopy(human)
    same["images"][0]["file_name"], other["images"][0]["file_name"] = "1.png", "a/2.png"
    assert mask_quality(same, human)[0]["iou"] == 1
    with pytest.raises(AnnotationError, match=r"1 images have another file name .* image 1: 'a/2.png'"):
        mask_quality(other, human)
