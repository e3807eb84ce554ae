"""Clustering score of an encoder's features (Eq. 6, Table 6): how tightly foreground and background tokens gather."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.data.annotations import CocoDict, decode_mask
from mal.data.boxes import SIZE_NAMES, size_class
from mal.data.config import RoiConfig
from mal.data.rois import RoiBatch, labelling_batches
from mal.encoders.encoder import Encoder
from mal.engine import ranks
from mal.engine.precision import allow_tf32, autocast
from mal.engine.progress import Progress
from mal.errors import AnnotationError
from mal.metrics.masks import is_scored

if TYPE_CHECKING:
    import pandas as pd  # a second; imported where a table is made

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class TokenSums:
    """All that Eq. 6 needs of any number of tokens, by class (background, foreground): the tokens can be forgotten.

    With u = f/|f| and c the mean of f in a class, Σ|u − c/|c||² = Σ|u|² − 2 Σu · c/|c| + n |c/|c||². A feature of
    length 0 has u = 0.
    """

    count: Tensor  # (2,) tokens
    nonzero: Tensor  # (2,) those of length > 0: Σ|u|²
    total: Tensor  # (2, C) Σf
    direction: Tensor  # (2, C) Σu

    @classmethod
    def of(cls, features: Tensor, foreground: Tensor) -> "TokenSums":
        """Sums in float64 of features (N, C) and their classes (N,) bool."""
        features = features.double()
        units = F.normalize(features, dim=1, eps=1e-300)
        members = torch.stack([~foreground, foreground]).double()
        lengths = (features != 0).any(dim=1).double()
        return cls(members.sum(1), members @ lengths, members @ features, members @ units)

    def __add__(self, other: "TokenSums") -> "TokenSums":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return TokenSums(*(mine + theirs for mine, theirs in pairs))

    def cpu(self) -> "TokenSums":
        return TokenSums(*(value.cpu() for value in vars(self).values()))

    def distances(self) -> Tensor:
        """Σ over the tokens of each class of |f/|f| − c/|c||²: (2,) float64."""
        centres = F.normalize(self.total, dim=1, eps=1e-300)  # the mean's direction is the sum's
        length = (self.total != 0).any(dim=1).double()
        return self.nonzero - 2 * (self.direction * centres).sum(1) + self.count * length

    def score(self) -> float:
        """Eq. 6: the mean over all tokens, in [0, 4]; smaller is better."""
        return float(self.distances().sum() / self.count.sum())


def clustering_score(
    human: CocoDict, images: Path, encoder: Encoder, *, config: RoiConfig, source: str, batch: int, workers: int,
    device: torch.device, dtype: torch.dtype,
) -> tuple[dict[str, float], "pd.DataFrame"]:  # fmt: skip
    """Score an encoder's last map on human masks.

    Crops: one a box, with the fixed window of labelling; its own mask is foreground, all else background (other
    objects and what lies beyond the image too). A box is scored if `mask_quality` would score it. Images: each is
    resized to the crops' side, aspect not kept; all its masks are foreground; cells that are mostly crowd do not count.
    A cell is foreground if the mask covers more than half of it. What has cells of one class only is left out.

    Several processes take turns at the images; each returns everything.

    The paper does not say whether Eq. 6 has one pair of centres a crop or one for all: both are given.

    Args:
        human: with masks. images: folder of its images.
        encoder: on `device`, in evaluation mode.
        source: `crops` or `images`.
        dtype: what it computes in.

    Returns:
        metrics: `clustering`, the mean over tokens with centres of their own crop (or image); `clustering_S`, `_M`,
            `_L` of crops by the box's area; `clustering_global`, with centres over all crops; `n`, `n_S`, `n_M`,
            `n_L`, and `n_left_out`.
        instances: one row per crop (or image): ids, `area` of the box, `size`, `tokens`, `foreground` tokens, `score`.

    Raises:
        AnnotationError: nothing can be scored.
    """
    allow_tf32(device, dtype)
    chosen = (_crops if source == "crops" else _whole_images)(human)
    config = config if source == "crops" else replace(config, label_expansion=0.0, border="clip", min_side=0.0)
    masks = _Masks(human)
    rows: list[dict[str, Any]] = []
    sums: dict[str, TokenSums] = {}
    within: dict[str, Tensor] = {}
    left_out = 0
    own = _own_images(chosen)
    batches = labelling_batches(own, images, config=config, batch=batch, workers=workers)
    with Progress("clustering", total=len(own["annotations"]), unit="crop" if source == "crops" else "image") as bar:
        for annotations, rois in batches:
            for annotation, features, foreground in _tokens(annotations, rois, encoder, masks, device, dtype):
                if foreground.all() or not foreground.any():
                    left_out += 1
                    continue
                found = TokenSums.of(features, foreground).cpu()
                size = size_class(annotation["bbox"][2] * annotation["bbox"][3]) if source == "crops" else ""
                both = torch.stack([found.distances().sum(), found.count.sum()])
                _add(sums, {"": found})
                _add(within, dict.fromkeys(("", size), both))
                rows.append(_row(annotation, size, found))
            bar.advance(len(annotations))
    rows, sums, within, left_out = _merged(ranks.gather((rows, sums, within, left_out)), chosen)
    if not rows:
        raise AnnotationError(
            f"none of {len(chosen['annotations'])} {source} has cells of both classes; give images with objects "
            "larger than the encoder's stride, or raise roi.size"
        )
    import pandas as pd

    instances = pd.DataFrame(rows)
    metrics = {"clustering": _mean(within[""]), "n": len(rows), "n_left_out": left_out}
    metrics["clustering_global"] = sums[""].score()
    for size in SIZE_NAMES:
        if size in within:
            metrics |= {f"clustering_{size}": _mean(within[size]), f"n_{size}": int((instances["size"] == size).sum())}
    return metrics, instances if source == "crops" else instances[["image_id", "tokens", "foreground", "score"]]


Found = tuple[list[dict[str, Any]], dict[str, TokenSums], dict[str, Tensor], int]  # rows, sums, within, left out


def _add(totals: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to the total of each group."""
    for group, value in more.items():
        totals[group] = totals[group] + value if group in totals else value


