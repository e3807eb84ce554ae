"""Procedural objects of parts: exact, no easier than photographs, and classes that no single texture gives away."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mal.data import parts, shapes
from mal.data.annotations import CocoDict, decode_mask, read
from mal.data.boxes import size_class
from mal.data.images import load_for
from mal.data.views import VIEWS
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.methods.baselines import box, ellipse
from mal.metrics.masks import iou
from mal.request import Graph
from tests.test_shapes import _hashes

SIZE, SEED, IMAGES = 256, 0, 150
Drawn = list[tuple[np.ndarray, list[tuple[shapes.Shape, list[shapes.Shape]]]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CocoDict, CocoDict]:
    folder = tmp_path_factory.mktemp("parts")
    parts.generate(folder, images=8, size=128, seed=3, split="train")
    return folder, *(read(folder / name, masks=True) for name in ("annotations.json", "parts.json"))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return [parts.draw(index, size=SIZE, seed=SEED, split="train") for index in range(IMAGES)]


def test_the_same_request_gives_the_same_bytes(written, tmp_path: Path) -> None:
    parts.generate(tmp_path, images=8, size=128, seed=3, split="train")
    assert _hashes(tmp_path) == _hashes(written[0])
    assert len(_hashes(tmp_path)) == 10


def test_files_hold_exactly_what_was_drawn(written) -> None:
    folder, objects, inside = written
    assert [category["name"] for category in objects["categories"]] == list(parts.CATEGORIES)
    assert [category["name"] for category in inside["categories"]] == list(shapes.TEXTURES)
    of_object: dict[int, list] = {annotation["id"]: [] for annotation in objects["annotations"]}
    for part in inside["annotations"]:
        of_object[part["object_id"]].append(part)
    annotations = iter(objects["annotations"])
    for index, image in enumerate(objects["images"]):
        pixels, shown = parts.draw(index, size=128, seed=3, split="train")
        np.testing.assert_array_equal(load_for(image, folder / "images").permute(1, 2, 0).numpy(), pixels)
        for whole, its_parts in shown:
            annotation = next(annotations)
            assert (annotation["image_id"], annotation["category_id"]) == (image["id"], whole.category + 1)
            entries = of_object[annotation["id"]]
            for entry, shape in [(annotation, whole), *zip(entries, its_parts, strict=True)]:
                mask = decode_mask(entry["segmentation"], height=128, width=128)
                np.testing.assert_array_equal(mask, shape.visible)
                assert entry["area"] == mask.sum()
                assert entry["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))
            assert [(e["image_id"], e["category_id"] - 1) for e in entries] == [
                (image["id"], part.category) for part in its_parts
            ]
    assert next(annotations, None) is None


def test_parts_are_disjoint_and_together_the_object(drawn: Drawn) -> None:
    for _, objects in drawn:
        for whole, inside in objects:
            for view in ("whole", "visible"):
                total = np.sum([getattr(part, view) for part in inside], axis=0)
                np.testing.assert_array_equal(total, getattr(whole, view).astype(int))
            assert all(part.visible.any() for part in inside)


def test_every_object_shows_both_textures_of_its_class_and_no_other(drawn: Drawn) -> None:
    counts = np.zeros(5, dtype=int)
    for _, objects in drawn:
        for whole, inside in objects:
            counts[len(inside)] += 1
            names = {shapes.TEXTURES[part.category] for part in inside}
            assert "-".join(sorted(names, key=shapes.TEXTURES.index)) == parts.CATEGORIES[whole.category]
    assert counts[:2].sum() == 0
    assert (counts[2:] / counts.sum()).min() > 0.1


def test_no_texture_alone_tells_the_class(drawn: Drawn) -> None:
    """Whoever knows one texture of an object knows its class in little more than a third of the cases."""
    table = np.zeros((len(shapes.TEXTURES), len(parts.CATEGORIES)))
    for _, objects in drawn:
        for whole, inside in objects:
            for texture in {part.category for part in inside}:
                table[texture, whole.category] += 1
    assert ((table > 0).sum(axis=1) == 3).all()
    assert (table.max(axis=1) / table.sum(axis=1)).max() < 0.45
    per_class = table.sum(axis=0) / table.sum()
    assert per_class.min() > 0.12


def test_parts_of_an_object_are_not_slivers(drawn: Drawn) -> None:
    every = [(whole, part) for _, objects in drawn for whole, inside in objects for part in inside]
    shares = [part.visible.sum() / whole.visible.sum() for whole, part in every]
    assert np.quantile(shares, 0.02) > 0.1


def test_a_plain_part_is_smoother_than_a_patterned_one(drawn: Drawn) -> None:
    """Textures are seen through lens and noise."""
    spread: dict[int, list[float]] = {texture: [] for texture in range(len(shapes.TEXTURES))}
    for pixels, objects in drawn:
        fine = pixels.astype(float) - cv2.GaussianBlur(pixels, (0, 0), 6).astype(float)
        for _, inside in objects:
            for part in inside:
                if part.visible.sum() > 400:
                    core = cv2.erode(part.visible.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
                    if core.sum() > 50:
                        spread[part.category].append(float(fine[core].std()))
    plain = np.median(spread[shapes.TEXTURES.index("plain")])
    assert all(np.median(spread[texture]) > 1.5 * plain for texture in range(3))


def _boxes(objects: list[tuple[shapes.Shape, list[shapes.Shape]]]) -> np.ndarray:
    return np.array([cv2.boundingRect(it.visible.astype(np.uint8)) for it, _ in objects], dtype=float).reshape(-1, 4)


@pytest.mark.parametrize(("labeler", "on_photographs"), [(box, 0.565), (ellipse, 0.638)])
def test_box_and_ellipse_are_as_good_as_on_photographs(drawn: Drawn, labeler, on_photographs: float) -> None:
    ious = [
        iou(mask.pasted(SIZE, SIZE), whole.visible)
        for pixels, objects in drawn
        for mask, (whole, _) in zip(labeler.masks(pixels, _boxes(objects)), objects, strict=True)
    ]
    assert np.mean(ious) == pytest.approx(on_photographs, abs=0.05)


def test_each_size_has_at_least_a_fifth(drawn: Drawn) -> None:
    areas = np.concatenate([_boxes(objects)[:, 2:].prod(axis=1) for _, objects in drawn])
    sizes = [size_class(area) for area in areas]
    assert min(sizes.count(size) / len(sizes) for size in "SML") >= 0.2


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_says_nothing_about_parts(written, view: str) -> None:
    seen = VIEWS[view](written[1])
    own = {"boxes": {"bbox"}, "points": {"point", "points"}, "expressions": {"bbox", "expressions"}}
    allowed = {"id", "image_id", "category_id", "iscrowd"} | own[view]
    assert all(annotation.keys() <= allowed for annotation in seen["annotations"])
    assert "part" not in json.dumps({**seen, "info": None})


def test_the_kind_is_part_of_a_key_where_it_is_not_the_former_one(compose, tmp_path: Path) -> None:
    drawing = {}
    for data in ("shapes", "parts"):
        config = compose(f"data={data}", "labeler=box", "segmenter=none", "compare=[]", f"store={tmp_path}")
        stages = in_order(Graph(config, Store(tmp_path), torch.device("cpu")).targets())
        (drawing[data],) = [stage for stage in stages if stage.name == "shapes_val"]
    assert "kind" not in drawing["shapes"].config
    assert drawing["parts"].config == {**drawing["shapes"].config, "kind": "parts"}
    assert drawing["parts"].key != drawing["shapes"].key
