"""RoI batches: what a crop shows, how often images are decoded, and that draws follow the annotation."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mal.data import rois
from mal.data.config import RoiConfig
from mal.errors import AnnotationError, ImageError

CONFIG = RoiConfig(32, "released", 1.2, 0.3, "wrap", 0.5, 2, 16, 1e10)
NOWHERE = Path("nowhere")


def dataset(images: int = 7, boxes: int = 5) -> dict[str, Any]:
    """`boxes` boxes on each of some 60 × 80 images."""
    return {
        "images": [{"id": i, "height": 60, "width": 80, "file_name": f"{i}.png"} for i in range(images)],
        "annotations": [
            {"id": 100 * i + b, "image_id": i, "bbox": [5.0 + 3 * b, 4.0 + b, 20.0 + b, 15.0 + 2 * b], "category_id": 1}
            for i in range(images)
            for b in range(boxes)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


class Decoder:
    """Draws image i as a gradient that names its pixels, and counts how often: in this process."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()

    def __call__(self, image: dict[str, Any], _folder: Path) -> torch.Tensor:
        self.calls[image["id"]] += 1
        rows = torch.arange(image["height"])[:, None].expand(-1, image["width"])
        columns = torch.arange(image["width"])[None].expand(image["height"], -1)
        return torch.stack([rows * 2, columns * 2, torch.full_like(rows, image["id"])]).to(torch.uint8)


def stream(
    config: RoiConfig = CONFIG, *, workers: int = 0, batch: int = 4, pool: int = 3, **kwargs: Any
) -> tuple[rois.TrainingRois, Decoder]:
    decoder = Decoder()
    made = rois.TrainingRois(
        dataset(**kwargs),
        NOWHERE,
        config=config,
        batch=batch,
        pool_images=pool,
        seed=0,
        workers=workers,
        loader=decoder,
    )
    return made, decoder


def test_every_box_comes_once_an_epoch_and_every_image_is_decoded_once():
    made, decoder = stream(batch=5)
    ids = [i for batch in made.batches(0, 7) for i in batch.ids.tolist()]  # 35 boxes: one epoch
    assert sorted(ids) == sorted(a["id"] for a in dataset()["annotations"])
    assert set(decoder.calls.values()) == {1}


