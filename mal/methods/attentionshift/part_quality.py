"""Whether key-points lie on their objects, and on all parts of them, where a file tells the parts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict, decode_mask
from mal.engine.progress import Progress
from mal.errors import MalError
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import objects_of
from mal.methods.attentionshift.known import Known, look_at, maps_of, samples
from mal.methods.attentionshift.teaching import parts_of

Masks = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Found:
    """What the key-points of one object come to."""

    key_points: int
    on_object: int
    parts: int
    covered: int  # parts with a key-point


def found(xy: NDArray[np.float64], mask: NDArray[np.uint8], parts: Masks) -> Found:
    """
    Args:
        xy: (p, 2) key-points in pixels of the image, pixel i covering [i, i + 1).
        mask: (H, W) the object's. parts: of its parts, (H, W) each.
    """
    pixels = np.floor(xy).astype(int).reshape(-1, 2)
    inside = ((pixels >= 0) & (pixels < np.array(mask.shape)[::-1])).all(axis=1)  # others lie on what pads the image
    columns, rows = pixels[inside].T
    covered = sum(bool(part[rows, columns].any()) for part in parts)
    return Found(len(xy), int(np.count_nonzero(mask[rows, columns])), len(parts), covered)


def summed(objects: Iterable[Found]) -> dict[str, float]:
    """key_point_precision: the share of all key-points that lie on their object, absent where there is none;
    part_coverage: the share of all parts that have a key-point of their object; key_points: how many an object has."""
    every = list(objects)
    points, parts = sum(each.key_points for each in every), sum(each.parts for each in every)
    precision = {"key_point_precision": sum(each.on_object for each in every) / points} if points else {}
    coverage = sum(each.covered for each in every) / parts
    return {**precision, "part_coverage": coverage, "key_points": points / len(every)}


def part_quality(
    trained: Trained,
    config: Config,
    points: CocoDict,
    human: CocoDict,
    parts: CocoDict,
    images: Path,
    device: torch.device,
) -> tuple[dict[str, float], int]:
    """`summed` of steps 1 to 8 on the images of a points view, over how many objects; and with `_human_box` after the
    names, of steps 5 to 8 with human boxes in place of the chosen ones.

    Args:
        human: the same file with its masks. parts: its objects' parts (`object_parts.read_parts`). Objects without
            parts are left out.

    Raises:
        MalError: none of the objects has a part.
    """
    whole = {a["id"]: a for a in human["annotations"]}
    inside = defaultdict(list)
    for part in parts["annotations"]:
        inside[part["object_id"]].append(part["segmentation"])
    chosen: list[Found] = []
    in_human_boxes: list[Found] = []
    entries = objects_of(points, most=config.attentionshift.tokens.count)
    with Progress("key-points", total=len(entries), unit="image") as bar:
        for entry, annotations, sample in samples(trained, config, points, images, device):
            bar.advance()
            ids = [annotation["id"] for annotation in annotations]
            kept = [i for i, identity in enumerate(ids) if identity in whole and identity in inside]
            if not kept:
                continue
            known = look_at(trained, sample, entry)
            own = known.chosen.boxes.clone()
            own[kept] = _as_seen([whole[ids[i]]["bbox"] for i in kept], known).to(own)
            in_own = replace(known, chosen=replace(known.chosen, boxes=own))
            found_in = [key_points_of(trained, each, config) for each in (known, in_own)]
            size = {"height": entry["height"], "width": entry["width"]}
            for i in kept:
                mask = decode_mask(whole[ids[i]]["segmentation"], **size)
                those = [decode_mask(part, **size) for part in inside[ids[i]]]
                chosen.append(found(found_in[0][i], mask, those))
                in_human_boxes.append(found(found_in[1][i], mask, those))
    if not chosen:
        raise MalError(
            "none of the validation objects that are looked at has a part in data.val.parts; give their parts, or "
            "leave data.val.parts out"
        )
    figures = {f"{name}_human_box": value for name, value in summed(in_human_boxes).items()}
    return {**summed(chosen), **figures}, len(chosen)


@torch.inference_mode()
def key_points_of(trained: Trained, known: Known, config: Config) -> list[NDArray[np.float64]]:
    """Steps 5 to 8 in the chosen boxes: the key-points of each object, (p, 2) in pixels of the image."""
    maps, features = maps_of(trained, known, config), known.seen.maps[-1][0]
    steps, patch = config.attentionshift.steps, trained.network.vit.patch
    parts = parts_of(maps.foreground, features, known.chosen.boxes, patch=patch, config=steps)
    return [(each.key_points.double().cpu() * known.across[:2]).numpy() for each in parts]


def _as_seen(boxes: list[list[float]], known: Known) -> Tensor:
    """(n, 4) x, y, width, height in pixels of the image → xyxy of the pixels that the network is shown, both ends
    inside, as step 3 has its boxes."""
    xywh = torch.tensor(boxes, dtype=torch.float64)
    xyxy = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1) / known.across
    height, width = known.sample.points.size
    first, last = xyxy[:, :2].floor(), xyxy[:, 2:].ceil() - 1
    far = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    first = first.clamp(min=0).minimum(far)
    return torch.cat([first, last.minimum(far).maximum(first)], dim=1)
