"""Boxes that do not bound their objects, as far as the file shows it; and sound ones, which raise no alarm."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_files import HEIGHT, WIDTH, coco_file, diamond, each, edit

from mal.data.annotations import read
from mal.data.census import take
from mal.engine.findings import MISLEADS, NOTE, STOPS
from mal.errors import AnnotationError


def found(path: Path) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in take(read(path, masks=False)).findings]


def boxes_only(folder: Path, **values: Any) -> Path:
    return edit(coco_file(folder), each(segmentation=[], **values))


def test_sound_boxes_raise_no_alarm(tmp_path: Path, coco_mini: Path, car_parts: Path) -> None:
    assert found(coco_file(tmp_path)) == []
    assert found(boxes_only(tmp_path)) == []
    for path in (coco_mini / "annotations/instances_train2017_mini.json", car_parts / "train/annotations.json"):
        assert {level for level, _ in found(path)} <= {NOTE}


@pytest.mark.parametrize(
    "values",
    [
        {"attributes": {"occluded": False, "rotation": 45.0}},
        {"attributes": {"rotation": "330.5"}},
        {"rotation": 12},
        {"rotation": 90},
        {"rotation": -20},
    ],
)
def test_turned_boxes_are_counted_with_the_way_out(values: dict[str, Any], tmp_path: Path) -> None:
    path = boxes_only(tmp_path)
    edit(path, lambda coco: [a.update(values) for a in coco["annotations"][:3]])
    ((level, text),) = found(path)
    assert level == MISLEADS
    assert text.startswith("3 of 8 boxes are turned (rotation of annotations 100: ")
    assert "w·|cos| + h·|sin|" in text


@pytest.mark.parametrize("turn", [0, 0.0, 180, -360, None, "", "none", {"x": 1}])
def test_no_turn_and_half_a_turn_raise_no_alarm(turn: Any, tmp_path: Path) -> None:
    assert found(boxes_only(tmp_path, rotation=turn, attributes={"rotation": turn})) == []
    assert found(boxes_only(tmp_path, attributes=["rotation"])) == []


def test_a_turned_box_that_bounds_its_mask_raises_no_alarm(tmp_path: Path) -> None:
    assert found(edit(coco_file(tmp_path), each(rotation=30))) == []


def scaled(by: float) -> Any:
    return lambda a: [v * by / side for v, side in zip(a["bbox"], (WIDTH, HEIGHT) * 2, strict=True)]


def test_shares_of_the_image_are_told_from_pixels(tmp_path: Path) -> None:
    ((level, text),) = found(boxes_only(tmp_path, bbox=scaled(1)))
    assert level == STOPS
    assert "all 8 boxes lie within one pixel" in text
    assert "multiply x and width by the image's width" in text


def test_shares_around_a_centre_are_told_and_nothing_else_is_said(tmp_path: Path) -> None:
    def centred(annotation: dict[str, Any]) -> list[float]:
        x, y, w, h = scaled(1)(annotation)
        return [x + w / 2, y + h / 2, w, h]

    path = boxes_only(tmp_path, bbox=centred)
    edit(path, lambda coco: coco["annotations"][0].update(bbox=[0.6, 0.5, 0.8, 0.8]))  # as a corner it ends at 1.4
    ((level, text),) = found(path)
    assert level == STOPS
    assert "seem to be shares of the image" in text
    assert "subtract half of width and height" in text


@pytest.mark.parametrize(
    ("bbox", "says"),
    [
        ([WIDTH - 12, HEIGHT - 12, 20, 20], "fit as centre and size [x, y, width, height]: write [x - width / 2"),
        ([500, 500, 200, 200], "fit as thousandths of the image: multiply x and width by its width / 1000"),
    ],
)
def test_boxes_that_all_fit_when_read_in_another_way_are_told(bbox: list[int], says: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError) as error:
        read(boxes_only(tmp_path, bbox=bbox), masks=False)
    assert says in str(error.value)


def test_boxes_of_no_size_are_no_shares(tmp_path: Path) -> None:
    said = found(boxes_only(tmp_path, bbox=[0, 0, 0, 0]))
    ((_, text),) = [finding for finding in said if finding[0] == STOPS]
    assert "none of the 8 boxes is wider and higher than 2 pixels" in text
    assert not any("shares" in text for _, text in said)


def test_per_cent_of_the_image_are_told_from_pixels(tmp_path: Path) -> None:
    def change(coco: dict[str, Any]) -> None:
        each(segmentation=[], bbox=scaled(100))(coco)
        for image in coco["images"]:
            image.update(width=1600, height=1200)

    ((level, text),) = found(edit(coco_file(tmp_path), change))
    assert level == MISLEADS
    assert "per cent of the image" in text
    assert "1600 x 1200" in text


def test_a_few_boxes_in_the_corner_of_small_images_are_no_per_cents(tmp_path: Path) -> None:
    path = edit(coco_file(tmp_path, images=3, per_image=1), each(segmentation=[], bbox=[15, 15, 80, 60]))
    assert found(path) == []


def test_corners_are_told_by_the_areas_of_the_boxes(tmp_path: Path) -> None:
    def corners(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            x, y, w, h = (side / 2 for side in annotation["bbox"])  # small enough to fit the image either way
            annotation.update(segmentation=[], bbox=[x, y, x + w, y + h], area=w * h)

    ((level, text),) = found(edit(coco_file(tmp_path), corners))
    assert level == MISLEADS
    assert "write [x1, y1, x2 - x1, y2 - y1]" in text


def test_corners_are_told_by_the_masks(tmp_path: Path) -> None:
    def corners(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            x, y, w, h = (side / 2 for side in annotation["bbox"])
            annotation.update(segmentation=diamond([x, y, w, h]), bbox=[x, y, x + w, y + h])
            del annotation["area"]

    levels = dict(found(edit(coco_file(tmp_path), corners)))
    assert "read as two corners [x1, y1, x2, y2] they are" in levels[MISLEADS]


def test_boxes_and_masks_of_different_objects_are_counted(tmp_path: Path) -> None:
    def swap(coco: dict[str, Any]) -> None:
        first, second = coco["annotations"][:2]
        first["segmentation"], second["segmentation"] = second["segmentation"], first["segmentation"]

    ((level, text),) = found(edit(coco_file(tmp_path), swap))
    assert level == MISLEADS
    assert text.startswith("2 of 8 boxes are not around the mask that goes with it")
    assert "annotations 100, 101" in text


def test_boxes_too_small_for_a_mask_are_counted_and_all_of_them_stop_a_run(tmp_path: Path) -> None:
    path = boxes_only(tmp_path)
    edit(path, lambda coco: coco["annotations"][0].update(bbox=[0, 0, 1, 2]))
    ((level, text),) = found(path)
    assert (level, text[:40]) == (NOTE, "1 of 8 boxes is no wider or no higher th")
    edit(path, each(bbox=lambda a: [*a["bbox"][:2], 2, 2]))
    assert dict(found(path))[STOPS].startswith("none of the 8 boxes is wider and higher than 2 pixels")


def test_a_census_is_linear_in_the_annotations(tmp_path: Path) -> None:
    """No pair of annotations is ever compared: all of COCO takes half a minute, once."""
    coco = read(coco_file(tmp_path), masks=False)
    rng = np.random.default_rng(0)
    bboxes = [[float(v) for v in (*rng.uniform(0, 60, 2), *rng.uniform(4, 60, 2))] for _ in range(20_000)]
    coco["annotations"] = [
        {**coco["annotations"][0], "id": n, "bbox": bbox, "segmentation": diamond(bbox)}
        for n, bbox in enumerate(bboxes)
    ]
    started = time.process_time()
    take(coco)
    assert time.process_time() - started < 3
