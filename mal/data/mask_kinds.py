"""What each annotation of a file has for a mask: one answer, from the parsed value, for everybody who asks."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mal.data.annotation_checks import CocoDict
from mal.data.box_checks import is_absent
from mal.data.mask_formats import decode_mask, mask_problem, rle_numbers, run_lengths
from mal.errors import AnnotationError

ABSENT = "absent"  # none is given: no key, null, "", [], [[]], {}, or run lengths without a run
BROKEN = "broken"  # what is given is no mask for this image
BLANK = "blank"  # a mask without foreground
BOX = "box"  # a mask that only repeats its box
MASK = "mask"
GIVEN = (BOX, MASK)

BOX_TOLERANCE = 1.0  # pixels by which a mask that repeats its box may differ from it at each side
_MISSING = 0.1  # share of its own extent that a polygon leaves out at most if it is a rectangle
_CORNERS = 40  # numbers of a polygon; one of more is drawn by hand
_CODES = 24  # characters other than the "0" of equal columns, of a blank mask or a rectangle: at most four numbers
_BATCH = 4096  # RLE texts whose lengths are added up at a time


class Verdict(NamedTuple):
    """The kind of an annotation's mask, and for a broken one the reason."""

    kind: str
    reason: str = ""


_PLAIN = {kind: Verdict(kind) for kind in (ABSENT, BLANK, BOX, MASK)}


def verdicts(coco: CocoDict) -> list[Verdict]:
    """The verdict on each annotation of a checked file, in its order.

    No mask is decoded but those that may be blank. 860,000 polygons take seconds.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations = coco["annotations"]
    found = [_verdict(annotation, *sizes[annotation["image_id"]]) for annotation in annotations]
    for index, reason in _unfilled(annotations, found, sizes):
        found[index] = Verdict(BROKEN, reason)
    return found


def stands_for_box(annotation: dict[str, Any], kind: str) -> bool:
    """Whether a mask is a polygon that only repeats its box, as tools write boxes; run lengths that do were painted.

    Args:
        kind: the verdict on it.
    """
    return kind == BOX and not isinstance(annotation["segmentation"], dict)


def with_masks(coco: CocoDict) -> CocoDict:
    """The part of a file whose annotations have a mask that can be decoded."""
    kinds = verdicts(coco)
    kept = [a for a, (kind, _) in zip(coco["annotations"], kinds, strict=True) if kind not in (ABSENT, BROKEN)]
    return {**coco, "annotations": kept}


def extent(segmentation: Any) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) around valid polygons; None for an RLE."""
    if not isinstance(segmentation, list):
        return None
    if len(segmentation) == 1:
        xs, ys = segmentation[0][::2], segmentation[0][1::2]
    else:
        xs, ys = [x for p in segmentation for x in p[::2]], [y for p in segmentation for y in p[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _verdict(annotation: dict[str, Any], height: int, width: int) -> Verdict:
    segmentation = annotation.get("segmentation")
    if is_absent(segmentation):
        return _PLAIN[ABSENT]
    problem = mask_problem(segmentation, height=height, width=width)
    if problem is not None:
        return Verdict(BROKEN, problem)
    if isinstance(segmentation, list):
        return _PLAIN[_polygon_kind(segmentation, annotation["bbox"], height, width)]
    assert isinstance(segmentation, dict)
    return _PLAIN[_rle_kind(segmentation["counts"], annotation["bbox"], height, width)]


def _polygon_kind(polygons: list[list[float]], bbox: list[float], height: int, width: int) -> str:
    if len(polygons) > 1 or len(polygons[0]) > _CORNERS:
        return MASK
    (polygon,) = polygons
    xs, ys = polygon[::2], polygon[1::2]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if right - left < 1 or bottom - top < 1:
        return MASK if decode_mask(polygons, height=height, width=width).any() else BLANK
    if not _close((left, top, right, bottom), bbox):
        return MASK
    area = sum(xs[i - 1] * y - x * ys[i - 1] for i, (x, y) in enumerate(zip(xs, ys, strict=True))) / 2
    wide, high = right - left, bottom - top
    missing = wide * high - abs(area)
    return BOX if missing <= min(BOX_TOLERANCE * (wide + high), _MISSING * wide * high) else MASK


def _rle_kind(counts: str | list[int], bbox: list[float], height: int, width: int) -> str:
    if isinstance(counts, str):
        if len(counts) - counts.count("0") > _CODES:
            return MASK
        runs = run_lengths(counts)
    else:
        if len(counts) > 2 and counts[1] != counts[-1 - len(counts) % 2]:
            return MASK
        runs = np.array(counts)
    inside = runs[1::2]
    if not inside.any():
        return BLANK
    if runs.min() < 0 or runs.sum() != height * width:
        return MASK  # `_unfilled` says what it is
    rectangle = _rectangle(runs, height)
    return BOX if rectangle is not None and _close(rectangle, bbox) else MASK


def _rectangle(runs: np.ndarray, height: int) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) of a mask that is a rectangle, from its run lengths, column by column."""
    inside, between = runs[1::2], runs[2:-1:2] if len(runs) % 2 else runs[2::2]
    left, top = divmod(int(runs[0]), height)
    if len(inside) == 1:
        columns, rest = divmod(int(inside[0]), height)
        if top == 0 and rest == 0:
            return left, 0, left + columns, height
        return (left, top, left + 1, top + int(inside[0])) if top + inside[0] <= height else None
    tall = int(inside[0])
    if (inside != tall).any() or (between[: len(inside) - 1] != height - tall).any():
        return None
    return left, top, left + len(inside), top + tall


def _close(corners: tuple[float, float, float, float], bbox: list[float]) -> bool:
    x, y, w, h = bbox
    return all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(corners, (x, y, x + w, y + h), strict=True))


def _unfilled(
    annotations: list[dict[str, Any]], found: list[Verdict], sizes: dict[int, tuple[int, int]]
) -> Iterator[tuple[int, str]]:
    """Index and reason of the compressed RLEs that do not fill their image."""
    texts = [
        index
        for index, annotation in enumerate(annotations)
        if found[index].kind in GIVEN and isinstance(annotation.get("segmentation"), dict)
        if isinstance(annotation["segmentation"]["counts"], str)
    ]
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        totals = _lengths([annotations[index]["segmentation"]["counts"] for index in part])
        for index, total in zip(part, totals.tolist(), strict=True):
            height, width = sizes[annotations[index]["image_id"]]
            if total != height * width:
                try:  # the words of the decoder
                    decode_mask(annotations[index]["segmentation"], height=height, width=width)
                except AnnotationError as error:
                    yield index, str(error)


def _lengths(texts: list[str]) -> np.ndarray:
    """The sum of the run lengths of each RLE text: (len(texts),) int64, without one call a mask (`run_lengths`)."""
    values, stops = rle_numbers("".join(texts))
    ends = np.searchsorted(stops, np.cumsum([len(text) for text in texts]) - 1) + 1  # values up to each text's end
    firsts = np.concatenate([[0], ends[:-1]])
    counts = ends - firsts
    inner = np.arange(len(values)) - np.repeat(firsts, counts)
    # from the fourth on a number is the difference to the last but one, so it counts as often as such follow
    often = np.where(inner == 0, 1, (np.repeat(counts, counts) - 1 - inner) // 2 + 1)
    return np.add.reduceat(values * often, firsts)
