"""Predictions of a split's expressions as a file: refer.json."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mal.data.annotations import decode_mask
from mal.data.mask_formats import encode_mask
from mal.engine import ranks
from mal.engine.files import read_json
from mal.engine.progress import Progress
from mal.methods.partialres.checkpoint import Trained
from mal.methods.partialres.filling import DIGITS, mask_of
from mal.methods.partialres.infer import Asked, Shown, batches, find, locate

Json = dict[str, Any]
FILE = "refer.json"


def refer(trained: Trained, asked: Sequence[Asked], images: Path, *, batch: int, boxes: bool) -> list[Json]:
    """A network's answers, in the order of what was asked; several processes take turns at batches, each gets all.

    Args:
        images: folder of the image files.
        batch: expressions at a time.
        boxes: ask for boxes, not masks.

    Returns:
        Of each expression `id` (the object's), `image_id`, `expression`, `box` (xywh in pixels of the image; of a mask
        its extent, null where that is empty) and, of a mask, `points` ([[x, y], …], pixels of the image); the rival's,
        which has no points, under `segmentation` instead.
    """
    shown = Shown(images, trained.config.partialres.image.side)
    mine: list[list[Json]] = []
    everything = list(batches(asked, batch))[ranks.rank() :: ranks.size()]
    with Progress("predict expressions", total=sum(map(len, everything)), unit="expression") as bar:
        for some in everything:
            mine.append(_located(trained, some, shown) if boxes else _found(trained, some, shown))
            bar.advance(len(some))
    turns = zip_longest(*ranks.gather(mine), fillvalue=[])
    return [answer for turn in turns for answers in turn for answer in answers]


def mask_in(answer: Json, *, height: int, width: int, fill: str) -> NDArray[np.bool_]:
    """The mask (height, width) of an answer to an expression.

    Args:
        fill: how contours are filled, `sequence.fill`.
    """
    if "segmentation" in answer:
        return decode_mask(answer["segmentation"], height=height, width=width).astype(bool)
    return mask_of(np.array(answer["points"], dtype=np.float64).reshape(-1, 2), height, width, fill)


def read_answers(folder: Path) -> list[Json]:
    """What `refer` gave, from a stage's folder."""
    found: list[Json] = read_json(folder / FILE)
    return found


def _located(trained: Trained, some: list[Asked], shown: Shown) -> list[Json]:
    return [{**_about(each), "box": list(box)} for each, box in zip(some, locate(trained, some, shown), strict=True)]


def _found(trained: Trained, some: list[Asked], shown: Shown) -> list[Json]:
    answers = []
    for each, found in zip(some, find(trained, some, shown), strict=True):
        answer = {**_about(each), "box": _extent(found.mask)}
        if trained.config.partialres.network.model == "query":
            answers.append({**answer, "segmentation": encode_mask(found.mask)})
        else:
            answers.append({**answer, "points": found.points.round(DIGITS).tolist()})
    return answers


def _about(asked: Asked) -> Json:
    return {"id": asked.id, "image_id": asked.entry["id"], "expression": " ".join(asked.words)}


def _extent(mask: NDArray[np.bool_]) -> list[int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
