"""COCO and LVIS v1 in small: files of a few procedural images for tests of experiments at the paper's scale."""

import json
import shutil
from pathlib import Path
from typing import Any

from mal.data import shapes
from mal.data.annotations import read, write

MOVED = "of_val.png"  # a val image of LVIS's that lies in train2017


def coco_and_lvis(folder: Path) -> Path:
    """COCO and LVIS v1 as they lie on a user's disk, of a few procedural images: LVIS names its images by address, and
    some of its val images lie in train2017."""
    drawn = {}
    for split, count in (("train", 6), ("val", 4)):
        shapes.generate(folder / split, images=count, size=128, seed=0, split=split)
        drawn[split] = read(folder / split / "annotations.json", masks=True)
        (folder / split / "images").rename(folder / f"{split}2017")
    (folder / "annotations").mkdir()
    write(folder / "annotations" / "instances_train2017.json", drawn["train"])
    write(folder / "annotations" / "instances_val2017.json", drawn["val"])
    shutil.copytree(folder / "val2017", folder / "test2017")
    bare = {key: drawn["val"][key] for key in ("images", "categories")}
    (folder / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(bare))
    shutil.copy(folder / "val2017" / drawn["val"]["images"][0]["file_name"], folder / "train2017" / MOVED)
    for split, coco in drawn.items():
        write(folder / f"lvis_v1_{split}.json", as_lvis(coco, split))
    return folder


def as_lvis(coco: dict[str, Any], split: str) -> dict[str, Any]:
    """The same annotations in LVIS v1's form: no file names, no crowd flags, three categories of unlike frequency."""
    ids = [category["id"] for category in coco["categories"]]
    present = {image["id"]: set() for image in coco["images"]}
    for annotation in coco["annotations"]:
        present[annotation["image_id"]].add(annotation["category_id"])
    images = []
    for image in coco["images"]:
        elsewhere = split == "val" and image is coco["images"][0]
        place = f"train2017/{MOVED}" if elsewhere else f"{split}2017/{image['file_name']}"
        entry = {key: value for key, value in image.items() if key != "file_name"}
        absent = sorted(set(ids) - present[image["id"]])
        entry |= {"coco_url": f"http://images.cocodataset.org/{place}", "neg_category_ids": absent}
        images.append(entry | {"not_exhaustive_category_ids": sorted(present[image["id"]])[:1]})
    categories = [
        c | {"frequency": f, "synset": f"{c['name']}.n.01"} for c, f in zip(coco["categories"], "rcf", strict=True)
    ]
    annotations = [{k: v for k, v in a.items() if k != "iscrowd"} for a in coco["annotations"]]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
