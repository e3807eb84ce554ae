"""COCO and LVIS files: what is read, what survives, what a mask is. (What is refused: test_bad_input.py.)"""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mal.data.annotations import (
    annotations_by_image,
    check_images,
    decode_mask,
    encode_mask,
    file_name,
    read,
    strip,
    write,
)
from mal.data.box_checks import BORDER_TOLERANCE, overhang
from mal.data.mask_formats import run_lengths
from mal.errors import AnnotationError

# name: annotation file, image folder, images, annotations, crowds; all relative to ../shared/data
REAL_FILES = {
    "coco train": ("coco_mini/annotations/instances_train2017_mini.json", "coco_mini/train2017", 343, 2974, 29),
    "coco val": ("coco_mini/annotations/instances_val2017_mini.json", "coco_mini/val2017", 218, 1838, 21),
    "lvis val": ("lvis_mini/lvis_val_mini.json", "lvis_mini/images", 64, 674, 0),
    "car parts train": ("car_parts/train/annotations.json", "car_parts/train/JPEGImages", 400, 3073, 0),
    "car parts test": ("car_parts/test/annotations.json", "car_parts/test/JPEGImages", 100, 811, 0),
}
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PYCOCOTOOLS_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its decoder
PROPERTY = settings(deadline=None, max_examples=60)


def tiny() -> dict[str, Any]:
    """Two images, two objects and a crowd."""
    crowd = {"size": [48, 64], "counts": [0, 10, 48 * 64 - 10]}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "cat.jpg", "width": 64, "height": 48, "neg_category_ids": [3, 1]},
            {"id": 3, "file_name": "dog.jpg", "width": 64, "height": 48, "not_exhaustive_category_ids": []},
        ],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 18, "bbox": [4.5, 5, 20, 10], "area": 110.5, "iscrowd": 0,
             "segmentation": [[4.5, 5.0, 24.5, 5.0, 24.5, 15.0]], "keypoints": [5, 6, 2]},
            {"id": 12, "image_id": 7, "category_id": 90, "bbox": [0, 0, 0.0, 3], "area": 0,
             "segmentation": [[0, 0, 0, 3, 0, 3]], "caption": "a line"},
            {"id": 13, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 10], "area": 10, "iscrowd": 1,
             "segmentation": crowd},
        ],
        "categories": [{"id": 18, "name": "dog", "frequency": "f"}, {"id": 90, "name": "axe"}, {"id": 1, "name": "x"}],
    }  # fmt: skip


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_are_accepted_whole_and_their_images_found(shared_data: Path, name: str) -> None:
    annotations, folder, images, count, crowds = REAL_FILES[name]
    coco = read(shared_data / annotations, masks=True)
    assert (len(coco["images"]), len(coco["annotations"])) == (images, count)
    assert sum(bool(a.get("iscrowd")) for a in coco["annotations"]) == crowds
    assert coco == json.loads((shared_data / annotations).read_text())
    check_images(coco, shared_data / folder)


@pytest.mark.parametrize("name", REAL_FILES)
def test_boxes_of_real_files_stay_within_the_border_tolerance(shared_data: Path, name: str) -> None:
    coco = read(shared_data / REAL_FILES[name][0], masks=False)
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    worst = max(overhang(a["bbox"], *sizes[a["image_id"]]) for a in coco["annotations"])
    assert worst <= 1e-9 < BORDER_TOLERANCE  # measured: not one of 9,370 boxes sticks out


@PYCOCOTOOLS_WARNS
def test_masks_of_real_files_are_those_of_pycocotools(coco_mini: Path) -> None:
    path = coco_mini / "annotations" / "instances_val2017_mini.json"
    theirs, coco = COCO(path), read(path, masks=True)
    sizes = {image["id"]: image for image in coco["images"]}
    for annotation in coco["annotations"][::5] + [a for a in coco["annotations"] if a["iscrowd"]]:
        image = sizes[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], height=image["height"], width=image["width"])
        assert np.array_equal(mask, theirs.annToMask(annotation)), annotation["id"]