def _own_images(chosen: CocoDict) -> CocoDict:
    """The annotations of the images that this process looks at."""
    own = {image["id"] for image in chosen["images"][ranks.rank() :: ranks.size()]}
    return {**chosen, "annotations": [a for a in chosen["annotations"] if a["image_id"] in own]}


def _merged(parts: list[Found], chosen: CocoDict) -> Found:
    """What all processes found: rows in the order of one process alone, sums to the rounding of float64."""
    if len(parts) == 1:
        return parts[0]
    images = {
        image_id: place for place, image_id in enumerate(dict.fromkeys(a["image_id"] for a in chosen["annotations"]))
    }
    rows = sorted((row for part in parts for row in part[0]), key=lambda row: images[row["image_id"]])
    sums: dict[str, TokenSums] = {}
    within: dict[str, Tensor] = {}
    for _, part_sums, part_within, _ in parts:
        _add(sums, part_sums)
        _add(within, part_within)
    return rows, sums, within, sum(part[3] for part in parts)


def foreground_cells(mask: np.ndarray, window: Window, cells: int) -> Tensor:
    """Which cells of a grid over a window a mask covers by more than half; beyond the image it covers nothing.

    Args:
        mask: bool (H, W). window: x0, y0, x1, y1 in pixels; may reach beyond the image.

    Returns:
        (cells, cells) bool.
    """
    x0, y0, x1, y1 = window
    height, width = mask.shape
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    shown = torch.zeros(1, 1, y1 - y0, x1 - x0)
    shown[0, 0, top - y0 : bottom - y0, left - x0 : right - x0] = torch.from_numpy(mask[top:bottom, left:right].copy())
    return F.adaptive_avg_pool2d(shown, cells)[0, 0] > 0.5


class _Masks:
    """Human masks of crops (one annotation's) and of whole images (all but crowds, which cover cells that do not
    count)."""

    def __init__(self, human: CocoDict) -> None:
        self._sizes = {image["id"]: (image["height"], image["width"]) for image in human["images"]}
        self._annotations = {annotation["id"]: annotation for annotation in human["annotations"]}
        self._by_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in human["annotations"]:
            self._by_image.setdefault(annotation["image_id"], []).append(annotation)

    def cells(self, annotation: dict[str, Any], window: Window, cells: int) -> tuple[Tensor, Tensor]:
        """Foreground cells, and cells that count."""
        image_id = annotation["image_id"]
        if "whole" in annotation:
            inside = self._by_image[image_id]
            things, crowds = (
                self._union([a for a in inside if a.get("iscrowd", 0) == kind], image_id) for kind in (0, 1)
            )
            foreground = foreground_cells(things, window, cells)
            return foreground, foreground | ~foreground_cells(crowds, window, cells)
        mask = self._union([self._annotations[annotation["id"]]], image_id)
        return foreground_cells(mask, window, cells), torch.ones(cells, cells, dtype=torch.bool)

    def _union(self, annotations: list[dict[str, Any]], image_id: int) -> np.ndarray:
        height, width = self._sizes[image_id]
        union = np.zeros((height, width), dtype=bool)
        for annotation in annotations:
            union |= decode_mask(annotation["segmentation"], height=height, width=width)
        return union


@torch.no_grad()
def _tokens(
    annotations: list[dict[str, Any]], rois: RoiBatch, encoder: Encoder, masks: _Masks, device: torch.device,
    dtype: torch.dtype,
) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:  # fmt: skip
    """Each crop's features (N, C) and classes (N,), cells that do not count left out."""
    with autocast(device, dtype):
        maps = encoder(rois.pixels.to(device).float() / 255).last
    cells = maps.shape[-1]
    rows, columns = rois.valid_lines(cells)
    for place, annotation in enumerate(annotations):
        x0, y0, x1, y1 = rois.windows[place].tolist()
        foreground, counts = masks.cells(annotation, (x0, y0, x1, y1), cells)
        counts &= rows[place, :, None] & columns[place]
        kept = counts.flatten().nonzero()[:, 0]
        features = maps[place].flatten(1).T[kept.to(device)]
        yield annotation, features, foreground.flatten()[kept].to(device)


def _crops(human: CocoDict) -> CocoDict:
    """The annotations that are scored, without masks: these stay packed until their turn."""
    scored = [
        {k: a[k] for k in ("id", "image_id", "category_id", "bbox")} for a in human["annotations"] if is_scored(a)
    ]
    return {**human, "annotations": scored}


def _whole_images(human: CocoDict) -> CocoDict:
    """One box a whole image, for every image that has annotations."""
    used = {annotation["image_id"] for annotation in human["annotations"]}
    boxes = [
        {"id": image["id"], "image_id": image["id"], "bbox": [0, 0, image["width"], image["height"]], "whole": True}
        for image in human["images"]
        if image["id"] in used
    ]
    return {**human, "annotations": boxes}


def _row(annotation: dict[str, Any], size: str, found: TokenSums) -> dict[str, Any]:
    return {
        "annotation_id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation.get("category_id"),
        "area": float(annotation["bbox"][2] * annotation["bbox"][3]),
        "size": size,
        "tokens": int(found.count.sum()),
        "foreground": int(found.count[1]),
        "score": found.score(),
    }


def _mean(distance_and_count: Tensor) -> float:
    return float(distance_and_count[0] / distance_and_count[1])
