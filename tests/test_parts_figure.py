"""Figures of parts, maps and own detections: what lies where, and in which colour."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from test_figure_numbers import record

from analysis.figures import draw_all
from analysis.figures.drawn import styled
from analysis.figures.own_detections import own_detections
from analysis.figures.parts import FAINT, SHADE, cut, maps_and_masks, part_maps
from analysis.figures.results import Results
from analysis.figures.series import COLOURS
from analysis.records import finished

SIDE, GREY = 8, 100
COLUMNS = {
    "labeler": "attentionshift", "recipe": "paper", "encoder": "vit_nano16", "key_points": "shift",
    "taught_by": "parts points", "data": "parts", "profile": "smoke", "seed": 0,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One image of 16 × 16, one object in its middle; its parts: none, then a left and a right half."""
    root = tmp_path / "runs"
    made = [
        record("shapes_val", "s", data="parts", profile="smoke"),
        record("train_attentionshift", "t", **COLUMNS),
        record("parts_val", "p", inputs=["shapes_val/s", "train_attentionshift/t"], **COLUMNS),
        record("detect_attentionshift", "d", inputs=["train_attentionshift/t"], **COLUMNS),
        record("own_ap_val", "a", inputs=["detect_attentionshift/d", "shapes_val/s"], **COLUMNS),
    ]
    made[-1]["metrics"] = {"mask_map50": {"value": 0.25, "n": 1}}
    for one in made:
        folder = root / one["stage"] / one["key"]
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(one))
    images = root / "shapes_val" / "s" / "images"
    images.mkdir()
    Image.fromarray(np.full((16, 16, 3), GREY, dtype=np.uint8)).save(images / "1.png")
    square = [[4, 4, 12, 4, 12, 12, 4, 12]]
    human = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [4, 4, 8, 8], "segmentation": square, "iscrowd": 0}
    coco = {"images": [{"id": 1, "file_name": "1.png", "width": 16, "height": 16}], "annotations": [human]}
    (images.parent / "annotations.json").write_text(json.dumps({**coco, "categories": [{"id": 1, "name": "a"}]}))
    parts = np.zeros((1, 2, 3, SIDE, SIDE), dtype=np.uint8)
    parts[0, 1, 0, :, :4], parts[0, 1, 1, :, 4:] = 255, 255
    points = np.full((1, 2, 3, 2), np.nan, dtype=np.float32)
    points[0, 1, :2] = [[0.3, 0.5], [0.7, 0.5]]
    mask = np.zeros((1, SIDE, SIDE), dtype=bool)
    mask[0, 2:6, 2:6] = True
    np.savez(
        root / "parts_val" / "p" / "parts.npz",
        ids=np.array([7]), windows=np.array([[0, 0, 16, 16]]), points=np.array([[0.5, 0.5]]),
        boxes=np.array([[0.25, 0.25, 0.75, 0.75]]), attention=np.full((1, SIDE, SIDE), 51, np.uint8),
        foreground=np.full((1, SIDE, SIDE), 204, np.uint8), mask=mask, rounds=np.array([0, 10]), parts=parts,
        found=np.array([[0, 2]]), key_points=points,
    )  # fmt: skip
    detection = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": square, "bbox": [4, 4, 8, 8]}
    (root / "detect_attentionshift" / "d" / "predictions.json").write_text(json.dumps([detection]))
    return root


def pictures(store: Path, draw) -> tuple[list[np.ndarray], list[str], str]:
    """What a figure shows, picture by picture; the rows' titles; its caption."""
    with styled():
        (sketch,) = draw(Results.of(store, finished(store)))
    assert sketch.figure is not None, sketch.left_out
    axes = [one for one in sketch.figure.axes if one.images]
    return [np.asarray(one.images[0].get_array()) for one in axes], [one.get_ylabel() for one in axes], sketch.caption


def test_parts_are_coloured_inside_the_box_by_what_is_most_alike(store: Path) -> None:
    (photo, before, after), titles, caption = pictures(store, part_maps)
    assert titles == ["image, point, box", "0 rounds", "10 rounds"]
    paled = 0.5 * GREY / 255 + 0.5
    np.testing.assert_allclose(photo, GREY / 255)
    np.testing.assert_allclose(before, paled)
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[2:6, 2:6] = True
    np.testing.assert_allclose(after[~inside], paled)
    for half, colour in ((after[2:6, 2:4], COLOURS[0]), (after[2:6, 4:6], COLOURS[1])):
        np.testing.assert_allclose(
            half.reshape(-1, 3), [SHADE * c + (1 - SHADE) * paled for c in [np.array(to_rgb(colour))]] * 8
        )
    assert f"none below {FAINT:g}" in caption
    assert "Rule: 1 object at equal steps" in caption


def test_maps_stand_above_the_mask_and_the_human_one(store: Path) -> None:
    found, titles, _ = pictures(store, maps_and_masks)
    assert titles == ["image, point, box", "attention", "foreground", "mask", "human mask"]
    assert (set(found[1].flat), set(found[2].flat)) == ({51}, {204})
    tinted = [(picture != GREY / 255).any(2) for picture in found[3:]]
    expected = np.zeros((SIDE, SIDE), dtype=bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(tinted[0], expected)
    np.testing.assert_array_equal(tinted[1], expected)  # pixels 4 … 12 of 16
    assert not np.allclose(found[3], found[4])


def test_own_detections_stand_below_human_masks(store: Path) -> None:
    found, titles, caption = pictures(store, own_detections)
    assert (titles[0], titles[1]) == ("human masks", "detections\nmAP50 0.250")
    np.testing.assert_array_equal(found[0], found[1])  # the same object, the same colour
    assert "AttentionShift's own detector (vit_nano16, recipe paper, seed 0)" in caption


def test_a_square_beyond_the_image_is_filled() -> None:
    pixels = np.arange(12.0).reshape(3, 4)
    found = cut(pixels, np.array([-2, -2, 4, 4]), 6, -1)
    np.testing.assert_array_equal(found[2:5, 2:], pixels)
    assert (found[:2] == -1).all()
    assert (found[5] == -1).all()
    np.testing.assert_array_equal(cut(pixels, np.array([1, 0, 3, 2]), 4, -1), pixels[:2, 1:3].repeat(2, 0).repeat(2, 1))


def test_figures_are_written_and_what_is_missing_is_named(store: Path, tmp_path: Path) -> None:
    drawn = {one.title: one for one in draw_all(store, tmp_path, ["parts", "maps", "detector"])}
    assert {one.png.name for one in drawn.values() if one.png} == {
        "parts_parts_smoke.png", "maps_parts_smoke.png", "detector_parts_smoke.png",
    }  # fmt: skip
    (store / "parts_val" / "p" / "parts.npz").unlink()
    (one,) = draw_all(store, tmp_path, ["parts"])
    assert one.png is None
    assert "parts.npz cannot be read" in one.reason