def test_an_lvis_v1_image_is_found_by_the_last_two_parts_of_its_address(lvis_mini: Path, tmp_path: Path) -> None:
    coco = json.loads((lvis_mini / "lvis_val_mini.json").read_text())
    for image in coco["images"]:
        del image["file_name"]
    write(tmp_path / "v1.json", coco)
    images = read(tmp_path / "v1.json", masks=True)["images"]
    assert file_name(images[0]) == "val2017/000000266409.jpg"
    assert file_name({"id": 1, "coco_url": "http://x.org/train2017/000000391895.jpg"}) == "train2017/000000391895.jpg"
    (tmp_path / "val2017").symlink_to((lvis_mini / "images").resolve())
    check_images(coco, tmp_path)


def test_what_real_files_have_is_tolerated(tmp_path: Path) -> None:
    coco = tiny()  # a crowd, a box of no width, unknown keys, gaps in ids, an unused category, an image without objects
    coco["annotations"][0]["bbox"] = [-1, 38.4, 65.9, 10.6]  # up to a pixel over each border
    coco["annotations"][1]["bbox"] = [64, 48, 0, 0]  # nothing, in the corner
    coco["annotations"][2]["iscrowd"] = True  # as the tool that exported car_parts writes it
    write(tmp_path / "a.json", coco)
    assert read(tmp_path / "a.json", masks=True) == coco


def test_masks_are_not_looked_at_unless_needed(tmp_path: Path) -> None:
    coco = tiny()
    coco["annotations"][0]["segmentation"] = "to be drawn"
    coco["annotations"][1]["area"] = None
    del coco["annotations"][2]["segmentation"]
    write(tmp_path / "a.json", coco)
    assert read(tmp_path / "a.json", masks=False) == coco
    with pytest.raises(AnnotationError, match="annotation 11"):
        read(tmp_path / "a.json", masks=True)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(tiny()), encoding="utf-8-sig")
    assert read(tmp_path / "a.json", masks=True) == tiny()


@PROPERTY
@given(st.dictionaries(st.text().map(lambda key: "x" + key), JSON, max_size=3), st.integers(0, 4))
def test_unknown_fields_survive_reading_and_writing_in_order(extra: dict[str, Any], place: int) -> None:
    coco = tiny()
    part = (coco, coco["images"][0], coco["annotations"][1], coco["categories"][2], coco["info"])[place]
    part.update(extra)
    with tempfile.TemporaryDirectory() as folder:  # hypothesis calls many times with one tmp_path
        write(Path(folder) / "a.json", coco)
        again = read(Path(folder) / "a.json", masks=True)
    assert json.dumps(again) == json.dumps(coco)
    assert json.dumps(strip(again)["images"]) == json.dumps(coco["images"])


def test_strip_takes_segmentation_and_area_and_nothing_else() -> None:
    coco = tiny()
    before = copy.deepcopy(coco)
    bare = strip(coco)
    assert coco == before
    assert [list(a) for a in bare["annotations"]] == [
        ["id", "image_id", "category_id", "bbox", "iscrowd", "keypoints"],
        ["id", "image_id", "category_id", "bbox", "caption"],
        ["id", "image_id", "category_id", "bbox", "iscrowd"],
    ]
    for old, new in zip(coco["annotations"], bare["annotations"], strict=True):
        assert new == {key: value for key, value in old.items() if key not in ("segmentation", "area")}
    assert {key: bare[key] for key in bare if key != "annotations"} == {
        k: v for k, v in coco.items() if k != "annotations"
    }


NUMBERS = st.lists(st.floats(0, 60) | st.integers(0, 60), min_size=6, max_size=9)
POINTS = st.lists(st.fixed_dictionaries({"x": st.floats(0, 60), "y": st.integers(0, 40)}), min_size=3, max_size=5)
GEOMETRY = st.lists(NUMBERS, min_size=1, max_size=3) | NUMBERS | POINTS


def runs_of(mask: np.ndarray) -> list[int]:
    return run_lengths(encode_mask(mask)["counts"]).tolist()


