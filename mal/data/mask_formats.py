"""What a mask is in a file: polygons, or run lengths (RLE) as text or as a list."""

import math
import re
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mal.engine.faults import Fault, show
from mal.errors import AnnotationError

LONGEST = 10_000_000  # pixels of a polygon's outline: pycocotools takes 80 bytes for each
_RLE_TEXT = re.compile(r"[0-o]*[0-O]")  # six bits a character; the last of a number lacks the continuation bit


def decode_mask(segmentation: Any, *, height: int, width: int) -> np.ndarray:
    """The pixels of a mask in a file.

    Args:
        segmentation: polygons [[x1, y1, x2, y2, ...], ...] in pixels (their union, rasterised as pycocotools does), or
            an RLE {"size": [height, width], "counts": text or list of run lengths, column by column}.

    Returns:
        bool (height, width), in Fortran order, which `encode_mask` takes without a copy.

    Raises:
        AnnotationError: it is not a mask for an image of this size.
    """
    runs = decode_runs(segmentation, height=height, width=width)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def decode_runs(segmentation: Any, *, height: int, width: int) -> np.ndarray:
    """The run lengths of a mask in a file, without its pixels: int64, background first, column by column.

    Args and errors are those of `decode_mask`.
    """
    problem = mask_problem(segmentation, height=height, width=width)
    if problem:
        raise AnnotationError(problem)
    if isinstance(segmentation, list):
        return run_lengths(rle.merge(rle.frPyObjects(segmentation, height, width))["counts"].decode("ascii"))
    if isinstance(segmentation["counts"], list):
        return np.array(segmentation["counts"], dtype=np.int64)
    runs = run_lengths(segmentation["counts"])
    # pycocotools' own decoder gives uninitialised memory for runs that end early
    if runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise AnnotationError(
            f"the RLE's counts {show(segmentation['counts'])} do not fill {height} x {width} pixels; "
            "write the mask again"
        )
    return runs


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask as compressed RLE {"size": [height, width], "counts": text}.

    Args:
        mask: bool (height, width), any memory order.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise TypeError(f"a mask is a bool array of two dimensions, not {mask.dtype} of shape {mask.shape}")
    coded = rle.encode(np.asfortranarray(mask).view(np.uint8))
    return {"size": [int(side) for side in coded["size"]], "counts": coded["counts"].decode("ascii")}


def encode_runs(edges: np.ndarray, *, height: int, width: int) -> dict[str, Any]:
    """A mask as compressed RLE, the same as `encode_mask` gives, without its pixels.

    Args:
        edges: int64, strictly ascending, in 0 … height·width: where runs of foreground begin and end, in turns,
            counted down the columns.
    """
    runs = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and runs[-1] == 0:  # the last pixel is foreground: no run of background follows
        runs = runs[:-1]
    coded = rle.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": coded["counts"].decode("ascii")}


