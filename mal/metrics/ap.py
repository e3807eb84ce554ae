"""Average precision by COCO's and LVIS's protocols, by faster-coco-eval, and the matches behind it, kept by image."""

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mal.data.annotations import CocoDict, decode_mask, encode_mask
from mal.errors import AnnotationError, ConfigError
from mal.metrics.bootstrap import METRICS as METRICS_OF_AREAS
from mal.metrics.federated import FREQUENCIES, Federation, check_federated, federation
from mal.metrics.matches import AREAS, THRESHOLDS, MatchArrays, match

if TYPE_CHECKING:
    from faster_coco_eval import COCOeval_faster  # imports matplotlib

METRICS = {
    "ap": "AP_all",
    "ap50": "AP_50",
    "ap75": "AP_75",
    "ap_S": "AP_small",
    "ap_M": "AP_medium",
    "ap_L": "AP_large",
}


def average_precision(
    human: CocoDict,
    results: list[dict[str, Any]],
    *,
    iou_type: str = "segm",
    max_detections: int = 100,
    class_agnostic: bool = False,
    federated: bool = False,
) -> tuple[dict[str, float], MatchArrays]:
    """AP of detections against human annotations.

    Args:
        human: a COCO file. Crowds are neither found nor missed. Where an annotation has no `area`, its mask's (its
            box's for `bbox`) is taken.
        results: COCO results: image_id, category_id, score, and `segmentation` as RLE or `bbox`.
        iou_type: `segm` or `bbox`.
        max_detections: of an image and category, for LVIS of an image; the rest, by score, are dropped.
        class_agnostic: all categories count as one.
        federated: LVIS's protocol. In each image only the categories it was searched for are judged, and a detection
            too many is no fault where a category is not exhaustively annotated.

    Returns:
        ({"ap", "ap50", "ap75", "ap_S", "ap_M", "ap_L"} and, for LVIS, {"ap_r", "ap_c", "ap_f"}, in [0, 1], those
        without objects left out; the matches). AP averages IoU .5 to .95, 101 recalls, and categories that have
        objects. For LVIS, the matches hold only the detections that are judged.

    Raises:
        AnnotationError: nothing to find, a result that belongs to no image or category of the file, or a file without
            what LVIS's protocol needs.
    """
    if federated and class_agnostic:
        raise ConfigError("LVIS's protocol judges each category by itself; use data.class_agnostic=false")
    if federated:
        check_federated(human)
    check_known(
        results,
        images={image["id"] for image in human["images"]},
        categories=None if class_agnostic else {category["id"] for category in human["categories"]},
    )
    names = tuple(sorted(entry["id"] for entry in human[kind]) for kind in ("images", "categories"))
    human, results = _renumbered(human, results, *names, class_agnostic=class_agnostic)
    known = federation(human) if federated else None
    images = sorted(image["id"] for image in human["images"])
    categories = [1] if class_agnostic else sorted(category["id"] for category in human["categories"])
    objects = _objects(human, iou_type=iou_type, class_agnostic=class_agnostic)
    if not any(not item["iscrowd"] for item in objects):
        raise AnnotationError("the annotations hold no object that is not a crowd: there is nothing to measure AP on")
    if known is not None:
        results = known.judged(results, max_detections=max_detections)
    detections = _detections(results, iou_type=iou_type, class_agnostic=class_agnostic)
    if known is not None:
        metrics, ious = _by_parts(human, known, objects, detections, iou_type, max_detections)
        matches = _matches(ious, images, categories, objects, detections, max_detections, known.not_exhaustive)
        return metrics, _named(matches, *names, class_agnostic=class_agnostic)
    kinds = [{"id": 1, "name": "object"}] if class_agnostic else human["categories"]
    evaluator = _evaluate(human["images"], kinds, objects, detections, iou_type, max_detections)
    values = evaluator.stats_as_dict
    metrics = {name: values[theirs] for name, theirs in METRICS.items() if values[theirs] > -1}
    matches = _matches(evaluator.ious, images, categories, objects, detections, max_detections, {})
    return metrics, _named(matches, *names, class_agnostic=class_agnostic)