@PROPERTY
@given(
    MASKS.map(encode_mask)
    | MASKS.map(lambda mask: {"size": list(mask.shape), "counts": runs_of(mask)})
    | MASKS.map(lambda mask: {"size": [float(side) for side in mask.shape], "counts": [*map(float, runs_of(mask))]})
    | st.integers(0, 48 * 64).map(lambda first: {"counts": [first, 48 * 64 - first], "by": "hand"})  # fills the image
    | st.builds(lambda key, points: {key: points}, st.sampled_from(["segmentation", "Segmentation"]), GEOMETRY)
    | st.builds(lambda points: {"segmentation": {"outline": points, "by": "hand"}}, GEOMETRY),
    st.lists(st.sampled_from(["attributes", "segmentation", "rle", 0]), max_size=4),
)
def test_strip_leaves_no_mask_however_deep(hidden: Any, path: list[str | int]) -> None:
    for key in path:
        hidden = [hidden, 5] if key == 0 else {key: hidden, "other": "kept"}
    coco = tiny()
    coco["annotations"][0]["extra"] = hidden
    bare = strip(coco)
    extra = bare["annotations"][0].get("extra", {})
    assert not any(isinstance(value, list | str) and value for value in _values(extra, "counts"))
    assert not [numbers for numbers in _lists(extra) if len(numbers) >= 3]
    assert {"bbox", "keypoints", "caption", "frequency", "neg_category_ids"} <= _keys(bare)
    if path and path[-1] != 0:
        assert extra["other"] == "kept"


NOT_MASKS = st.recursive(
    st.none() | st.booleans() | st.integers(max_value=-1) | st.text(max_size=3) | st.floats(-9, -1),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["segmentation", "counts", "size", "area", "rle"]) | st.text(), inner, max_size=3
        )
    ),
    max_leaves=5,  # fewer numbers than a polygon has
)


@PROPERTY
@given(st.dictionaries(st.sampled_from(["attributes", "counts", "size", "extra"]), NOT_MASKS, max_size=3))
def test_strip_keeps_whatever_is_no_mask_byte_for_byte(extra: dict[str, Any]) -> None:
    coco = tiny()
    coco["annotations"][1].update(extra)
    kept = strip(coco)["annotations"][1]
    expected = {key: value for key, value in coco["annotations"][1].items() if key not in ("segmentation", "area")}
    assert json.dumps(kept) == json.dumps(expected)


@pytest.mark.parametrize(
    "value",
    [
        {"species": "newt", "counts": {"adult": 2, "young": 1}},
        {"counts": [2, 1]},
        {"counts": "few", "size": "L"},
        {"counts": [2, 1], "size": [40, 30]},
        {"counts": "A12"},
        {"segmentation": "left to the other team"},
        {"segmentation": {"quality": 3, "seconds": 41.5}},
        {"segmentation": [], "segmentations": None},
        {"keypoints": [30, 30, 2] * 17, "outline": [[1, 2], [3, 4], [5, 6]]},
    ],
)
def test_fields_with_the_names_of_masks_survive(value: Any) -> None:
    coco = tiny()
    coco["annotations"][0]["extra"] = value
    assert strip(coco)["annotations"][0]["extra"] == value


def test_box_only_files_hold_no_mask_on_disk(coco_mini: Path, tmp_path: Path) -> None:
    coco = read(coco_mini / "annotations" / "instances_val2017_mini.json", masks=True)
    write(tmp_path / "boxes.json", strip(coco))
    text = (tmp_path / "boxes.json").read_text()
    assert not any(word in text for word in ("segmentation", "counts", '"area"'))
    boxes = read(tmp_path / "boxes.json", masks=False)
    assert [(a["id"], a["bbox"]) for a in boxes["annotations"]] == [(a["id"], a["bbox"]) for a in coco["annotations"]]


def test_every_image_has_a_list_of_annotations() -> None:
    groups = annotations_by_image(tiny())
    assert {key: [a["id"] for a in group] for key, group in groups.items()} == {7: [11, 12, 13], 3: []}
    assert list(groups) == [7, 3]