def run_lengths(counts: str) -> np.ndarray:
    """Run lengths of a compressed RLE: int64, background first, column by column.

    From the fourth on a number of the text is the difference to the last but one (pycocotools, maskApi.c, rleFrString).
    """
    values, _ = rle_numbers(counts)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def rle_numbers(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers in compressed RLE text as they stand there, and the place of each one's last character: two int64.

    Five bits a character, low ones first, in two's complement.
    """
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    stops = np.flatnonzero(last)
    place = np.arange(len(codes)) - np.repeat(starts, stops - starts + 1)
    values = np.add.reduceat((codes & 31) << np.minimum(5 * place, 55), starts)
    values -= ((codes[stops] & 16) > 0) * (np.int64(1) << np.minimum(5 * (place[stops] + 1), 60))
    return values, stops


def is_rle(value: dict[str, Any], *, area: int | None) -> bool:
    """Whether an object is run lengths, not something else that has a key `counts`: whether they fill its size.

    Args:
        area: of the image, in pixels, for an object that does not say its size.
    """
    counts, size = value.get("counts"), value.get("size")
    if isinstance(size, list) and len(size) == 2 and all(type(side) in (int, float) and side > 0 for side in size):
        area = size[0] * size[1]
    if isinstance(counts, str) and _RLE_TEXT.fullmatch(counts):
        runs = run_lengths(counts)
        return bool(runs.min() >= 0 and runs.max() <= (area or 0) and runs.sum() == area)
    if not isinstance(counts, list) or not counts:
        return False
    return all(type(count) in (int, float) and count >= 0 for count in counts) and sum(counts) == area


def mask_problem(segmentation: Any, *, height: int, width: int) -> str | None:
    """The sentence of `mask_fault`."""
    fault = mask_fault(segmentation, height=height, width=width)
    return fault and fault.text


def mask_fault(segmentation: Any, *, height: int, width: int) -> Fault | None:
    """What is wrong with a segmentation for an image of this size; None where it is polygons or an RLE.

    Of a compressed RLE only the size and the alphabet are checked; `decode_mask` checks the rest.
    """
    if not segmentation:
        text = f"segmentation is {show(segmentation)}, and a mask is needed; draw it, or remove the annotation"
        return Fault("no mask", text)
    if isinstance(segmentation, list):
        return next(filter(None, (_polygon_fault(p, height, width) for p in segmentation)), None)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        text = f"segmentation is {show(segmentation)}; it must be a list of polygons or an RLE with size and counts"
        return Fault("neither polygons nor an RLE", text)
    return _rle_fault(segmentation.get("size"), segmentation["counts"], height, width)


def _rle_fault(size: Any, counts: Any, height: int, width: int) -> Fault | None:
    if size != [height, width]:
        turned = "; the two seem swapped" if size == [width, height] else ""
        return Fault(
            "an RLE of another size",
            f"the RLE's size is {show(size)} and [height, width] of the image is {[height, width]}{turned}; correct it",
        )
    if isinstance(counts, str):
        if _RLE_TEXT.fullmatch(counts):
            return None
        text = f"the RLE's counts {show(counts)} are not COCO's compressed text; write it again with pycocotools"
        return Fault("an RLE of unknown text", text)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        text = f"the RLE's counts are {show(counts)}; they must be text or a list of whole numbers >= 0"
        return Fault("an RLE without run lengths", text)
    if sum(counts) != height * width:
        return Fault(
            "an RLE that does not fill its image",
            f"the RLE's counts sum to {sum(counts)} and the image has {height} x {width} = {height * width} pixels; "
            "write the mask again",
        )
    return None


def _polygon_fault(polygon: Any, height: int, width: int) -> Fault | None:
    if type(polygon) is not list:
        text = f"a polygon is {show(polygon)}; segmentation must be a list of lists [[x1, y1, x2, y2, ...], ...]"
        return Fault("a polygon that is no list", text)
    if polygon and all(type(corner) is list for corner in polygon):
        text = f"polygon {show(polygon)} holds lists; write its corners one after another, [x1, y1, x2, y2, ...]"
        return Fault("a polygon of lists", text)
    if len(polygon) < 6 or len(polygon) % 2:
        text = f"polygon {show(polygon)} has {len(polygon)} numbers; it needs an even number, at least 6; remove it"
        return Fault("a polygon of too few or an odd number of values", text)
    if not set(map(type, polygon)) <= {int, float}:
        wrong = next(value for value in polygon if type(value) not in (int, float))
        text = f"polygon {show(polygon)} holds {show(wrong)}, which is not a number; write numbers without quotes"
        return Fault("a polygon of other things than numbers", text)
    low, high, side = min(polygon), max(polygon), max(height, width)
    if low < -side or high > 2 * side:  # a mistaken unit; and rasterising far corners would eat all memory
        return Fault(
            "a polygon far from its image",
            f"polygon {show(polygon)} reaches from {_short(low)} to {_short(high)}, far from its image of "
            f"{width} x {height} pixels; its coordinates must be pixels",
        )
    if len(polygon) * side > LONGEST and _length(polygon) > LONGEST:
        text = f"polygon {show(polygon)} is longer than {LONGEST:,} pixels, too much to draw; simplify it"
        return Fault("a polygon too long to draw", text)
    if math.isnan(sum(polygon)):
        text = f"polygon {show(polygon)} holds NaN, which is no pixel position; draw it again"
        return Fault("a polygon with NaN", text)
    return None


def _length(polygon: list[float]) -> float:
    """Of an outline, in steps from pixel to pixel."""
    x, y = np.array(polygon, dtype=np.float64).reshape(-1, 2).T
    return float(np.maximum(np.abs(x - np.roll(x, 1)), np.abs(y - np.roll(y, 1))).sum())


def _short(value: float) -> str:
    return f"{value:g}" if type(value) is float else show(value)  # a whole number may be too large for a float
