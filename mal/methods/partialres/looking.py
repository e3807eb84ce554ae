"""Attention and points of a network for some expressions, in the square that it is shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from mal.data.expressions import words
from mal.engine.precision import autocast
from mal.methods.partialres.checkpoint import Trained
from mal.methods.partialres.contours import contour_points
from mal.methods.partialres.filling import mask_of
from mal.methods.partialres.infer import Asked, Inputs, Shown, decoded, inputs_of
from mal.methods.partialres.network import PartialRes
from mal.methods.partialres.polygons import scale, to_square
from mal.methods.partialres.sequences import points_of, task_box, task_mask
from mal.methods.partialres.truths import Truths

Json = dict[str, Any]
Arrays = dict[str, np.ndarray]


@torch.inference_mode()
def look(trained: Trained, answers: Sequence[Json], truths: Truths, images: Path) -> Arrays:
    """n expressions at equal steps of those that are scored; nothing is picked by hand.

    Args:
        answers: of `predictions.refer`, of which expressions are taken.
        images: folder of the image files.

    Returns:
        S the square's side, N the points of a contour, (h, w) the grid of the memory: `ids`, `image_ids` (n,),
        `expressions` (n,); `images` (n, S, S, 3) uint8; `valid` (n, 2) width and height of the image in the square;
        `truth`, `mask` (n, S, S) bool, human and predicted; `points`, `resampled`, `true_points` (n, N, 2) predicted,
        of the filled prediction, of the truth, in pixels of the square, nan where there are fewer; `attention`
        (n, 2N, h, w) float32: where the last layer looks for each token, nan behind the last.
    """
    own = trained.config.partialres
    side, sequence = own.image.side, own.sequence
    scored = truths.known(answers)
    chosen = np.linspace(0, len(scored) - 1, min(own.testing.looks, len(scored))).round().astype(int)
    shown, rows = Shown(images, side), []
    for answer in (scored[place] for place in chosen):
        entry = truths.entries[answer["image_id"]]
        asked = Asked(entry, int(answer["id"]), tuple(words(answer["expression"])))
        given = inputs_of(trained, [asked], shown)
        memory, (tokens,) = decoded(trained, given, boxes=False)
        ends = np.flatnonzero(tokens >= sequence.bins)
        count = int(ends[0]) if len(ends) else 2 * sequence.points
        inputs = _inputs(trained, given, tokens[:count])
        assert isinstance(trained.network, PartialRes)
        with autocast(given.images.device, trained.dtype):
            seen = trained.network.attention(memory, torch.tensor([inputs], device=given.images.device))
        attention = np.full((2 * sequence.points, *seen.shape[-2:]), np.nan, dtype=np.float32)
        attention[:count] = seen[0, len(inputs) - count - 1 : len(inputs) - 1].float().cpu().numpy()
        true, _ = truths.mask(asked.id)
        height, width = true.shape
        factor = scale(height, width, side)
        points = points_of(tokens, sequence.bins, side, sequence.read_back)
        mask = mask_of(points / factor, height, width, sequence.fill)
        rows.append(
            {
                "ids": np.array(asked.id),
                "image_ids": np.array(entry["id"]),
                "expressions": np.array(answer["expression"]),
                "images": shown(entry)[0].permute(1, 2, 0).numpy(),
                "valid": given.valid[0].cpu().numpy() * side,
                "truth": _in_square(true, side),
                "mask": _in_square(mask, side),
                "points": _filled_up(points, sequence.points),
                "resampled": _sampled(mask, trained),
                "true_points": _sampled(true, trained),
                "attention": attention,
            }
        )
    if not rows:
        return {"ids": np.zeros(0, dtype=np.int64)}
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _inputs(trained: Trained, given: Inputs, tokens: NDArray[np.int64]) -> list[int]:
    """What the decoder is fed: [TASK] and the tokens; with `taskwise` behind the network's own box."""
    sequence = trained.config.partialres.sequence
    before: list[int] = []
    if sequence.task == "taskwise":
        _, (box,) = decoded(trained, given, boxes=True)
        before = [task_box(sequence.bins), *box.tolist()]
    return [*before, task_mask(sequence.bins), *tokens.tolist()]


def _sampled(mask: NDArray[np.bool_], trained: Trained) -> NDArray[np.float64]:
    """(N, 2) points of a mask's contour in the square."""
    own = trained.config.partialres
    points = contour_points(mask, own.sequence.points, own.sequence.sampler)
    return _filled_up(to_square(points, mask.shape[0], mask.shape[1], own.image.side), own.sequence.points)


def _filled_up(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    whole = np.full((count, 2), np.nan)
    whole[: len(points)] = points[:count]
    return whole


def _in_square(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask of an image as the square shows it, by the nearest pixel."""
    factor, whole = scale(mask.shape[0], mask.shape[1], side), np.zeros((side, side), dtype=bool)
    size = [max(1, round(length * factor)) for length in mask.shape]
    tensor = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8))[None]
    seen = transforms.resize(tensor, size, interpolation=InterpolationMode.NEAREST_EXACT)
    whole[: size[0], : size[1]] = seen[0].numpy().astype(bool)
    return whole
