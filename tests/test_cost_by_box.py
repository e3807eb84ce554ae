"""A small object in a huge image costs no more than in a small one: no array as large as the image is made for it."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.sheet import draw_sheet
from mal.data.export import FORMATS
from mal.data.mask_windows import MaskWindow, encode_window
from mal.methods.baselines import box, ellipse, grabcut
from mal.methods.baselines.gt import human_labeler
from mal.methods.labelling import label_dataset
from mal.metrics.masks import mask_quality

SIDE, COUNT = 12_000, 300
DISC = np.hypot(*np.indices((40, 50)) - np.array([20, 25])[:, None, None]) < 15


def aerial(side: int = SIDE) -> dict:
    """An image of so many pixels a side, and small boxes all over it with a mask each."""
    draw = np.random.default_rng(0)
    annotations = []
    for number, (x, y) in enumerate(draw.integers(0, side - 50, (COUNT, 2)).tolist(), start=1):
        coded = encode_window(MaskWindow(DISC, x, y), height=side, width=side)
        about = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0}
        annotations.append({**about, "bbox": [x, y, 50, 40], "segmentation": coded, "area": int(DISC.sum())})
    image = {"id": 1, "file_name": "a.png", "width": side, "height": side}
    return {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python and numpy hold at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["rle", "polygon", "yolo"])
def test_masks_are_written_by_box(tmp_path, kind):
    coco = aerial()
    assert peak(lambda: FORMATS[kind](coco, tmp_path / "out")) < SIDE**2 / 10


def test_a_png_needs_its_own_pixels_and_no_more(tmp_path):
    coco = aerial(3000)
    assert peak(lambda: FORMATS["png"](coco, tmp_path)) < 1.5 * 2 * 3000**2


def test_masks_are_copied_flagged_and_scored_by_box(tmp_path):
    coco = aerial()
    Image.new("1", (SIDE, SIDE)).save(tmp_path / "a.png")  # its header is looked at
    half = {**coco, "annotations": coco["annotations"][::2]}

    def work() -> None:
        copy = human_labeler(coco)
        some = {a["id"] for a in half["annotations"]}
        labels = label_dataset(
            coco,
            tmp_path,
            lambda shard, images: {k: v for k, v in copy(shard, images).items() if k in some},
            folder=tmp_path,
            shard_images=1,
        )
        assert sum(a.get("flagged", False) for a in labels["annotations"]) == COUNT / 2
        assert mask_quality(labels, half)[0]["iou"] == 1.0

    assert peak(work) < SIDE**2 / 10


@pytest.mark.parametrize("labeler", [box, ellipse, grabcut])
def test_baselines_work_by_box(labeler):
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    pixels = np.lib.stride_tricks.as_strided(pixels, (SIDE, SIDE, 3), (0, 0, 1))  # a black image without memory
    boxes = np.array([a["bbox"] for a in aerial()["annotations"][:20]])
    assert peak(lambda: labeler.masks(pixels, boxes)) < SIDE**2 / 10


def test_a_preview_keeps_one_image_of_a_byte_a_channel(tmp_path: Path):
    side = 5000
    Image.new("RGB", (side, side), "grey").save(tmp_path / "a.png", compress_level=1)
    (tmp_path / "labels.json").write_text(json.dumps(aerial(side)))
    labels, out = tmp_path / "labels.json", tmp_path / "sheet.png"
    used = peak(lambda: draw_sheet(labels, tmp_path, human=None, out=out, examples=8))
    assert used < 8 * side**2  # most of it is the sheet's; floats of the image alone would be three times as much
