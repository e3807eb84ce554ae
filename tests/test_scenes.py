"""Procedural scenes with expressions: exact, recognisable, and every expression means one object."""

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mal.data import scenes
from mal.data.annotations import decode_mask, read
from mal.data.expressions import of_annotation, words
from mal.data.images import load_for
from mal.data.scene_expressions import COLOURS, FORMS
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.metrics.masks import iou
from mal.request import Graph
from tests.test_shapes import _hashes

SIZE = 64


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    return [scenes.draw(index, size=SIZE, seed=0, split="train") for index in range(150)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder, images=5, size=SIZE, seed=3, split="val")
    return folder


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def meant(text: str, scene: scenes.Scene) -> list[int]:
    """The places of the objects that an expression means, as a reader would find them."""
    match = re.fullmatch(r"the (?:(\w+?)(most)? )??(?:(red|yellow|green|blue) )?(\w+)", text)
    assert match, text
    side, most, colour, noun = match.groups()
    group = []
    for place, shape in enumerate(scene.shapes):
        own_colour, own_form = scenes.CATEGORIES[shape.category].split()
        if noun in ("shape", own_form) and colour in (None, own_colour):
            group.append(place)
    if side is None:
        return group
    assert len(group) == 2 if most is None else len(group) > 2, text
    axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[side]
    at = {place: sign * (box(scene.shapes[place].visible)[axis] + box(scene.shapes[place].visible)[axis + 2]) / 2
          for place in group}  # fmt: skip
    return [p for p in group if all(at[other] - at[p] >= 0.05 * SIZE for other in group if other != p)]


def test_every_expression_means_its_object_and_no_other(drawn: list[scenes.Scene]) -> None:
    for scene in drawn:
        for place, texts in enumerate(scene.expressions):
            assert 1 <= len(texts) <= scenes.MOST
            assert len({*texts}) == len(texts)
            for text in texts:
                assert meant(text, scene) == [place]
                assert words(text) == text.split()


def test_expressions_speak_of_forms_colours_and_all_sides(drawn: list[scenes.Scene]) -> None:
    used = Counter(word for scene in drawn for texts in scene.expressions for text in texts for word in text.split())
    sides = {side + end for side in ("left", "right", "top", "bottom") for end in ("", "most")}
    assert used.keys() == {"the", "shape", *FORMS, *COLOURS, *sides}
    placed = [bool(sides & {*text.split()}) for scene in drawn for texts in scene.expressions for text in texts]
    assert 0.4 < np.mean(placed) < 0.7  # neither looks nor places alone tell objects apart
    assert np.mean([len(texts) for scene in drawn for texts in scene.expressions]) > 2.5


def test_scenes_hold_two_to_five_objects_of_all_kinds_that_occlude_each_other(drawn: list[scenes.Scene]) -> None:
    assert {len(scene.shapes) for scene in drawn} == {2, 3, 4, 5}
    assert {shape.category for scene in drawn for shape in scene.shapes} == {*range(16)}
    hidden = [(shape.whole & ~shape.visible).any() for scene in drawn for shape in scene.shapes]
    assert 0.2 < np.mean(hidden) < 0.6
    for scene in drawn:
        assert np.sum([shape.visible for shape in scene.shapes], axis=0).max() == 1
        assert all(shape.visible.sum() >= 0.55 * shape.whole.sum() for shape in scene.shapes)


def test_neither_a_filled_box_nor_an_ellipse_is_the_shape(drawn: list[scenes.Scene]) -> None:
    """Else who learns boxes alone would have masks."""
    boxes, ellipses = [], []
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for shape in (shape for scene in drawn for shape in scene.shapes):
        left, top, right, bottom = box(shape.visible)
        boxes.append(iou((x > left) & (x < right) & (y > top) & (y < bottom), shape.visible))
        away = ((2 * x - left - right) / (right - left)) ** 2 + ((2 * y - top - bottom) / (bottom - top)) ** 2
        ellipses.append(iou(away <= 1, shape.visible))
    assert 0.4 < np.mean(boxes) < 0.55
    assert 0.45 < np.mean(ellipses) < 0.6


def test_colours_can_be_told_by_a_rule_that_knows_nothing_of_the_drawing(drawn: list[scenes.Scene]) -> None:
    centres = np.deg2rad([0, 56, 125, 226])
    right = []
    for scene in drawn[:60]:
        hsv = cv2.cvtColor(scene.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        for shape in scene.shapes:
            hue, saturation, value = hsv[shape.visible].T
            mean = (np.exp(1j * np.deg2rad(hue)) * saturation * value).sum()
            right.append(np.cos(np.angle(mean) - centres).argmax() == shape.category % 4)
    assert np.mean(right) > 0.98


def test_forms_can_be_told_by_their_outlines(drawn: list[scenes.Scene]) -> None:
    """Of whole silhouettes: hull share and moments' roundness separate what is drawn as different."""
    solid: dict[str, list[float]] = {form: [] for form in FORMS}
    for shape in (shape for scene in drawn for shape in scene.shapes):
        whole = shape.whole
        if whole[0].any() or whole[-1].any() or whole[:, 0].any() or whole[:, -1].any():
            continue
        contour = max(cv2.findContours(whole.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
        hull = np.zeros_like(whole, dtype=np.uint8)
        cv2.fillPoly(hull, [cv2.convexHull(contour)], 1)
        solid[FORMS[shape.category // 4]].append(whole.sum() / hull.sum())
    medians = {form: float(np.median(found)) for form, found in solid.items()}
    assert medians["triangle"] > 0.9
    assert all(0.4 < medians[form] < 0.8 for form in ("star", "cross", "moon"))


def test_the_same_request_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    scenes.generate(tmp_path, images=5, size=SIZE, seed=3, split="val")
    assert _hashes(tmp_path) == _hashes(written)
    train, val = (scenes.draw(0, size=SIZE, seed=3, split=split) for split in ("train", "val"))
    assert not np.array_equal(train.pixels, val.pixels)


def test_the_files_hold_exactly_what_was_drawn(written: Path) -> None:
    coco = read(written / "annotations.json", masks=True)
    assert [category["name"] for category in coco["categories"]] == [*scenes.CATEGORIES]
    assert scenes.CATEGORIES[4 * FORMS.index("moon") + COLOURS.index("green")] == "green moon"
    for index, image in enumerate(coco["images"]):
        scene = scenes.draw(index, size=SIZE, seed=3, split="val")
        np.testing.assert_array_equal(load_for(image, written / "images").permute(1, 2, 0).numpy(), scene.pixels)
        entries = [entry for entry in coco["annotations"] if entry["image_id"] == image["id"]]
        for entry, shape, texts in zip(entries, scene.shapes, scene.expressions, strict=True):
            assert entry["category_id"] == shape.category + 1
            assert of_annotation(entry) == texts
            np.testing.assert_array_equal(decode_mask(entry["segmentation"], height=SIZE, width=SIZE), shape.visible)


def test_they_are_drawn_where_data_asks_for_them(compose, tmp_path: Path) -> None:
    config = compose("data=scenes", "labeler=box", "segmenter=none", "compare=[]", f"store={tmp_path}")
    stages = in_order(Graph(config, Store(tmp_path), torch.device("cpu")).targets())
    (drawing,) = [stage for stage in stages if stage.name == "shapes_val"]
    assert drawing.config == {"images": 100, "size": 64, "seed": 0, "split": "val", "kind": "scenes"}
