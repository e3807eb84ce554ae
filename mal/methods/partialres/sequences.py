"""Points and boxes as sequences of tokens, and back.

A sequence is x, y, x, y, … Tokens 0 … bins − 1 are coordinates, END is `bins`. The two [TASK] tokens, which a sequence
begins with, are inputs only: no logit stands for them. Labels are the inputs shifted
by one place.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNLEARNED = -1  # label of a place whose truth is not known
BOX = 4  # tokens of a box
TASKS = ("box", "mask", "taskwise")

Tokens = NDArray[np.int64]


class Targets(NamedTuple):
    """The decoder's inputs, labels and weights of the loss."""

    inputs: Tokens  # (L,)
    labels: Tokens  # (L,): a coordinate, END, or UNLEARNED
    weights: NDArray[np.float32]  # (L,)


def end(bins: int) -> int:
    """The token after a sequence."""
    return bins


def task_box(bins: int) -> int:
    """The token that asks for a box."""
    return bins + 1


def task_mask(bins: int) -> int:
    """The token that asks for a contour."""
    return bins + 2


def length(task: str, points: int) -> int:
    """L of a task's inputs, for contours of so many points."""
    box, contour = 1 + BOX, 1 + 2 * points
    return {"box": box, "mask": contour, "taskwise": box + contour}[task]


def quantise(points: NDArray[np.float64], bins: int, side: int) -> Tokens:
    """Points → tokens ⌊u / side · bins⌋, those outside the square moved to its border.

    Args:
        points: (k, 2) x and y in pixels of a square.
        side: of the square, in pixels.

    Returns:
        (2k,) x, y, x, y, …, each in 0 … bins − 1.
    """
    return np.clip(np.floor(points.ravel() / side * bins), 0, bins - 1).astype(np.int64)


def read_back(tokens: Tokens, bins: int, side: int, how: str) -> NDArray[np.float64]:
    """Coordinates (k,) in pixels of the square, of tokens (k,) in 0 … bins − 1.

    Args:
        how: `centre` of a token's bin, at most half a bin away from where it came from; or `floor`, its start (R).
    """
    return (tokens + (0.5 if how == "centre" else 0.0)) * side / bins


def points_of(tokens: Tokens, bins: int, side: int, how: str) -> NDArray[np.float64]:
    """The points that a sequence names: it is cut at its first END, and a coordinate left over is dropped.

    Args:
        tokens: (K,), without [TASK]. how: see `read_back`.

    Returns:
        (k, 2) x and y in pixels of the square.
    """
    ends = np.flatnonzero(tokens >= end(bins))
    kept = int(ends[0]) if len(ends) else len(tokens)
    return read_back(tokens[: kept // 2 * 2], bins, side, how).reshape(-1, 2)


def padded(tokens: Tokens, count: int, bins: int) -> Tokens:
    """(k,) with k ≤ count → (count,), filled up with END."""
    return np.concatenate([tokens, np.full(count - len(tokens), end(bins), dtype=np.int64)])


def shuffled(tokens: Tokens, bins: int, rng: np.random.Generator) -> Tokens:
    """The same points in random order; x stays before its y, and END stays at the end.

    Args:
        tokens: (2k,) of one sequence, padded or not.
    """
    pairs = tokens.reshape(-1, 2)
    points = int((pairs[:, 0] < end(bins)).sum())
    return np.concatenate([pairs[:points][rng.permutation(points)], pairs[points:]]).ravel()


def box_targets(box: Tokens, bins: int, *, first: float) -> Targets:
    """Of the training of boxes: x1, y1, x2, y2, END.

    Args:
        box: (4,) tokens x1, y1, x2, y2. first: weight of x1.
    """
    weights = np.array([first, 1, 1, 1, 1], dtype=np.float32)
    return Targets(np.array([task_box(bins), *box]), np.array([*box, end(bins)]), weights)


def mask_targets(contour: Tokens, bins: int, *, end_weight: float) -> Targets:
    """Of the training of contours: t1, …, t2N, END.

    Args:
        contour: (2N,) tokens, padded with END. end_weight: of every END.
    """
    labels = np.array([*contour, end(bins)])
    weights = np.where(labels == end(bins), end_weight, 1).astype(np.float32)
    return Targets(np.array([task_mask(bins), *contour]), labels, weights)


def taskwise_targets(box: Tokens, contour: Tokens | None, bins: int, *, points: int, first: float) -> Targets:
    """Of the training of both: x1, y1, x2, y2, END, t1, …, t2N, END, where the contour follows the object's true box.

    The second [TASK] is fed where y2 is over: there the first token of the contour is due, and END one place before.
    No END counts less than another token (R).

    Args:
        box: (4,) tokens. contour: (2N,), padded; None: the object's mask is not known, so its places are UNLEARNED.
        points: N. first: weight of x1.
    """
    boxes = box_targets(box, bins, first=first)
    if contour is None:
        masks = mask_targets(padded(np.zeros(0, dtype=np.int64), 2 * points, bins), bins, end_weight=1)
        masks = masks._replace(labels=np.full_like(masks.labels, UNLEARNED))
    else:
        masks = mask_targets(contour, bins, end_weight=1)
    return Targets(
        np.concatenate([boxes.inputs, masks.inputs]),
        np.concatenate([boxes.labels, masks.labels]),
        np.concatenate([boxes.weights, masks.weights]),
    )
