"""Resampled pseudo points: masks of the other training objects that agree with the given boxes.

points.json: [{id, d, kept, segmentation, points}, …], points only where they were predicted. d tests extent and not
shape; a kept mask is contoured and sampled like a human one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mal.data.annotations import CocoDict, decode_mask
from mal.data.mask_formats import encode_mask
from mal.engine.runtime import numpy_generator
from mal.errors import ConfigError
from mal.methods.partialres.config.learning import PseudoConfig
from mal.methods.partialres.infer import Asked
from mal.methods.partialres.objects import Referred
from mal.methods.partialres.predictions import mask_in
from mal.methods.partialres.projection import distance, filled_box, filled_ellipse
from mal.metrics.masks import iou

EVERY = 2.0  # the largest d, and the threshold that keeps every mask
FILLED = {"box": filled_box, "ellipse": filled_ellipse}
Json = dict[str, Any]


def others(objects: Sequence[Referred], known: Collection[int]) -> list[Referred]:
    """The objects whose masks are not known.

    Raises:
        ConfigError: there are none.
    """
    found = [each for each in objects if each.id not in known]
    if not found:
        raise ConfigError(
            "every training object's mask is learned from, so that none is left for pseudo masks; lower "
            "partialres.few.percent, or set partialres.pseudo.kind=none"
        )
    return found


def questions(objects: Sequence[Referred], *, expression: str, seed: int) -> list[Asked]:
    """One expression of each object, image by image.

    Args:
        expression: first | random, which follows the seed and the object.
    """

    def chosen(each: Referred) -> tuple[str, ...]:
        if expression == "first":
            return each.expressions[0]
        drawn = numpy_generator(seed, "partialres pseudo expression", each.id).integers(len(each.expressions))
        return each.expressions[int(drawn)]

    ordered = sorted(objects, key=lambda each: (each.entry["id"], each.id))
    return [Asked(each.entry, each.id, chosen(each)) for each in ordered]


def judged(
    objects: Sequence[Referred], answers: Sequence[Json] | None, pseudo: PseudoConfig, *, fill: str
) -> list[Json]:
    """A mask of each object, its d, and whether it is kept.

    Args:
        answers: `predictions.refer`'s of the objects, of kind model; else None.
        fill: how predicted contours are filled.

    Raises:
        ConfigError: none is kept.
    """
    rows = []
    for each, answer, mask in _masks(objects, answers, pseudo.kind, fill):
        d = float(distance(mask, each.box))
        # a box that is no whole number of pixels is not at d = 0 itself
        kept = bool(mask.any()) and (pseudo.kind != "model" or d < pseudo.threshold or pseudo.threshold >= EVERY)
        rows.append({"id": each.id, "d": d, "kept": kept, "segmentation": encode_mask(mask), **_points(answer)})
    if not any(row["kept"] for row in rows):
        raise ConfigError(
            f"no prediction on {len(rows)} training objects agrees with its box by d < {pseudo.threshold:g} (the least "
            f"d is {min(row['d'] for row in rows):.2f}); raise partialres.pseudo.threshold, train longer before "
            "(partialres.rec.steps, partialres.res.steps), or set partialres.pseudo.kind=none"
        )
    return rows


def pseudo_quality(rows: Sequence[Json], human: CocoDict) -> tuple[dict[str, float], int]:
    """IoU of kept and of rejected masks with human ones, and the number of objects that have a human mask.

    Returns:
        share_kept, of all; kept_iou, rejected_iou: mean IoUs; correlation of d and IoU. Those that
        are not defined are left out.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in human["images"]}
    truths = {a["id"]: (a["segmentation"], sizes[a["image_id"]]) for a in human["annotations"]}
    judged_rows = [row for row in rows if row["id"] in truths]
    ious = np.array([_iou(row["segmentation"], *truths[row["id"]]) for row in judged_rows])
    kept = np.array([row["kept"] for row in judged_rows], dtype=bool)
    d = np.array([row["d"] for row in judged_rows])
    figures = {"share_kept": float(np.mean([row["kept"] for row in rows]))}
    for name, some in (("kept_iou", kept), ("rejected_iou", ~kept)):
        if some.any():
            figures[name] = float(ious[some].mean())
    if len(ious) > 1 and d.std() > 0 and ious.std() > 0:
        figures["correlation"] = float(np.corrcoef(d, ious)[0, 1])
    return figures, len(ious)


def _masks(
    objects: Sequence[Referred], answers: Sequence[Json] | None, kind: str, fill: str
) -> Iterator[tuple[Referred, Json, NDArray[np.bool_]]]:
    if answers is None:
        for each in objects:
            yield each, {}, FILLED[kind](each.box, (each.entry["height"], each.entry["width"]))
        return
    by_id: Mapping[int, Json] = {int(answer["id"]): answer for answer in answers}
    for each in objects:
        answer = by_id[each.id]
        yield each, answer, mask_in(answer, height=each.entry["height"], width=each.entry["width"], fill=fill)


def _points(answer: Json) -> Json:
    return {"points": answer["points"]} if "points" in answer else {}


def _iou(made: Any, human: Any, size: tuple[int, int]) -> float:
    height, width = size
    masks = (decode_mask(each, height=height, width=width).astype(bool) for each in (made, human))
    return iou(*masks)