@PROPERTY
@given(MASKS, st.sampled_from("CF"))
def test_masks_survive_encoding(mask: np.ndarray, order: Any) -> None:
    height, width = mask.shape
    coded = encode_mask(np.array(mask, order=order))
    assert json.loads(json.dumps(coded)) == coded
    assert coded["size"] == [height, width]
    decoded = decode_mask(coded, height=height, width=width)
    assert decoded.dtype == bool
    assert np.array_equal(decoded, mask)
    assert set(np.unique(decoded.view(np.uint8))) <= {0, 1}


@PROPERTY
@given(MASKS)
def test_run_lengths_are_counted_column_by_column_background_first(mask: np.ndarray) -> None:
    expected, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            expected.append(0)
            value = pixel
        expected[-1] += 1
    assert run_lengths(encode_mask(mask)["counts"]).tolist() == expected
    uncompressed = {"size": list(mask.shape), "counts": expected}
    assert np.array_equal(decode_mask(uncompressed, height=mask.shape[0], width=mask.shape[1]), mask)


@pytest.mark.parametrize("pixels", [2**5, 2**10, 2**15, 2**20 + 3, 4321 * 5432])
def test_run_lengths_of_any_digit_count(pixels: int) -> None:
    mask = np.zeros((pixels, 1), dtype=bool)
    mask[-1], mask[1] = True, True
    assert run_lengths(encode_mask(mask)["counts"]).tolist() == [1, 1, pixels - 3, 1]


@PROPERTY
@given(st.integers(0, 20), st.integers(0, 15), st.integers(1, 20), st.integers(1, 15))
def test_a_polygon_on_the_pixel_grid_covers_exactly_its_pixels(x: int, y: int, width: int, height: int) -> None:
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    expected = np.zeros((32, 48), dtype=bool)
    expected[y : y + height, x : x + width] = True
    assert np.array_equal(decode_mask([polygon], height=32, width=48), expected)


@PYCOCOTOOLS_WARNS
@PROPERTY
@given(st.lists(st.lists(st.tuples(*[st.floats(-3, 35)] * 2), min_size=3, max_size=8), min_size=1, max_size=3))
def test_polygons_are_the_union_of_what_pycocotools_draws_for_each(corners: list[list[tuple[float, float]]]) -> None:
    polygons = [[value for corner in polygon for value in corner] for polygon in corners]
    each = [rle.decode(rle.frPyObjects([polygon], 30, 32))[:, :, 0].astype(bool) for polygon in polygons]
    assert np.array_equal(decode_mask(polygons, height=30, width=32), np.logical_or.reduce(each))


@pytest.mark.parametrize("counts", ["00", "oooo0", "P1370", "P1370000000000000000", "O"])
def test_run_lengths_that_do_not_fill_the_image_are_refused(counts: str) -> None:
    # pycocotools alone gives uninitialised memory for some of them
    with pytest.raises(AnnotationError, match=r"counts .* do not fill 10 x 12 pixels; write the mask again"):
        decode_mask({"size": [10, 12], "counts": counts}, height=10, width=12)


@pytest.mark.parametrize("mask", [np.zeros((3, 4), np.uint8), np.zeros((1, 3, 4), bool)])
def test_only_bool_images_are_encoded(mask: np.ndarray) -> None:
    with pytest.raises(TypeError, match="bool array of two dimensions"):
        encode_mask(mask)


def _keys(value: Any) -> set[str]:
    """Every key at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


def _values(value: Any, name: str) -> list[Any]:
    """What stands at a key, at any depth."""
    if isinstance(value, dict):
        here = [inner for key, inner in value.items() if key == name]
        return here + [found for inner in value.values() for found in _values(inner, name)]
    return [found for inner in value for found in _values(inner, name)] if isinstance(value, list) else []


def _lists(value: Any) -> list[list[Any]]:
    """Every list, at any depth."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [*([value] if isinstance(value, list) else []), *(found for part in inner for found in _lists(part))]