def _renumbered(
    human: CocoDict, results: list[dict[str, Any]], images: list[int], categories: list[int], *, class_agnostic: bool
) -> tuple[CocoDict, list[dict[str, Any]]]:
    """A file and results whose image and category ids are 1, 2, … in the order of the given ones.

    faster-coco-eval takes ids through doubles: those of 2**53 and more, such as hashes, collide there.
    """
    image_of = {identity: number for number, identity in enumerate(images, start=1)}
    category_of = {identity: number for number, identity in enumerate(categories, start=1)}

    def entry(item: dict[str, Any]) -> dict[str, Any]:
        # results on one class for all may bear any category
        category = 1 if class_agnostic else category_of[item["category_id"]]
        return {**item, "image_id": image_of[item["image_id"]], "category_id": category}

    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    return {
        "images": [
            {**image, "id": image_of[image["id"]]}
            | {key: [category_of[c] for c in image[key] if c in category_of] for key in lists if image.get(key)}
            for image in human["images"]
        ],
        "categories": [{**category, "id": category_of[category["id"]]} for category in human["categories"]],
        "annotations": [entry(annotation) for annotation in human["annotations"]],
    }, [entry(result) for result in results]


def _named(matches: MatchArrays, images: list[int], categories: list[int], *, class_agnostic: bool) -> MatchArrays:
    """Matches with the ids of the files again."""
    return replace(
        matches,
        image_ids=np.array(images, dtype=np.int64),
        category_ids=matches.category_ids if class_agnostic else np.array(categories, dtype=np.int64),
    )


def _objects(human: CocoDict, *, iou_type: str, class_agnostic: bool) -> list[dict[str, Any]]:
    """Copies for the evaluator, numbered from 1: to COCO's code an object with id 0 is never found."""
    sizes = {int(image["id"]): (int(image["height"]), int(image["width"])) for image in human["images"]}
    objects = []
    for number, annotation in enumerate(human["annotations"], start=1):
        item: dict[str, Any] = {
            "id": number,
            "image_id": int(annotation["image_id"]),
            "category_id": 1 if class_agnostic else int(annotation["category_id"]),
            "bbox": [float(side) for side in annotation["bbox"]],
            "iscrowd": int(annotation.get("iscrowd", 0)),
        }
        if iou_type == "segm":
            if not annotation.get("segmentation"):
                raise AnnotationError(
                    f"annotation {annotation['id']} has no mask, which mask AP needs; give a file with human masks"
                )
            height, width = sizes[item["image_id"]]
            mask = decode_mask(annotation["segmentation"], height=height, width=width)
            item["segmentation"] = encode_mask(mask)
            item["area"] = float(annotation.get("area", mask.sum()))
        else:
            item["area"] = float(annotation.get("area", item["bbox"][2] * item["bbox"][3]))
        objects.append(item)
    return objects


def _detections(results: list[dict[str, Any]], *, iou_type: str, class_agnostic: bool) -> list[dict[str, Any]]:
    """Copies for the evaluator. A detection's size is its mask's area for `segm`, its box's for `bbox`."""
    detections = []
    for number, result in enumerate(results, start=1):
        item: dict[str, Any] = {
            "id": number,
            "image_id": int(result["image_id"]),
            "category_id": 1 if class_agnostic else int(result["category_id"]),
            "score": float(result["score"]),
            "iscrowd": 0,
        }
        if iou_type == "segm":
            item["segmentation"] = result["segmentation"]
            item["area"] = float(rle.area(result["segmentation"]))
            item["bbox"] = [0.0, 0.0, 0.0, 0.0]
        else:
            item["bbox"] = [float(side) for side in result["bbox"]]
            item["area"] = item["bbox"][2] * item["bbox"][3]
        detections.append(item)
    return detections


def check_known(results: list[dict[str, Any]], *, images: set[int], categories: set[int] | None) -> None:
    """Refuse results of images or categories (None: any) that the annotation file does not have.

    Raises:
        AnnotationError: names the first.
    """
    for key, known in (("image_id", images), ("category_id", categories)):
        for index, result in enumerate(results):
            if known is not None and result[key] not in known:
                raise AnnotationError(
                    f"result {index} has {key} {result[key]}, which the annotation file does not; "
                    "evaluate it against the file it was predicted from"
                )


def _evaluate(
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    objects: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    iou_type: str,
    max_detections: int,
    *,
    lvis_style: bool = False,
) -> "COCOeval_faster":
    """Run faster-coco-eval. The data sets are built by hand: its `loadRes` refuses an empty list."""
    from faster_coco_eval import COCO, COCOeval_faster

    header = {"images": images, "categories": categories}
    truth = COCO({**header, "annotations": objects})
    found = COCO({**header, "annotations": detections})
    evaluator = COCOeval_faster(truth, found, iouType=iou_type, print_function=lambda *_: None, lvis_style=lvis_style)
    evaluator.params.maxDets = [max_detections]
    evaluator.run()
    return evaluator


