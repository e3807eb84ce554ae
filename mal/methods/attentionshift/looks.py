"""What the steps make of some objects: attention, foreground, parts after some rounds, mask (Figures 2 and 3)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict, only_images
from mal.errors import AnnotationError
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import mask_to_image, objects_of
from mal.methods.attentionshift.known import Known, look_at, maps_of, samples
from mal.methods.attentionshift.label import masks_of
from mal.methods.attentionshift.parts import Parts
from mal.methods.attentionshift.scaling import upsample
from mal.methods.attentionshift.teaching import parts_of

SIDE = 128  # pixels of a picture
MARGIN = 0.35  # of the box's longer side, shown around it
Arrays = dict[str, np.ndarray]


def looks(trained: Trained, config: Config, coco: CocoDict, images: Path, device: torch.device) -> Arrays:
    """Square pictures of n objects at equal steps of the file's order, S pixels a side; nothing is picked by hand.

    Args:
        coco: a points view. images: folder of its images.

    Returns:
        ids (n,) of annotations; windows (n, 4) x0, y0, x1, y1: what is shown, in pixels of the image, or beyond it;
        points (n, 2) and boxes (n, 4) xyxy in shares of the window; attention (a of step 5) and foreground (F)
        (n, S, S) uint8, 255 for 1; mask (n, S, S) bool, the labeler's; rounds (r,); parts (n, r, P, S, S) uint8, the
        part maps of step 8, the largest part first; found (n, r), how many of the P there are; key_points
        (n, r, P, 2) in shares of the window, nan where a part's peak lies outside the box.

    Raises:
        AnnotationError: no validation image has a point.
    """
    chosen, rows = _examples(coco, config), []
    seen = only_images(coco, {a["image_id"] for a in coco["annotations"] if a["id"] in chosen})
    for entry, annotations, sample in samples(trained, config, seen, images, device):
        wanted = [place for place, annotation in enumerate(annotations) if annotation["id"] in chosen]
        found = _of_image(trained, look_at(trained, sample, entry), wanted, config)
        rows += [{"ids": np.array(annotations[p]["id"]), **one} for p, one in zip(wanted, found, strict=True)]
    rows.sort(key=lambda row: chosen[int(row["ids"])])
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**arrays, "rounds": np.array(config.attentionshift.looks.rounds)}


def _examples(coco: CocoDict, config: Config) -> dict[int, int]:
    """Annotation id → its place among those shown."""
    objects = [a["id"] for _, ones in objects_of(coco, most=config.attentionshift.tokens.count) for a in ones]
    if not objects:
        raise AnnotationError("no validation image has a point of an object that is not a crowd: nothing to show")
    count = min(config.attentionshift.looks.examples, len(objects))
    places = np.linspace(0, len(objects) - 1, count).round().astype(int)
    return {int(objects[index]): place for place, index in enumerate(places)}


@torch.inference_mode()
def _of_image(trained: Trained, known: Known, wanted: list[int], config: Config) -> list[Arrays]:
    """The pictures of the wanted objects of an image, the places of which among its objects are given."""
    settings, patch, chosen = config.attentionshift, trained.network.vit.patch, known.chosen
    entry, sample, features = known.entry, known.sample, known.seen.maps[-1][0]
    maps = maps_of(trained, known, config)
    rounds = []
    for count in settings.looks.rounds:
        steps = replace(settings.steps, shift=replace(settings.steps.shift, rounds=count))
        rounds.append(parts_of(maps.foreground, features, chosen.boxes, patch=patch, config=steps))
    masks, across = masks_of(trained, known, config), known.across.float()
    height, width = entry["height"], entry["width"]
    found = []
    for place in wanted:
        box = chosen.boxes[place].cpu() * across
        window = _window(box, (width, height))

        def picture(map_: Tensor, window: np.ndarray = window) -> np.ndarray:
            return _cut(mask_to_image(map_[None].cpu().float(), sample.points.size, entry)[0].numpy(), window)

        one = {
            "windows": window,
            "points": _shares(sample.points.xy[place].cpu() * across[:2], window),
            "boxes": _shares(box, window),
            "attention": _bytes(picture(chosen.attention[place])),
            "foreground": _bytes(picture(maps.foreground[place])),
            "mask": _cut(masks[place].pasted(height, width), window),
        }
        shown_parts = [_parts(each[place], patch, settings.steps.parts.most, picture) for each in rounds]
        one["parts"] = np.stack([maps for maps, _ in shown_parts])
        one["found"] = np.array([len(each[place].maps) for each in rounds])
        one["key_points"] = np.stack([_shares(peaks.cpu() * across[:2], window) for _, peaks in shown_parts])
        found.append(one)
    return found


def _parts(parts: Parts, patch: int, most: int, picture: Any) -> tuple[np.ndarray, Tensor]:
    """(most, S, S) uint8 part maps, and (most, 2) peaks in pixels, nan outside the box; zeros and nan fill up."""
    maps = np.zeros((most, SIDE, SIDE), dtype=np.uint8)
    peaks = torch.full((most, 2), torch.nan)
    for i, each in enumerate(upsample(parts.maps, patch)):
        maps[i] = _bytes(picture(each))
        if parts.inside[i]:
            peaks[i] = parts.peaks[i].cpu()
    return maps, peaks


def _window(box: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A square around a box, xyxy in whole pixels: moved into the image, and beyond it only where that is too narrow.

    Args:
        size: width and height of the image.
    """
    x0, y0, x1, y1 = box.tolist()
    side = min(math.ceil(max(x1 - x0, y1 - y0, 1) * (1 + 2 * MARGIN)), max(size))
    corner = []
    for middle, length in (((x0 + x1) / 2, size[0]), ((y0 + y1) / 2, size[1])):
        start = round(middle - side / 2)
        corner.append(min(max(start, 0), length - side) if side <= length else (length - side) // 2)
    return np.array([*corner, *(start + side for start in corner)])


def _shares(xy: Tensor, window: np.ndarray) -> np.ndarray:
    """(…, 2k) x, y in pixels of the image → shares of the window."""
    corner, size = torch.tensor(window[:2]), torch.tensor(window[2:] - window[:2])
    pairs = xy.unflatten(-1, (-1, 2))
    return ((pairs - corner) / size).flatten(-2).float().numpy()


def _cut(pixels: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(H, W) → the window's (S, S), by the nearest pixel; zero beyond the image."""
    found = np.zeros((SIDE, SIDE), dtype=pixels.dtype)
    steps = (np.arange(SIDE) + 0.5) / SIDE
    columns, rows = (np.floor(window[i] + steps * (window[i + 2] - window[i])).astype(int) for i in (0, 1))
    inside = np.ix_((rows >= 0) & (rows < pixels.shape[0]), (columns >= 0) & (columns < pixels.shape[1]))
    here = rows[(rows >= 0) & (rows < pixels.shape[0])], columns[(columns >= 0) & (columns < pixels.shape[1])]
    found[inside] = pixels[np.ix_(*here)]
    return found


def _bytes(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
