"""What a method may read of a file: all that a view does not show is absent from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal.data.annotations import encode_mask, read, write
from mal.data.drawn_points import drawn_point
from mal.data.views import VIEWS
from mal.errors import AnnotationError
from mal.methods.registry import METHODS

RING = np.zeros((20, 30), dtype=bool)
RING[4:16, 5:25] = True
RING[7:13, 8:22] = False


def coco(**more: object) -> dict:
    annotation = {
        "id": 7, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [5.0, 4.0, 20.0, 12.0], "area": 156.0,
        "segmentation": encode_mask(RING), "attributes": {"mask": encode_mask(RING)}, "caption": "a ring", **more,
    }  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [annotation],
        "categories": [{"id": 3, "name": "ring"}],
    }


def words(value: object) -> set[str]:
    """Every key and every text in a JSON value."""
    if isinstance(value, dict):
        return {*value} | set().union(*map(words, value.values()))
    if isinstance(value, list):
        return set().union(*map(words, value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_methods_view_holds_no_mask_and_no_area(method) -> None:
    seen = VIEWS[method.view](coco())
    assert words(seen) & {"segmentation", "area", "counts", encode_mask(RING)["counts"]} == set()


def test_the_points_view_holds_a_point_and_no_box() -> None:
    (annotation,) = VIEWS["points"](coco(point=[9, 5.5]))["annotations"]
    kept = {"id": 7, "image_id": 1, "category_id": 3, "iscrowd": 0}
    assert annotation == {**kept, "point": [9.0, 5.5], "points": [[9.0, 5.5]]}


@pytest.mark.parametrize("point", [[30, 5], [5, 20], [-0.1, 3], [1], "5,5", [True, 2], [None, 2], [float("nan"), 1]])
def test_a_point_that_is_none_of_its_image_is_refused(point) -> None:
    with pytest.raises(AnnotationError, match="annotation 7 has point="):
        VIEWS["points"](coco(point=point))


def test_an_object_with_neither_point_nor_mask_is_refused() -> None:
    with pytest.raises(AnnotationError, match="annotation 7 has neither a point nor a mask"):
        VIEWS["points"](coco(segmentation=None))


def inside(mask: np.ndarray, box: list[float]) -> tuple[float, float]:
    annotation = {"id": 1, "image_id": 1, "bbox": box, "segmentation": encode_mask(mask)}
    point = drawn_point(annotation, "inside", height=mask.shape[0], width=mask.shape[1])
    assert point is not None
    return point


def test_a_point_is_drawn_at_the_middle_or_on_the_nearest_pixel_of_the_mask() -> None:
    assert inside(np.ones((20, 30), dtype=bool), [5, 4, 20, 12]) == (15, 10)
    # the hole of the ring covers rows 7 to 12: rows 6 and 13 are as near, and the first is taken
    assert inside(RING, [5, 4, 20, 12]) == (14.5, 6.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_a_drawn_point_lies_on_the_mask(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    box = [0.0, 0.0, float(width), float(height)]
    if not mask.any():
        with pytest.raises(AnnotationError, match="empty mask"):
            inside(mask, box)
        return
    x, y = inside(mask, box)
    assert mask[int(y), int(x)]
    rows, columns = np.nonzero(mask)
    nearest = np.hypot(columns + 0.5 - width / 2, rows + 0.5 - height / 2).min()
    assert np.hypot(x - width / 2, y - height / 2) <= nearest + 1e-9


def test_a_view_of_a_real_file_is_a_file_of_its_own(coco_mini: Path, tmp_path: Path) -> None:
    annotations = coco_mini / "annotations" / "instances_val2017_mini.json"
    seen = VIEWS["points"](read(annotations, masks=False))
    write(tmp_path / "points.json", seen)
    kept = json.loads((tmp_path / "points.json").read_text())
    assert words(kept["annotations"]) == {"id", "image_id", "category_id", "iscrowd", "point", "points"}
    assert len(kept["annotations"]) == len(read(annotations, masks=False)["annotations"])
