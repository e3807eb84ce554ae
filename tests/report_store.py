"""A run store written by hand, for the tests of the report: drawn or photographed images, masks, scores, APs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

Json = dict[str, Any]
PROVENANCE = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "diff": None,
    "python": "3.11.7",
    "packages": {"torch": "2.11.0"},
    "hardware": {"cpu": "a processor", "cores": 2, "gpu": None},
}
LABELERS = ("mal", "box", "ellipse")
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog & <b>bone</b></script>"}]
SIZE = 96  # of an image's side


def run_record(stage: str, key: str, columns: Json, **more: Any) -> Json:
    """What a finished stage leaves in its run.json."""
    empty = {"config": {}, "inputs": {}, "sources": {}, "metrics": {}}
    return {"stage": stage, "key": key, "version": 1, "status": "done", "columns": columns, **empty, **more}


def write_record(store: Path, stage: str, key: str, **more: Any) -> Path:
    """A finished stage's run.json; returns its folder."""
    folder = store / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"profile": "demo", "data": "shapes", **more.pop("columns", {})}
    told = {
        "provenance": PROVENANCE,
        "seconds": 1.5,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:04:07+00:00",
        **more,
    }
    (folder / "run.json").write_text(json.dumps(run_record(stage, key, columns, **told)))
    return folder


def drawn_store(store: Path, images: int = 4, each: int = 5, labelers: tuple[str, ...] = LABELERS) -> Json:
    """A store of drawn validation images with labelled sets of them. Returns the file with human masks."""
    folder = write_record(store, "shapes_val", "s", metrics={"annotations": {"value": images * each, "n": images}})
    human = write_images(folder, images, each)
    write_record(store, "boxes_val", "b", inputs={"data": "shapes_val/s"})
    for labeler in labelers:
        write_labelled(store, labeler, human, data="shapes_val/s")
    return human


def write_images(folder: Path, images: int, each: int) -> Json:
    """`images`/ and annotations.json below a folder: `each` ellipses an image, of many sizes. Returns the file."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    coco: Json = {"images": [], "annotations": [], "categories": CATEGORIES, "licenses": []}
    for i in range(1, images + 1):
        coco["images"].append({"id": i, "file_name": f"{i:06}.png", "width": SIZE, "height": SIZE})
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIZE, SIZE)).save(folder / "images" / f"{i:06}.png")
        for _ in range(each):
            width, height = (int(v) for v in rng.integers(6, SIZE + 1, 2))
            x, y = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
            name = len(coco["annotations"]) + 1
            coco["annotations"].append(
                {
                    "id": name,
                    "image_id": i,
                    "category_id": CATEGORIES[name % 3 == 0]["id"],
                    "bbox": [x, y, width, height],
                    "iscrowd": 0,
                    "segmentation": encoded(ellipse([x, y, width, height])),
                }
            )
    (folder / "annotations.json").write_text(json.dumps(coco))
    return coco


def write_labelled(store: Path, labeler: str, human: Json, *, data: str | None, **more: Any) -> None:
    """A label_val and a quality_val stage: `mal` cuts a stripe off the human mask, a wider one the higher its id."""
    columns: Json = {"labeler": labeler, **more.pop("columns", {})}
    if labeler == "mal":
        columns |= {"seed": 0, "encoder": "vit_nano", "recipe": "best", "decoder": "attention", "theta": 1.2}
    folder = write_record(store, "label_val", labeler, inputs={"boxes": "boxes_val/b"}, columns=columns, **more)
    annotations, rows = [], []
    for truth in human["annotations"]:
        mask, true = guess(labeler, truth), ellipse(truth["bbox"])
        iou = np.count_nonzero(mask & true) / np.count_nonzero(mask | true)
        annotations.append({**truth, "segmentation": encoded(mask)})
        area = truth["bbox"][2] * truth["bbox"][3]
        size = "S" if area < 32**2 else "M" if area < 96**2 else "L"
        rows.append(f"{truth['id']},{truth['image_id']},{truth['category_id']},{area}.0,{size},{iou},{iou / 2},False")
    (folder / "labels.json").write_text(json.dumps({**human, "annotations": annotations}))
    inputs = {"labels": f"label_val/{labeler}"} | ({"data": data} if data else {})
    ious = [float(row.split(",")[5]) for row in rows]
    metrics = {"iou": {"value": float(np.mean(ious)), "n": len(rows)}}
    columns = {key: value for key, value in columns.items() if key != "status"}
    folder = write_record(store, "quality_val", labeler, inputs=inputs, columns=columns, metrics=metrics, **more)
    header = "annotation_id,image_id,category_id,area,size,iou,boundary_iou,flagged"
    (folder / "instances.csv").write_text("\n".join([header, *rows]) + "\n")


def guess(labeler: str, truth: Json) -> np.ndarray:
    """A labeler's mask (H, W) bool."""
    x, y, width, height = truth["bbox"]
    box = np.zeros((SIZE, SIZE), dtype=bool)
    box[y : y + height, x : x + width] = True
    if labeler == "box":
        return box
    if labeler == "ellipse":
        return ellipse([x, y, max(1, width - 2), max(1, height - 2)])
    kept = ellipse(truth["bbox"])
    kept[:, x : x + truth["id"] * width // 2000] = False
    return kept


def ellipse(box: list[int]) -> np.ndarray:
    """The ellipse inside a box x, y, w, h, as (H, W) bool."""
    x, y, width, height = box
    down, across = np.mgrid[:SIZE, :SIZE] + 0.5
    return ((across - x - width / 2) / (width / 2)) ** 2 + ((down - y - height / 2) / (height / 2)) ** 2 <= 1


def encoded(mask: np.ndarray) -> Json:
    """(H, W) bool → compressed RLE, as text."""
    found = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = found["counts"]
    return {"size": [int(v) for v in found["size"]], "counts": counts if isinstance(counts, str) else counts.decode()}
