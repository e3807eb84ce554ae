"""PASCAL VOC's mean average precision of masks: what the papers on VOC 2012 report at IoUs of .25, .5 and .75.

Detections of a class go by falling score, over all images. Each is held against the object of its class and image with
which its mask has the largest IoU: it is true if that IoU reaches the threshold and no better-scored detection has
taken that object, else false, whatever other object it might have found (COCO's matching would look for one). Pixels
that the annotation leaves void belong to no object, and a detection that covers them covers background.

Two forms of AP: `11`, the mean over recalls 0, .1, …, 1 of the best precision at no lower recall (VOC 2007; Everingham
et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, Eq. 1-2), and `area`, the area below that best
precision (VOC 2010 on). They do not compare. Recalls are compared in whole numbers; ChainerCV's program compares
rounded ones, to which 3 of 10 are less than .3, and so has less for some classes whose number of objects 5 divides.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mal.data.annotations import CocoDict, decode_mask, encode_mask
from mal.errors import AnnotationError
from mal.metrics.ap import check_known
from mal.metrics.bootstrap import RESAMPLES_AT_ONCE, Interval, image_weights
from mal.metrics.matches import FALSE, TRUE, MatchArrays

IOUS = (0.25, 0.5, 0.75)
FORMS = ("11", "area")  # the name of the first is not said: map50, map50_area


def voc_matches(human: CocoDict, results: list[dict[str, Any]], *, class_agnostic: bool = False) -> MatchArrays:
    """Which detections are true, at each of `IOUS`.

    Args:
        human: a COCO file with masks. Crowds are no objects.
        results: COCO results: image_id, category_id, score and `segmentation` as compressed RLE. Of equal scores that
            on the image of the lower id goes first, as in COCO's evaluation, and on one image the earlier one.
        class_agnostic: all categories count as one, whose id is 1.

    Returns:
        Matches at one range of areas, that of all.

    Raises:
        AnnotationError: an object without a mask, a result of no image or category of the file, or nothing to find.
    """
    images = sorted(image["id"] for image in human["images"])
    categories = [1] if class_agnostic else sorted(category["id"] for category in human["categories"])
    check_known(results, images=set(images), categories=None if class_agnostic else set(categories))
    image_index = {image: index for index, image in enumerate(images)}
    category_index = {category: index for index, category in enumerate(categories)}

    def cell(item: dict[str, Any]) -> tuple[int, int]:
        return 0 if class_agnostic else category_index[item["category_id"]], image_index[item["image_id"]]

    objects: dict[tuple[int, int], list[Any]] = defaultdict(list)
    sizes = {image["id"]: (image["height"], image["width"]) for image in human["images"]}
    for annotation in human["annotations"]:
        if not annotation.get("iscrowd", 0):
            objects[cell(annotation)].append(_run_lengths(annotation, *sizes[annotation["image_id"]]))
    if not objects:
        raise AnnotationError("the annotations hold no object that is not a crowd: there is nothing to measure AP on")
    detections: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for result in sorted(results, key=lambda item: -item["score"]):
        detections[cell(result)].append(result)
    places = sorted(detections)
    states = [_true(detections[place], objects.get(place, [])) for place in places]
    found = [place for place in places for _ in detections[place]]
    there = [place for place, masks in objects.items() for _ in masks]
    scores = [float(result["score"]) for place in places for result in detections[place]]
    return MatchArrays(
        image_ids=np.array(images, dtype=np.int64),
        category_ids=np.array(categories, dtype=np.int64),
        thresholds=np.array(IOUS),
        det_image=np.array([image for _, image in found], dtype=np.int64),
        det_category=np.array([category for category, _ in found], dtype=np.int64),
        det_score=np.array(scores, dtype=np.float64),
        det_state=np.concatenate([np.zeros((len(IOUS), 0), dtype=np.int8), *states], axis=1)[None],
        gt_image=np.array([image for _, image in there], dtype=np.int64),
        gt_category=np.array([category for category, _ in there], dtype=np.int64),
        gt_counted=np.ones((1, len(there)), dtype=bool),
    )


def voc_map(
    matches: MatchArrays, *, resamples: int, seed: int
) -> tuple[dict[str, Interval], dict[int, dict[str, float]]]:
    """Mean AP over the classes that have an object, and each such class's AP.

    Args:
        matches: of `voc_matches`.
        resamples: of the images, for 95 % percentile intervals; each averages the classes that have objects in it.
        seed: of the resampling.

    Returns:
        (`map25`, `map50`, `map75` by the 11-point form, `map25_area` … by the other, each in [0, 1] with its bounds;
        category id → its values under the same names with `ap` in place of `map`).
    """
    count = len(matches.image_ids)
    weights = np.concatenate([np.ones((1, count), dtype=np.int64), image_weights(count, resamples, seed=seed)])
    samples = ap_samples(matches, weights)
    some = ~np.isnan(samples)
    means = np.where(some, samples, 0).sum(axis=3) / np.maximum(some.sum(axis=3), 1)
    means[~some.any(axis=3)] = math.nan  # a resample without any object
    intervals: dict[str, Interval] = {}
    present = [(index, int(matches.category_ids[index])) for index in np.flatnonzero(some[0, 0, 0])]
    classes: dict[int, dict[str, float]] = {category: {} for _, category in present}
    for form, name in enumerate(FORMS):
        for column, threshold in enumerate(matches.thresholds):
            key = f"{round(100 * threshold)}" + ("" if name == FORMS[0] else f"_{name}")
            others = means[1:, form, column][~np.isnan(means[1:, form, column])]
            low, high = np.quantile(others, (0.025, 0.975)) if len(others) else (math.nan, math.nan)
            intervals[f"map{key}"] = Interval(float(means[0, form, column]), float(low), float(high))
            for index, category in present:
                classes[category][f"ap{key}"] = float(samples[0, form, column, index])
    return intervals, classes


def ap_samples(matches: MatchArrays, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP with each image counted so often.

    Args:
        weights: (R, N) counts of the images.

    Returns:
        (R, len(FORMS), T, K); NaN where the counted images hold no object of a category.
    """
    found = np.full((len(weights), len(FORMS), len(matches.thresholds), len(matches.category_ids)), math.nan)
    for category in range(len(matches.category_ids)):
        objects = weights[:, matches.gt_image[matches.gt_category == category]].sum(axis=1)
        chosen = np.flatnonzero(matches.det_category == category)
        chosen = chosen[np.argsort(-matches.det_score[chosen], kind="stable")]
        for start in range(0, len(weights), RESAMPLES_AT_ONCE):
            rows = np.flatnonzero(objects[start : start + RESAMPLES_AT_ONCE]) + start
            counts = weights[rows][:, matches.det_image[chosen]]
            for column, states in enumerate(matches.det_state[0][:, chosen]):
                found[rows, :, column, category] = _both_forms(counts, states == TRUE, objects[rows])
    return found


