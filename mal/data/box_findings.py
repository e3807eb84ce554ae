"""Boxes that do not bound their objects, as far as a file shows it: rotated, in other units, beside their masks."""

import math
from collections.abc import Iterator
from itertools import compress
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mal.data.annotation_checks import CocoDict
from mal.data.box_checks import is_left_over
from mal.data.mask_kinds import MASK, Verdict, extent
from mal.data.own_points import is_boxless
from mal.engine.findings import MISLEADS, NOTE, STOPS, Finding, some

SMALLEST_SIDE = 2  # pixels; boxes not wider and higher than this are neither labelled nor scored (docs/method/mal.md)
RELATIVE = 1.001  # largest coordinate of boxes given as shares of the image
PER_CENT = 100.1
CHANCE = 1e-2  # that all boxes lie where per cents lie, below which they are taken for such
STRAY = 0.5  # IoU of a box with its mask's extent, below which the two do not belong together
STRAYS = 0.05  # share of such boxes from which on they are more than single slips
RLES = 20_000  # of a file that are looked at: each costs a call
_RIGHT_ANGLES = 0.01  # degrees by which a turn may miss 0 or 180


def box_findings(coco: CocoDict, kinds: list[Verdict]) -> list[Finding]:
    """What is suspicious about the boxes of a checked file.

    Args:
        kinds: `verdicts` on the same file.
    """
    boxed = [not is_boxless(annotation) for annotation in coco["annotations"]]
    if not any(boxed):
        return []
    if not all(boxed):
        coco = {**coco, "annotations": list(compress(coco["annotations"], boxed))}
        kinds = list(compress(kinds, boxed))
    boxes = np.array([annotation["bbox"] for annotation in coco["annotations"]], dtype=np.float64)
    by_id = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    sizes = np.array([by_id[a["image_id"]] for a in coco["annotations"]], dtype=np.float64)  # width, height
    units = _units(boxes, sizes)
    if units is not None and units.level == STOPS:
        return [units]
    return [
        *([] if units is None else [units]),
        *_too_small(coco, boxes),
        *_turned(coco, kinds),
        *_corners(coco, boxes),
        *_strays(coco, kinds),
    ]


def _units(boxes: np.ndarray, sizes: np.ndarray) -> Finding | None:
    """Boxes relative to their image."""
    ends = (boxes[:, :2] + boxes[:, 2:]).max()
    if boxes[:, 2:].max() > 0 and boxes.max() <= RELATIVE and sizes.min() > 10 * RELATIVE:
        centred = (
            "" if ends <= RELATIVE else ", and as x and y seem to be the centre, subtract half of width and height"
        )
        return Finding(
            STOPS,
            f"all {len(boxes)} boxes lie within {'one pixel' if ends <= RELATIVE else 'two pixels'}: they seem to be "
            "shares of the image (0 to 1); multiply x and width by the image's width, y and height by its height"
            f"{centred}",
        )
    if ends > PER_CENT or sizes.max() <= 1.2 * PER_CENT:
        return None
    distinct = np.unique(np.concatenate([boxes, sizes], axis=1), axis=0)
    within = np.minimum(1.0, 100 / distinct[:, 4:]).prod(axis=1)  # for a box anywhere in its image
    if np.log(within).sum() >= math.log(CHANCE):
        return None
    return Finding(
        MISLEADS,
        f"all {len(boxes)} boxes end within 100 of the top left corner, and their images are up to "
        f"{sizes[:, 0].max():g} x {sizes[:, 1].max():g} pixels: they seem to be per cent of the image; if so, multiply "
        "x and width by the image's width ÷ 100, y and height by its height ÷ 100",
    )


def _too_small(coco: CocoDict, boxes: np.ndarray) -> Iterator[Finding]:
    small = np.flatnonzero(boxes[:, 2:].min(axis=1) <= SMALLEST_SIDE)
    # of what a tool left over `remarks` speaks
    ids = [a["id"] for a in map(coco["annotations"].__getitem__, small.tolist()) if not is_left_over(a)]
    if len(small) == len(boxes):
        yield Finding(
            STOPS,
            f"none of the {len(boxes)} boxes is wider and higher than {SMALLEST_SIDE} pixels, so none can get a mask; "
            "give boxes in pixels, [x, y, width, height]",
        )
    elif ids:
        yield Finding(
            NOTE,
            f"{of(len(ids), len(boxes))} no wider or no higher than {SMALLEST_SIDE} pixels (annotations {some(ids)}): "
            "too small for a mask, so filled and flagged",
        )


