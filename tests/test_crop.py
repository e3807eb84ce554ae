"""A crop shows what the whole image shows there, and nothing else."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.data.annotations import encode_mask
from mal.segmenters.config import ScaleConfig
from mal.segmenters.crop import View, padded, random_view
from mal.segmenters.data import MIN_SIDE, TrainingSet, _boxes, _masks, _seen, resized

sizes = st.integers(20, 90)


@settings(deadline=None, max_examples=60)
@given(height=sizes, width=sizes, seed=st.integers(0, 10**6), short=st.integers(10, 120))
def test_a_crop_lies_inside_and_has_the_sides_it_may_have(height: int, width: int, seed: int, short: int) -> None:
    shown = resized(height, width, short=short, long=150)
    view = random_view(height, width, shown=shown, sides=(30, 60), generator=np.random.default_rng(seed))
    assert 0 <= view.left < view.right <= width
    assert 0 <= view.top < view.bottom <= height
    for length, full, small in ((view.height, height, shown[0]), (view.width, width, shown[1])):
        seen = length * small / full  # in pixels of the image its sides are meant in; rounded outwards
        assert min(30, small) - 1e-6 <= seen <= min(60, small) + 2 * small / full + 1e-6


def test_crops_reach_every_length_and_every_corner() -> None:
    generator = np.random.default_rng(0)
    views = [random_view(50, 80, shown=(50, 80), sides=(38, 60), generator=generator) for _ in range(3000)]
    assert {view.height for view in views} == set(range(38, 51))
    assert {view.width for view in views} == set(range(38, 61))
    assert min(view.left for view in views) == 0
    assert max(view.right for view in views) == 80
    full = [view for view in views if view.height == 50]
    assert len(full) / len(views) == pytest.approx(1 / 13, abs=0.02)  # each length as often


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_boxes_and_masks_of_a_crop_are_those_of_the_image(data: st.DataObject) -> None:
    height, width = data.draw(sizes), data.draw(sizes)
    x, y = data.draw(st.integers(0, width - 2)), data.draw(st.integers(0, height - 2))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    view = random_view(
        height,
        width,
        shown=(height, width),
        sides=(5, 40),
        generator=np.random.default_rng(data.draw(st.integers(0, 99))),
    )
    mask = np.zeros((height, width), dtype=bool)
    mask[y : y + h, x : x + w] = True
    annotation = {"bbox": [x, y, w, h], "segmentation": encode_mask(mask)}
    expected = torch.from_numpy(mask)[view.top : view.bottom, view.left : view.right]
    assert _seen(annotation["bbox"], view) == bool(expected.any())
    if not expected.any():
        return
    entry = {"height": height, "width": width}
    doubled = (2 * view.height, 2 * view.width)
    shown = _masks(entry, view, [annotation], doubled)[0].bool()
    assert torch.equal(shown, expected.repeat_interleave(2, 0).repeat_interleave(2, 1))
    rows, columns = shown.nonzero().unbind(1)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert _boxes(view, [annotation], doubled)[0].tolist() == pytest.approx([float(value) for value in extent])


def test_a_box_seen_by_less_than_a_pixel_is_left_out() -> None:
    view = View(left=10, top=0, right=30, bottom=20)
    assert MIN_SIDE == 1
    assert _seen([5, 5, 6, 10], view)
    assert not _seen([5, 5, 5.9, 10], view)
    assert not _seen([31, 5, 4, 4], view)
    assert not _seen([0, 5, 4, 4], view)


def test_a_crop_without_objects_is_a_sample_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[14:24, 22:34] = True
    pixels[mask] = 255
    cv2.imwrite(str(tmp_path / "1.png"), pixels)
    annotation = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [22, 14, 12, 10], "iscrowd": 0}
    coco = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [annotation | {"segmentation": encode_mask(mask)}],
        "categories": [{"id": 5, "name": "thing"}],
    }
    scale = ScaleConfig(short_sides=[40], long_side=60, crop=0.5, crop_short_sides=[40], crop_sides=[12, 20])
    samples = TrainingSet(coco, images=tmp_path, scale=scale, seed=0, masks=True, class_agnostic=False)
    counts = {"whole": 0, "with": 0, "without": 0}
    for epoch in range(60):
        sample = samples[epoch, 0]
        size, found = tuple(sample.image.shape[1:]), len(sample.boxes_xyxy)
        counts["whole" if size == (40, 60) else "with" if found else "without"] += 1
        assert sample.boxes_xyxy.shape == (found, 4)
        assert sample.masks.shape == (found, *size)
        assert sample.labels.shape == (found,)
        assert sample.labels.dtype == torch.int64
        if found:  # the object is white
            assert sample.image[:, sample.masks[0].bool()].float().mean() > 180
    assert min(counts.values()) >= 3
    assert 20 <= counts["whole"] <= 40


def test_padding_fills_to_the_right_and_below():
    assert padded(torch.ones(1, 1, 2), (2, 3), 128).tolist() == [[[1, 1, 128], [128, 128, 128]]]
