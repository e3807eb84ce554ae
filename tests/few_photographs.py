"""Some of the real photographs, for tests of what does not hang on how many there are."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from mal.data.annotations import annotations_by_image, only_images
from tests.conftest import CONF, SHARED


def few_photographs(data: str, folder: Path, *, count: int, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """Overrides for `data=DATA` with few of its images: the fullest, empty ones, those with crowds, and the first.

    Args:
        data: of the menu, with files in ../shared/data. folder: where the annotation files are written.
        count: how many images a split has. splits: which of them have few.
    """
    entry = OmegaConf.load(CONF / "data" / f"{data}.yaml")
    overrides = []
    for split in splits:
        whole = json.loads((SHARED / "data" / data / entry[split].annotations).read_text())
        objects = annotations_by_image(whole)
        fullest = sorted(objects, key=lambda image: -len(objects[image]))
        empty = [image for image in objects if not objects[image]]
        crowded = [image for image in objects if any(it.get("iscrowd") for it in objects[image])]
        wanted = dict.fromkeys([*fullest[:2], *empty[:2], *crowded[: count // 4], *objects])
        path = folder / f"{data}_{split}.json"
        path.write_text(json.dumps(only_images(whole, [*wanted][:count])))
        overrides.append(f"data.{split}.annotations={path}")
    return overrides