def _turned(coco: CocoDict, kinds: list[Verdict]) -> Iterator[Finding]:
    """Boxes of rectangles that were turned in the tool, written as they were before the turn."""
    turned = [
        (annotation, turn)
        for annotation, (kind, _) in zip(coco["annotations"], kinds, strict=True)
        if (turn := _turn(annotation)) and not (kind == MASK and _fits(annotation))
    ]
    if turned:
        shown = some(f"{annotation['id']}: {turn:g}°" for annotation, turn in turned)
        yield Finding(
            MISLEADS,
            f"{of(len(turned), len(coco['annotations']))} turned (rotation of annotations {shown}), and bbox is "
            "written without the turn, so it does not bound the object; export polygons instead, or replace each bbox "
            "by the one around the turned corners: with the same centre, width w·|cos| + h·|sin| and height "
            "w·|sin| + h·|cos|, and remove rotation",
        )


def _turn(annotation: dict[str, Any]) -> float:
    """Degrees by which a box is turned; 0 where none is given or a half turn brings it back."""
    attributes = annotation.get("attributes")
    given = [annotation.get("rotation"), annotation.get("angle")]
    given += [attributes.get("rotation")] if isinstance(attributes, dict) else []
    for value in given:
        try:
            turn = float(value or 0)
        except (TypeError, ValueError):
            continue
        if math.isfinite(turn) and _RIGHT_ANGLES < turn % 180 < 180 - _RIGHT_ANGLES:
            return turn
    return 0.0


def _corners(coco: CocoDict, boxes: np.ndarray) -> Iterator[Finding]:
    """Two corners in place of position and size, where the annotations' areas give it away."""
    areas = np.array([_number(annotation.get("area")) for annotation in coco["annotations"]])
    x, y, right, bottom = boxes.T
    as_corners, as_sizes = (right - x) * (bottom - y), right * bottom
    close = (right > x) & (bottom > y) & (abs(areas - as_corners) <= 0.01 * as_corners)
    apart = abs(as_sizes - as_corners) > 0.05 * as_sizes
    if (close & apart).sum() > 0.9 * len(boxes):
        yield Finding(
            MISLEADS,
            f"the areas of {int((close & apart).sum())} of {len(boxes)} annotations are those of boxes given as two "
            "corners [x1, y1, x2, y2]; write [x1, y1, x2 - x1, y2 - y1]",
        )


def _strays(coco: CocoDict, kinds: list[Verdict]) -> Iterator[Finding]:
    """Boxes that are not those of their masks."""
    looked = fitting_corners = rles = 0
    stray = []
    for annotation, (kind, _) in zip(coco["annotations"], kinds, strict=True):
        if kind != MASK or annotation.get("iscrowd", 0):
            continue
        rles += isinstance(annotation["segmentation"], dict)
        around = mask_extent(annotation["segmentation"]) if rles <= RLES else extent(annotation["segmentation"])
        if around is None:
            continue
        looked += 1
        if overlap(around, annotation["bbox"]) >= STRAY:
            continue
        stray.append(annotation["id"])
        x, y, right, bottom = annotation["bbox"]
        fitting_corners += right > x and bottom > y and overlap(around, [x, y, right - x, bottom - y]) >= STRAY
    if not stray:
        return
    corners = fitting_corners > 0.8 * len(stray)
    advice = (
        "read as two corners [x1, y1, x2, y2] they are: write [x1, y1, x2 - x1, y2 - y1]"
        if corners
        else "do box and mask belong to the same object?"
    )
    yield Finding(
        MISLEADS if corners or len(stray) > STRAYS * looked else NOTE,
        f"{of(len(stray), looked)} not around the mask that goes with it (IoU with the mask's extent under {STRAY:g}; "
        f"annotations {some(stray)}); {advice}",
    )


def overlap(corners: tuple[float, float, float, float], bbox: list[float]) -> float:
    """IoU of a rectangle (x0, y0, x1, y1) and an xywh box, in [0, 1]; sides under a pixel count as one."""
    x0, y0, x1, y1 = corners
    x, y, w, h = bbox
    w, h, wide, high = max(w, 1), max(h, 1), max(x1 - x0, 1), max(y1 - y0, 1)
    inside = max(0.0, min(x0 + wide, x + w) - max(x0, x)) * max(0.0, min(y0 + high, y + h) - max(y0, y))
    return inside / (w * h + wide * high - inside)


def mask_extent(segmentation: Any) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) around a valid mask; None where it shows nothing."""
    if isinstance(segmentation, list):
        return extent(segmentation)
    height, width = segmentation["size"]
    coded = rle.frPyObjects(segmentation, height, width) if isinstance(segmentation["counts"], list) else segmentation
    x, y, w, h = rle.toBbox(coded).tolist()
    return (x, y, x + w, y + h) if w > 0 and h > 0 else None


def _fits(annotation: dict[str, Any]) -> bool:
    """Whether a box is that of its mask."""
    around = mask_extent(annotation["segmentation"])
    return around is not None and overlap(around, annotation["bbox"]) >= STRAY


def of(count: int, total: int) -> str:
    """`1 of 8 boxes is`, `2 of 8 boxes are`."""
    return f"{count} of {total} boxes {'is' if count == 1 else 'are'}"


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else math.nan
