"""The procedural dataset: reproducible, exact, and no easier than photographs."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mal.data import shapes
from mal.data.annotations import CocoDict, decode_mask, read
from mal.data.boxes import size_class
from mal.data.images import load_for
from mal.methods.baselines import box, ellipse, grabcut
from mal.metrics.masks import iou

SIZE, SEED = 256, 0  # the default profile's
IMAGES, GRABCUT_IMAGES = 150, 60


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CocoDict]:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=8, size=128, seed=3, split="train")
    return folder, read(folder / "annotations.json", masks=True)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[shapes.Shape]]]:
    return [shapes.draw(index, size=SIZE, seed=SEED, split="train") for index in range(IMAGES)]


def _boxes(objects: list[shapes.Shape]) -> np.ndarray:
    """Tight boxes xywh of what is visible, found apart from the code under test."""
    return np.array([cv2.boundingRect(shape.visible.astype(np.uint8)) for shape in objects], dtype=float).reshape(-1, 4)


def test_the_same_request_gives_the_same_bytes(written, tmp_path):
    folder, _ = written
    shapes.generate(tmp_path, images=8, size=128, seed=3, split="train")
    assert _hashes(tmp_path) == _hashes(folder)
    assert len(_hashes(folder)) == 9


def test_an_image_does_not_depend_on_how_many_are_asked_for(written, tmp_path):
    folder, coco = written
    shapes.generate(tmp_path, images=3, size=128, seed=3, split="train")
    fewer, all_of_them = _hashes(tmp_path / "images"), _hashes(folder / "images")
    assert fewer == {name: all_of_them[name] for name in ("000001.png", "000002.png", "000003.png")}
    few = read(tmp_path / "annotations.json", masks=True)
    assert few["images"] == coco["images"][:3]
    assert few["annotations"] == [a for a in coco["annotations"] if a["image_id"] <= 3]


def test_index_seed_and_split_all_change_the_image():
    def pixels(index: int, seed: int, split: str) -> bytes:
        return shapes.draw(index, size=64, seed=seed, split=split)[0].tobytes()

    variants = [(0, 0, "train"), (1, 0, "train"), (0, 1, "train"), (0, 0, "val"), (10, 1, "train"), (0, 11, "train")]
    assert len({pixels(*variant) for variant in variants}) == len(variants)


def test_files_hold_exactly_what_was_drawn(written):
    folder, coco = written
    assert [category["name"] for category in coco["categories"]] == list(shapes.CATEGORIES)
    for index, image in enumerate(coco["images"]):
        pixels, objects = shapes.draw(index, size=128, seed=3, split="train")
        np.testing.assert_array_equal(load_for(image, folder / "images").permute(1, 2, 0).numpy(), pixels)
        annotations = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert len(annotations) == len(objects)
        for annotation, shape, tight in zip(annotations, objects, _boxes(objects), strict=True):
            mask = decode_mask(annotation["segmentation"], height=128, width=128)
            np.testing.assert_array_equal(mask, shape.visible)
            assert isinstance(annotation["segmentation"]["counts"], str)
            assert annotation["bbox"] == tight.tolist()
            assert annotation["area"] == mask.sum()
            assert coco["categories"][annotation["category_id"] - 1]["name"] == shapes.CATEGORIES[shape.category]


def test_every_drawn_object_shows_and_hides_what_is_behind_it(drawn):
    for _, objects in drawn:
        seen = np.zeros((SIZE, SIZE), dtype=int)
        for shape in objects:
            assert shape.visible.sum() >= 30
            assert shape.visible.sum() >= 0.38 * shape.whole.sum()  # .4 of its area; its pixels cover a little more
            assert not (shape.visible & ~shape.whole).any()
            seen += shape.visible
        assert seen.max() <= 1
        covered = np.logical_or.reduce([shape.whole for shape in objects])
        np.testing.assert_array_equal(seen == 1, covered)


def test_only_masks_hold_objects(monkeypatch):
    # Left unpainted, an image differs at its masks and, but for the lens's blur of a few pixels, nowhere else.
    monkeypatch.setattr(shapes, "NOISE", (0.0, 0.0))
    painted, objects = shapes.draw(5, size=SIZE, seed=SEED, split="train")
    monkeypatch.setattr(shapes, "paint", lambda *_: None)
    bare, _ = shapes.draw(5, size=SIZE, seed=SEED, split="train")
    difference = np.abs(painted.astype(float) - bare).mean(axis=2)
    covered = np.logical_or.reduce([shape.visible for shape in objects])
    near = cv2.dilate(covered.astype(np.uint8), np.ones((9, 9), dtype=np.uint8)).astype(bool)
    assert difference[~near].max() <= 5
    assert np.mean(difference[covered] > 5) > 0.8


def test_objects_are_several_concave_occluded_and_cut_by_the_border(drawn):
    objects = [shape for _, group in drawn for shape in group]
    assert 3 <= len(objects) / IMAGES <= 8
    per_category = np.bincount([shape.category for shape in objects], minlength=3) / len(objects)
    assert per_category.min() > 0.25
    occluded = np.mean([shape.visible.sum() < shape.whole.sum() for shape in objects])
    assert 0.15 < occluded < 0.5
    boxes = np.concatenate([_boxes(group) for _, group in drawn])
    cut = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] == SIZE).any(axis=1)
    assert 0.15 < cut.mean() < 0.5
    assert np.mean([_solidity(shape.whole) < 0.9 for shape in objects]) > 0.6


def _solidity(mask: np.ndarray) -> float:
    """Area over the area of the convex hull, both in pixels."""
    hull = cv2.convexHull(cv2.findNonZero(mask.astype(np.uint8)))
    filled = cv2.fillConvexPoly(np.zeros(mask.shape, dtype=np.uint8), hull, 1)
    return float(mask.sum() / filled.sum())


def test_each_size_has_at_least_a_fifth(drawn):
    areas = np.concatenate([_boxes(group)[:, 2:].prod(axis=1) for _, group in drawn])
    sizes = [size_class(area) for area in areas]
    assert min(sizes.count(size) / len(sizes) for size in "SML") >= 0.2


@pytest.mark.parametrize(("labeler", "on_photographs"), [(box, 0.565), (ellipse, 0.638)])
def test_box_and_ellipse_are_as_good_as_on_photographs(drawn, labeler, on_photographs):
    assert np.mean(_ious(labeler, drawn)) == pytest.approx(on_photographs, abs=0.05)


@pytest.mark.slow
def test_colour_alone_does_not_find_the_objects(drawn):
    assert np.mean(_ious(grabcut, drawn[:GRABCUT_IMAGES])) < 0.62


def _ious(labeler, drawn) -> list[float]:
    return [
        iou(mask.pasted(*pixels.shape[:2]), shape.visible)
        for pixels, objects in drawn
        for mask, shape in zip(labeler.masks(pixels, _boxes(objects)), objects, strict=True)
    ]


def test_objects_share_their_colours_with_their_surroundings(drawn):
    # Histogram intersection of an object's colours with those of all else in its image, 4 x 4 x 4 bins.
    shared = []
    for pixels, objects in drawn[:40]:
        bins = (pixels // 64).astype(int) @ np.array([16, 4, 1])
        covered = np.logical_or.reduce([shape.visible for shape in objects])
        for shape in objects:
            inside = np.bincount(bins[shape.visible], minlength=64) / shape.visible.sum()
            outside = np.bincount(bins[~covered], minlength=64) > 0.005 * (~covered).sum()
            shared.append(inside[outside].sum())
    assert np.mean(shared) > 0.5


def test_contours_can_be_seen(drawn):
    # A step across a contour is larger than one inside an object, on average.
    across, within = [], []
    for pixels, objects in drawn[:40]:
        step = np.linalg.norm(np.diff(cv2.GaussianBlur(pixels, (0, 0), 1).astype(float), axis=1), axis=2)
        for shape in objects:
            contour = shape.visible[:, 1:] != shape.visible[:, :-1]
            across.append(step[contour].mean())
            within.append(step[shape.visible[:, 1:] & shape.visible[:, :-1]].mean())
    assert np.mean(across) > 1.3 * np.mean(within)