def test_a_batch_mixes_boxes_of_several_images():
    made, _ = stream(batch=10, pool=7)
    assert all(len({i // 100 for i in batch.ids.tolist()}) >= 3 for batch in made.batches(0, 3))


def test_epochs_differ_in_order_and_crops():
    made, _ = stream()
    first, second = (np.concatenate(list(made.order(epoch))).tolist() for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(made.count))
    windows: dict[int, set[tuple[int, ...]]] = {}
    for batch in made.batches(0, 36):
        for key, window in zip(batch.ids.tolist(), batch.windows.tolist(), strict=True):
            windows.setdefault(key, set()).add(tuple(window))
    assert all(len(seen) > 1 for seen in windows.values())


def assert_same(ours: rois.RoiBatch, theirs: rois.RoiBatch) -> None:
    for field in fields(rois.RoiBatch):
        first, second = getattr(ours, field.name), getattr(theirs, field.name)
        assert first.dtype == second.dtype
        assert torch.equal(first, second)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bits_are_the_same_in_any_number_of_processes(workers):
    reference = list(stream()[0].batches(0, 20))  # 80 of 35 boxes an epoch: two ends of an epoch inside
    for ours, theirs in zip(stream(workers=workers)[0].batches(0, 20), reference, strict=True):
        assert_same(ours, theirs)
    half = slice(2, 4)
    for ours, theirs in zip(stream(workers=workers)[0].batches(7, 12, part=half), reference[7:12], strict=True):
        assert torch.equal(ours.ids, theirs.ids[half])
        assert torch.equal(ours.pixels, theirs.pixels[half])


def test_batches_that_are_kept_are_not_written_over():
    """Processes write to the same memory again and again; what the caller has is a copy."""
    kept = list(stream(workers=2)[0].batches(0, 20))
    for ours, theirs in zip(kept, stream()[0].batches(0, 20), strict=True):
        assert torch.equal(ours.pixels, theirs.pixels)


def test_neither_pools_nor_the_first_step_change_a_roi():
    reference = list(stream()[0].batches(0, 12))
    late = list(stream()[0].batches(9, 12))  # steps 8 and 9 lie on both sides of an epoch's end
    for ours, theirs in zip(late, reference[9:], strict=True):
        assert_same(ours, theirs)
    windows = {i: w for batch in reference[:8] for i, w in zip(batch.ids.tolist(), batch.windows.tolist(), strict=True)}
    pooled = {
        i: w
        for batch in stream(pool=7)[0].batches(0, 8)
        for i, w in zip(batch.ids.tolist(), batch.windows.tolist(), strict=True)
    }
    assert all(windows[i] == window for i, window in pooled.items() if i in windows)  # boxes both met in epoch 0


def test_a_small_set_fills_every_step():
    made, _ = stream(images=1, boxes=3, batch=8)
    assert all(len(batch) == 8 for batch in made.batches(0, 3))


def test_a_crop_shows_the_window_and_its_lines_mark_the_box():
    config = RoiConfig(64, "released", 0.0, 0.3, "wrap", 0.0, 2, 16, 1e10)
    made, _ = stream(config)
    batch = next(made.batches(0, 1))
    for row in range(len(batch)):
        x0, y0, x1, y1 = batch.windows[row].tolist()
        top, left = batch.pixels[row, 0, 0, 0].item() / 2, batch.pixels[row, 1, 0, 0].item() / 2
        assert top == pytest.approx(y0, abs=1)
        assert left == pytest.approx(x0, abs=1)
        rows, columns = batch.box_lines(64)
        cell_height, cell_width = (y1 - y0) / 64, (x1 - x0) / 64
        _, sy0, _, sy1 = batch.spans[row].tolist()
        assert rows[row].sum().item() * cell_height == pytest.approx(sy1 - sy0, abs=2 * cell_height)
        assert columns[row].any()
        assert cell_width > 0


def test_a_mirrored_crop_mirrors_its_columns():
    plain = next(stream(RoiConfig(**{**vars(CONFIG), "flip": 0.0}))[0].batches(0, 1))
    mirrored = next(stream(RoiConfig(**{**vars(CONFIG), "flip": 1.0}))[0].batches(0, 1))
    assert mirrored.flipped.all()
    assert torch.equal(mirrored.pixels, plain.pixels.flip(-1))
    assert torch.equal(mirrored.box_lines(32)[1], plain.box_lines(32)[1].flip(1))
    assert torch.equal(mirrored.box_lines(32)[0], plain.box_lines(32)[0])


def test_padding_pixels_count_nowhere_and_only_with_a_constant_border():
    for border in ("constant", "wrap", "reflect", "clip"):
        config = RoiConfig(32, "released", 1.2, 3.0, border, 0.0, 2, 16, 1e10)
        coco = dataset(images=1, boxes=1)
        ((_, batch),) = rois.labelling_batches(coco, NOWHERE, config=config, batch=8, workers=0, loader=Decoder())
        rows, columns = batch.valid_lines(32)
        assert (rows.all() and columns.all()) == (border != "constant")


def test_the_training_filter_keeps_boxes_between_the_areas_and_says_when_none_is_left():
    boxes = [[0, 0, 2, 50], [0, 0, 50, 2], [0, 0, 40, 40], [0, 0, 3, 3]]
    config = RoiConfig(32, "released", 1.2, 0.3, "wrap", 0.5, 2, 100, 10_000)
    assert [rois.usable({"bbox": b}, config, training=True) for b in boxes] == [False, False, True, False]
    assert [rois.usable({"bbox": b}, config, training=False) for b in boxes] == [False, False, True, True]
    with pytest.raises(AnnotationError, match=r"lower roi\.min_area"):
        stream(RoiConfig(**{**vars(CONFIG), "min_area": 1e9}))


def test_labelling_visits_every_box_once_and_decodes_each_image_once():
    decoder = Decoder()
    found = list(rois.labelling_batches(dataset(), NOWHERE, config=CONFIG, batch=8, workers=0, loader=decoder))
    assert [len(batch) for _, batch in found] == [8, 8, 8, 8, 3]
    assert [a["id"] for annotations, _ in found for a in annotations] == [a["id"] for a in dataset()["annotations"]]
    assert [i for _, batch in found for i in batch.ids.tolist()] == [a["id"] for a in dataset()["annotations"]]
    assert set(decoder.calls.values()) == {1}
    ahead = rois.labelling_batches(dataset(), NOWHERE, config=CONFIG, batch=8, workers=3, loader=decoder)
    for (ours, batch), (theirs, reference) in zip(ahead, found, strict=True):
        assert ours == theirs
        assert_same(batch, reference)


def test_nothing_to_label_is_no_batch():
    empty = dataset(boxes=0)
    assert list(rois.labelling_batches(empty, NOWHERE, config=CONFIG, batch=8, workers=2, loader=Decoder())) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_reaches_the_caller_as_its_own_sentence(workers):
    def broken(image: dict[str, Any], _folder: Path) -> torch.Tensor:
        raise ImageError(f"cannot read {image['file_name']}")

    made = rois.TrainingRois(
        dataset(images=1), NOWHERE, config=CONFIG, batch=4, pool_images=3, seed=0, workers=workers, loader=broken
    )
    with pytest.raises(ImageError, match=r"^cannot read 0\.png$"):
        next(made.batches(0, 2))


def test_crops_of_a_photograph_agree_with_pillow(coco_mini):
    from PIL import Image

    path = sorted((coco_mini / "val2017").glob("*.jpg"))[0]
    image = Image.open(path).convert("RGB")
    pixels = (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        .reshape(image.height, image.width, 3)
        .permute(2, 0, 1)
    )
    for window in ((10, 20, 200, 180), (50, 50, 80, 75)):
        ours = rois.cut(pixels, window, size=96, border="wrap").int()
        theirs = torch.tensor(bytearray(image.crop(window).resize((96, 96), Image.Resampling.BICUBIC).tobytes()))
        assert (ours - theirs.reshape(96, 96, 3).permute(2, 0, 1).int()).abs().max() <= 2


def test_a_batch_is_filled_up_with_its_own_rows():
    made, _ = stream(batch=3)
    batch = next(iter(made.batches(0, 1)))
    whole = batch.filled_up(8)
    assert len(whole) == 8
    for field in fields(batch):
        found, expected = getattr(whole, field.name), getattr(batch, field.name)
        assert torch.equal(found, expected[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert batch.filled_up(3) is batch