def _by_parts(
    human: CocoDict,
    known: Federation,
    objects: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    iou_type: str,
    max_detections: int,
) -> tuple[dict[str, float], dict[tuple[int, int], Any]]:
    """LVIS's metrics, and the IoUs of each image and category that have both objects and detections.

    Category by category the protocol looks only at images that were searched for it, so some categories are evaluated
    at a time, on these images: all 1,203 on all 19,809 of LVIS v1 val would take about 30 GB.
    """
    frequencies = {int(category["id"]): category["frequency"] for category in human["categories"]}
    parts: list[NDArray[np.float64]] = []
    of_part: list[str] = []
    ious: dict[tuple[int, int], Any] = {}
    for chosen, searched in known.parts(sorted(frequencies)):
        images = [image for image in human["images"] if image["id"] in searched]
        categories = [category for category in human["categories"] if category["id"] in chosen]
        there, here = ([item for item in items if item["category_id"] in chosen] for items in (objects, detections))
        evaluator = _evaluate(images, categories, there, here, iou_type, max_detections, lvis_style=True)
        parts.append(np.asarray(evaluator.eval["precision"])[..., 0])  # (T, R, K, A); -1 where there is no object
        of_part += [frequencies[category] for category in sorted(chosen)]
        ious |= {cell: values for cell, values in evaluator.ious.items() if len(values)}
    precision, frequency = np.concatenate(parts, axis=2), np.array(of_part)
    values = {
        name: precision[
            slice(None) if threshold is None else np.isclose(THRESHOLDS, threshold), :, :, list(AREAS).index(area)
        ]
        for name, (area, threshold) in METRICS_OF_AREAS.items()
    }
    values |= {f"ap_{letter}": precision[:, :, frequency == letter, 0] for letter in FREQUENCIES}
    return {name: float(value[value > -1].mean()) for name, value in values.items() if (value > -1).any()}, ious


def _matches(
    ious: dict[tuple[int, int], Any],
    images: list[int],
    categories: list[int],
    objects: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    max_detections: int,
    not_exhaustive: dict[int, set[int]],
) -> MatchArrays:
    """The matches behind an evaluation, from its IoUs. not_exhaustive: see `Federation`; empty for COCO."""
    image_index = {image: index for index, image in enumerate(images)}
    objects_at, detections_at = _by_cell(objects), _by_cell(detections)
    kept: list[dict[str, Any]] = []
    states = [np.zeros((len(AREAS), len(THRESHOLDS), 0), dtype=np.int8)]
    for category, image in sorted((category, image) for image, category in detections_at):
        here = sorted(detections_at[image, category], key=lambda item: -item["score"])[:max_detections]
        there = objects_at.get((image, category), [])
        crowd = np.array([bool(item["iscrowd"]) for item in there], dtype=bool)
        states.append(
            match(
                np.asarray(ious.get((image, category), []), dtype=np.float64).reshape(len(here), len(there)),
                crowd=crowd,
                ignored=_outside(there) | crowd,
                outside=_outside(here) | (category in not_exhaustive.get(image, ())),
            )
        )
        kept += here
    category_index = {category: index for index, category in enumerate(categories)}
    return MatchArrays(
        image_ids=np.array(images, dtype=np.int64),
        category_ids=np.array(categories, dtype=np.int64),
        thresholds=THRESHOLDS,
        det_image=np.array([image_index[item["image_id"]] for item in kept], dtype=np.int64),
        det_category=np.array([category_index[item["category_id"]] for item in kept], dtype=np.int64),
        det_score=np.array([item["score"] for item in kept], dtype=np.float64),
        det_state=np.concatenate(states, axis=2),
        gt_image=np.array([image_index[item["image_id"]] for item in objects], dtype=np.int64),
        gt_category=np.array([category_index[item["category_id"]] for item in objects], dtype=np.int64),
        gt_counted=~(_outside(objects) | np.array([bool(item["iscrowd"]) for item in objects], dtype=bool)),
    )


def _by_cell(items: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    cells = defaultdict(list)
    for item in items:
        cells[item["image_id"], item["category_id"]].append(item)
    return cells


def _outside(items: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """(A, len(items)): whose area lies outside each range; both edges belong to a range."""
    area = np.array([item["area"] for item in items], dtype=np.float64)
    return np.stack([(area < low) | (area > high) for low, high in AREAS.values()])