def _both_forms(counts: NDArray[np.int64], true: NDArray[np.bool_], objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, 2) AP of a category. Args: counts (R, D) of its detections by falling score; true (D,); objects (R,) > 0.

    Recall rises, and precision peaks, only where a detection is true: the rest of the curve is not looked at. A recall
    of a tenth is reached by whole numbers, not by fractions that rounding may keep just below it.
    """
    if not true.any():
        return np.zeros((len(counts), len(FORMS)))
    detected = counts.cumsum(axis=1)[:, true]
    hits = counts[:, true].cumsum(axis=1)
    precision = hits / np.maximum(detected, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    levels = np.diff(10 * hits // objects[:, None] + 1, axis=1, prepend=0) / 11
    area = np.diff(hits / objects[:, None], axis=1, prepend=0.0)
    return np.stack([(envelope * levels).sum(axis=1), (envelope * area).sum(axis=1)], axis=1)


def _true(detections: list[dict[str, Any]], objects: list[Any]) -> NDArray[np.int8]:
    """(T, D) TRUE or FALSE for the detections of one image and category by falling score, at each of `IOUS`."""
    states = np.full((len(IOUS), len(detections)), FALSE, dtype=np.int8)
    if not objects:
        return states
    ious = np.asarray(rle.iou([item["segmentation"] for item in detections], objects, [0] * len(objects)))
    best = ious.argmax(axis=1)
    for row, threshold in enumerate(IOUS):
        taken: set[int] = set()
        for index in np.flatnonzero(ious.max(axis=1) >= threshold):
            if best[index] not in taken:
                taken.add(int(best[index]))
                states[row, index] = TRUE
    return states


def _run_lengths(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    if not annotation.get("segmentation"):
        raise AnnotationError(
            f"annotation {annotation['id']} has no mask, which mask AP needs; give a file with human masks"
        )
    return encode_mask(decode_mask(annotation["segmentation"], height=height, width=width))
