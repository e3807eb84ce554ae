"""Mask quality: IoU and boundary IoU of predicted masks against human ones, instance by instance."""

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    import pandas as pd  # a second; imported where a table is made

from mal.data.annotations import CocoDict, only_images
from mal.data.box_findings import SMALLEST_SIDE
from mal.data.boxes import SIZE_NAMES, size_class
from mal.data.census import images_of
from mal.data.joins import same_file, strays_of
from mal.data.mask_windows import decode_window, in_common
from mal.errors import AnnotationError

BOUNDARY_RATIO = 0.02  # of the image diagonal; Cheng et al., "Boundary IoU", CVPR 2021, §5
COLUMNS = ["annotation_id", "image_id", "category_id", "area", "size", "iou", "boundary_iou", "flagged"]


def mask_quality(predicted: CocoDict, human: CocoDict) -> tuple[dict[str, float], "pd.DataFrame"]:
    """Score every predicted mask against the human mask with the same annotation id.

    Scored are the human file's instances that are no crowd, whose box is wider and higher than 2 pixels, and whose
    mask is not empty. Whatever else `predicted` holds is ignored. A predicted mask may be empty; its IoU is 0.

    Returns:
        metrics: `iou` (mean over instances), `iou_class` (mean over categories of their instances' mean),
            `boundary_iou` (mean over instances), `share_50` and `share_75` (share of instances whose IoU is over .5 and
            .75), `n`; `iou_S`, `iou_M`, `iou_L` by the box's area, with `n_S`, `n_M`, `n_L`. The IoU of a size that
            has no instance is left out. Where some of the scored masks are flagged, `iou_own` is the mean over the
            `n_own` others. All but the counts are in [0, 1].
        instances: one row an instance, in the human file's order, with columns `COLUMNS`; `area` is the box's,
            in image pixels, `flagged` is the predicted annotation's own flag (a box the labeler skipped).

    Raises:
        AnnotationError: an annotation to be scored is absent from `predicted`, has no mask there or belongs to another
            image; or nothing is left to score.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in human["images"]}
    by_id = {annotation["id"]: annotation for annotation in predicted["annotations"]}
    _check_present(by_id, human)
    _check_same(predicted, human, by_id)
    rows = []
    for truth in filter(is_scored, human["annotations"]):
        height, width = sizes[truth["image_id"]]
        human_mask = decode_window(truth["segmentation"], height=height, width=width)
        if not human_mask.area:
            continue
        guess = by_id[truth["id"]]
        other, mask = in_common(decode_window(guess["segmentation"], height=height, width=width), human_mask)
        area = float(truth["bbox"][2] * truth["bbox"][3])
        rows.append(
            {
                "annotation_id": truth["id"],
                "image_id": truth["image_id"],
                "category_id": truth["category_id"],
                "area": area,
                "size": size_class(area),
                "iou": iou(other, mask),
                "boundary_iou": boundary_iou(other, mask, image_size=(height, width)),
                "flagged": bool(guess.get("flagged", False)),
            }
        )
    if not rows:
        raise AnnotationError(
            f"none of the {len(human['annotations'])} human annotations can be scored: each is a crowd, has a box "
            f"of {SMALLEST_SIDE} pixels or less, or an empty mask; give an annotation file with instance masks"
        )
    import pandas as pd

    instances = pd.DataFrame(rows, columns=COLUMNS)
    return _summary(instances), instances


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two bool masks (H, W); 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def boundary_iou(first: np.ndarray, second: np.ndarray, *, image_size: tuple[int, int] | None = None) -> float:
    """IoU of the parts of two bool masks (H, W) that lie within d of their own contours, in [0, 1].

    d is 2 % of the image's diagonal, rounded, at least one pixel (Cheng et al., "Boundary IoU", CVPR 2021, Eq. 2).
    As in the paper's reference implementation, distance is counted in steps of a 3 × 3 square, and what lies beyond
    the image is background, so the contour of a mask cut off by the border includes the cut.

    Only the two masks' common bounding rectangle is looked at; the result is that of the whole image, since all
    outside it is background too. So the masks may be a part of the image that holds all of both; then `image_size`
    gives its height and width.
    """
    height, width = image_size or first.shape
    distance = max(1, round(BOUNDARY_RATIO * float(np.hypot(height, width))))
    both = first | second
    rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    if not len(rows):
        return 0.0
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return iou(_boundary(first[window], distance), _boundary(second[window], distance))


def select_images(coco: CocoDict, which: str) -> CocoDict:
    """The part of a COCO file whose images stand at even or odd positions of the sorted image ids.

    Settings are chosen on the even half and results reported on the odd one (docs/method/mal.md).

    Args:
        coco: left as it is.
        which: `all`, `even` (positions 0, 2, …) or `odd`.

    Raises:
        AnnotationError: `which` is none of the three.
    """
    if which == "all":
        return coco
    if which not in ("even", "odd"):
        raise AnnotationError(f"images cannot be selected by {which!r}; choose all, even or odd")
    return only_images(coco, images_of(coco, which))


def is_scored(annotation: dict[str, Any]) -> bool:
    """Whether a human annotation is no crowd and its box wider and higher than 2 pixels (docs/method/mal.md)."""
    _, _, width, height = annotation["bbox"]
    return not annotation.get("iscrowd", 0) and width > SMALLEST_SIDE and height > SMALLEST_SIDE


def _check_present(by_id: dict[int, dict[str, Any]], human: CocoDict) -> None:
    missing, maskless, moved = [], [], []
    for truth in filter(is_scored, human["annotations"]):
        guess = by_id.get(truth["id"])
        if guess is None:
            missing.append(truth["id"])
        elif not guess.get("segmentation"):
            maskless.append(truth["id"])
        elif guess["image_id"] != truth["image_id"]:
            moved.append(truth["id"])
    for ids, what in ((missing, "are absent from"), (maskless, "have no mask in"), (moved, "lie on another image in")):
        if ids:
            first = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
            raise AnnotationError(
                f"{len(ids)} annotations of the human file {what} the predicted one: ids {first}; "
                f"predict masks for the same annotation file that they are scored against"
            )


def _check_same(predicted: CocoDict, human: CocoDict, by_id: dict[int, dict[str, Any]]) -> None:
    """Refuse two files whose equal ids mean different things: other file names, or boxes of other objects."""
    theirs = {image["id"]: image for image in predicted.get("images", ())}
    named = [i for i in human["images"] if i["id"] in theirs and "file_name" in i and "file_name" in theirs[i["id"]]]
    renamed = [image["id"] for image in named if not same_file(image, theirs[image["id"]])]
    if renamed:
        first = renamed[0]
        raise AnnotationError(
            f"{len(renamed)} images have another file name in the predicted file, such as image {first}: "
            f"{theirs[first]['file_name']!r}; predict masks for the same annotation file that they are scored against"
        )
    told = {identity for identity, guess in by_id.items() if guess.get("bbox") and "points" not in guess}
    boxed = [a for a in human["annotations"] if is_scored(a) and a["id"] in told]  # from points a box is its mask's
    moved = [identity for identity, certain in strays_of(_boxes_of(by_id), boxed).items() if certain]
    if moved:
        first = ", ".join(map(str, moved[:5])) + (", …" if len(moved) > 5 else "")
        raise AnnotationError(
            f"{len(moved)} annotations of the predicted file have the box of another object: ids {first}; its "
            "annotations are numbered otherwise: keep the ids of the file that it is scored against"
        )


def _boxes_of(by_id: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Annotations by id with their boxes alone: masks may be as bad as they are."""
    return {identity: {"bbox": annotation.get("bbox")} for identity, annotation in by_id.items()}


def _boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a bool mask (H, W) within `distance` steps of one outside it; all beyond the array is outside."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & ~inner.astype(bool)


def _summary(instances: "pd.DataFrame") -> dict[str, float]:
    metrics = {
        "iou": instances["iou"].mean(),
        "iou_class": instances.groupby("category_id")["iou"].mean().mean(),
        "boundary_iou": instances["boundary_iou"].mean(),
        "share_50": (instances["iou"] > 0.5).mean(),
        "share_75": (instances["iou"] > 0.75).mean(),
        "n": len(instances),
    }
    own = instances.loc[~instances["flagged"].astype(bool), "iou"]
    if 0 < len(own) < len(instances):
        metrics |= {"iou_own": own.mean(), "n_own": len(own)}
    for size in SIZE_NAMES:
        group = instances.loc[instances["size"] == size, "iou"]
        metrics[f"n_{size}"] = len(group)
        if len(group):
            metrics[f"iou_{size}"] = group.mean()
    return {name: float(value) for name, value in metrics.items()}
