"""Some of the real photographs, for tests of what does not hang on how many there are."""

import json
from collections import Counter
from pathlib import Path

from mal.data.annotations import only_images
from tests.conftest import SHARED

FILES = {
    "coco_mini": {split: f"annotations/instances_{split}2017_mini.json" for split in ("train", "val")},
    "car_parts": {"train": "train/annotations.json", "val": "test/annotations.json"},
}


def few_photographs(data: str, folder: Path, *, count: int) -> list[str]:
    """Overrides for `data=DATA` with few of its images: the fullest, empty ones, those with crowds, and the first.

    Args:
        data: one of FILES. folder: where the annotation files are written. count: how many images a split has.
    """
    overrides = []
    for split, name in FILES[data].items():
        whole = json.loads((SHARED / "data" / data / name).read_text())
        objects = Counter(it["image_id"] for it in whole["annotations"])
        crowds = {it["image_id"] for it in whole["annotations"] if it.get("iscrowd")}
        fullest = sorted(whole["images"], key=lambda it: -objects[it["id"]])
        empty = [it for it in whole["images"] if not objects[it["id"]]]
        crowded = [it for it in whole["images"] if it["id"] in crowds]
        wanted = [*fullest[:2], *empty[:2], *crowded[: count // 4], *whole["images"]]
        chosen = list(dict.fromkeys(it["id"] for it in wanted))[:count]
        path = folder / f"{data}_{split}.json"
        path.write_text(json.dumps(only_images(whole, set(chosen))))
        overrides.append(f"data.{split}.annotations={path}")
    return overrides
