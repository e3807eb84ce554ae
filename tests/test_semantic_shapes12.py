"""Procedural scenes of twelve classes: exact, and each class can be told at the size it is drawn in."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mal.data import shapes12
from mal.data.annotations import decode_mask, read
from mal.data.class_maps import write_class_maps
from mal.data.images import load_for
from mal.data.shapes import TEXTURES, Shape
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.request import Graph
from tests.test_shapes import _hashes

SIZE = 96
Drawn = list[tuple[np.ndarray, list[Shape]]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return [shapes12.draw(index, size=SIZE, seed=0, split="train") for index in range(40)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes12")
    shapes12.generate(folder, images=4, size=SIZE, seed=3, split="val")
    return folder


def test_the_same_request_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    shapes12.generate(tmp_path, images=4, size=SIZE, seed=3, split="val")
    assert _hashes(tmp_path) == _hashes(written)
    other, _ = shapes12.draw(0, size=SIZE, seed=3, split="train")
    assert not np.array_equal(other, shapes12.draw(0, size=SIZE, seed=3, split="val")[0])


def test_the_files_hold_exactly_what_was_drawn(written: Path, tmp_path: Path) -> None:
    coco = read(written / "annotations.json", masks=True)
    semantic = write_class_maps(tmp_path / "semantic.json", coco, ground="class", groups=False)
    assert semantic.classes == (*shapes12.CATEGORIES, "ground")
    for index, image in enumerate(coco["images"]):
        pixels, shapes = shapes12.draw(index, size=SIZE, seed=3, split="val")
        np.testing.assert_array_equal(load_for(image, written / "images").permute(1, 2, 0).numpy(), pixels)
        expected = np.full((SIZE, SIZE), 12)
        entries = [it for it in coco["annotations"] if it["image_id"] == image["id"]]
        for entry, shape in zip(entries, shapes, strict=True):
            assert entry["category_id"] == shape.category + 1
            np.testing.assert_array_equal(decode_mask(entry["segmentation"], height=SIZE, width=SIZE), shape.visible)
            expected[shape.visible] = shape.category
        np.testing.assert_array_equal(semantic.map_of(semantic.images[index]), expected)


def test_a_class_is_a_texture_and_a_hue() -> None:
    assert shapes12.CATEGORIES[3 * TEXTURES.index("checkered") + 2] == "checkered blue"
    assert len({*shapes12.CATEGORIES}) == 12


def test_scenes_hold_three_to_five_objects_of_all_classes_that_occlude_each_other(drawn: Drawn) -> None:
    assert {len(shapes) for _, shapes in drawn} == {3, 4, 5}
    assert {shape.category for _, shapes in drawn for shape in shapes} == {*range(12)}
    hidden = [(shape.whole & ~shape.visible).any() for _, shapes in drawn for shape in shapes]
    assert 0.2 < np.mean(hidden) < 0.8
    covered = [np.logical_or.reduce([shape.visible for shape in shapes]).mean() for _, shapes in drawn]
    assert 0.3 < np.mean(covered) < 0.55


def test_hue_and_texture_can_be_seen(drawn: Drawn) -> None:
    """By rules that know nothing of how it was drawn: the mean hue's nearest name; plain objects vary less."""
    centres = np.deg2rad([15, 120, 235])
    right, spread = [], {texture: [] for texture in TEXTURES}
    for pixels, shapes in drawn:
        hsv = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        for shape in shapes:
            inside = cv2.erode(shape.visible.astype(np.uint8), np.ones((3, 3))).astype(bool)
            hue, saturation, value = hsv[inside].T
            mean = (np.exp(1j * np.deg2rad(hue)) * saturation * value).sum()  # dark pixels have no hue worth counting
            right.append(np.cos(np.angle(mean) - centres).argmax() == shape.category % 3)
            spread[TEXTURES[shape.category // 3]].append(value.std())
    assert np.mean(right) > 0.97
    medians = {texture: np.median(found) for texture, found in spread.items()}
    assert medians["plain"] < 0.6 * min(medians[texture] for texture in TEXTURES[:3])


def test_the_ground_is_greyer_than_objects(drawn: Drawn) -> None:
    saturations = {True: [], False: []}
    for pixels, shapes in drawn:
        covered = np.logical_or.reduce([shape.visible for shape in shapes])
        saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[:, :, 1] / 255
        for inside in (True, False):
            saturations[inside].append(np.median(saturation[covered == inside]))
    assert all(ground < 0.4 for ground in saturations[False])
    assert np.mean(saturations[True]) > 0.6


def test_it_is_drawn_where_data_asks_for_it(compose, tmp_path: Path) -> None:
    config = compose("data=shapes12", "labeler=box", "segmenter=none", "compare=[]", f"store={tmp_path}")
    assert (config.data.shapes.size, config.data.semantic.ground, config.data.semantic.groups) == (96, "class", False)
    stages = in_order(Graph(config, Store(tmp_path), torch.device("cpu")).targets())
    (drawing,) = [stage for stage in stages if stage.name == "shapes_val"]
    assert drawing.config == {"images": 100, "size": 96, "seed": 0, "split": "val", "kind": "shapes12"}
