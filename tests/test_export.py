"""Pseudo-labels in other tools' formats: nothing is lost on the way, and what is written gives the masks back."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from mal.data.annotations import decode_mask, encode_mask, read
from mal.data.export import FORMATS, planned_files, write_yolo
from mal.data.polygons import fill_holes, joined, polygons
from mal.errors import AnnotationError

EIGHT = np.ones((3, 3))  # pixels that touch at a corner belong together
MASKS = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
RING = np.pad(np.zeros((2, 3), bool), 1, constant_values=True)
# a hole whose corner touches the outside's: diagonal neighbours enclose it all the same
LEAKY = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], bool)


def rasterised(outlines: list, shape: tuple[int, int]) -> np.ndarray:
    """COCO's own rasteriser."""
    return decode_mask(outlines, height=shape[0], width=shape[1]) if outlines else np.zeros(shape, bool)


@settings(deadline=None, max_examples=150)
@given(mask=MASKS)
@example(mask=np.ones((1, 1), bool))
@example(mask=np.ones((5, 7), bool))
@example(mask=np.eye(9, dtype=bool))
@example(mask=np.eye(9, dtype=bool)[:, ::-1])
@example(mask=np.indices((8, 8)).sum(0) % 2 == 0)
@example(mask=RING)
@example(mask=LEAKY)
@example(mask=np.asfortranarray(LEAKY))
def test_polygons_rasterise_back_to_the_mask_with_its_holes_filled(mask):
    filled = ndimage.binary_fill_holes(mask)
    np.testing.assert_array_equal(fill_holes(mask), filled)
    outlines = polygons(mask)
    np.testing.assert_array_equal(rasterised(outlines, mask.shape), filled)
    assert len(outlines) == ndimage.label(filled, EIGHT)[1]  # one a connected part
    for outline in outlines:
        points = np.array(outline).reshape(-1, 2)
        steps = np.roll(points, -1, axis=0) - points
        assert ((steps != 0).sum(axis=1) == 1).all()  # no point twice in a row, the last and the first included
        assert ((steps[:, 0] != 0) != (np.roll(steps, 1, axis=0)[:, 0] != 0)).all()  # and none within a straight side
        assert (points >= 0).all()
        assert (points <= mask.shape[::-1]).all()


def test_polygons_are_exact_at_the_size_of_photographs():
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.random((427, 640)), 4) > 0.505  # blobs, holes, all borders touched
    assert mask[0].any()
    assert mask[-1].any()
    np.testing.assert_array_equal(rasterised(polygons(mask), mask.shape), ndimage.binary_fill_holes(mask))


def test_an_empty_mask_has_no_polygons():
    assert polygons(np.zeros((4, 5), bool)) == []


def scene() -> tuple[dict, list[np.ndarray]]:
    """Three images (the second without annotations), categories out of order, LVIS fields, a crowd, an empty mask."""
    shapes = {1: (20, 30), 2: (8, 9), 3: (16, 12)}
    masks = [np.zeros(shapes[1], bool) for _ in range(4)] + [np.zeros(shapes[3], bool) for _ in range(2)]
    masks[0][2:18, 3:20] = True
    masks[1][5:12, 6:14] = True  # on top of the first
    masks[2][5:9, 22:29] = masks[2][12:19, 21:26] = True  # two parts, the second larger
    masks[2][14:16, 23] = False  # and a hole
    masks[3][0:5, 0:5] = masks[3][15:, 25:] = True
    masks[4][4, 7] = True
    owners, categories = [1, 1, 1, 1, 3, 3], [7, 2, 7, 2, 9, 9]
    annotations = [
        {
            "id": 10 + i,
            "image_id": owners[i],
            "category_id": categories[i],
            "bbox": [3.5, 2.0, 6.25, 9.0],
            "segmentation": encode_mask(mask),
            "area": int(mask.sum()),
            "score": 0.5,
            "note": f"field {i}",
        }
        for i, mask in enumerate(masks)
    ]
    annotations[3]["iscrowd"] = 1
    annotations.insert(2, annotations.pop(4))  # the file's order is not the images'
    masks.insert(2, masks.pop(4))
    images = [{"id": k, "width": w, "height": h, "file_name": f"{k}.jpg"} for k, (h, w) in shapes.items()]
    images[0] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    images[2]["file_name"] = "deep/er/3.photo.png"
    names = [{"id": 9, "name": "wheel"}, {"id": 2, "name": "front door"}, {"id": 7, "name": "_background_"}]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": names}, masks


def opened(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
@pytest.mark.parametrize("kind", ["rle", "polygon"])
def test_coco_files_keep_every_annotation_in_order_and_open_in_pycocotools(tmp_path, kind):
    coco, masks = scene()
    FORMATS[kind](coco, tmp_path / "out.json")
    written = read(tmp_path / "out.json", masks=True)
    assert {k: v for k, v in written.items() if k != "annotations"} == {
        k: v for k, v in coco.items() if k != "annotations"
    }
    given = ("id", "image_id", "category_id", "bbox", "score", "note")
    assert [[a[k] for k in given] for a in written["annotations"]] == [
        [a[k] for k in given] for a in coco["annotations"]
    ]
    assert [a["iscrowd"] for a in written["annotations"]] == [a.get("iscrowd", 0) for a in coco["annotations"]]
    ready = opened(tmp_path / "out.json")
    for annotation, mask in zip(written["annotations"], masks, strict=True):
        decoded = ready.annToMask(annotation).astype(bool)
        if kind == "rle" or annotation["iscrowd"]:
            np.testing.assert_array_equal(decoded, mask)
        elif mask.any():
            np.testing.assert_array_equal(decoded, ndimage.binary_fill_holes(mask))
            assert annotation["area"] == decoded.sum()
            assert "flagged" not in annotation


def test_polygon_files_hold_polygons_but_for_crowds(tmp_path):
    coco, _ = scene()
    FORMATS["polygon"](coco, tmp_path / "out.json")
    for annotation in read(tmp_path / "out.json", masks=True)["annotations"]:
        assert isinstance(annotation["segmentation"], dict if annotation["iscrowd"] else list)


def test_an_empty_mask_becomes_its_box_and_is_flagged(tmp_path):
    coco, masks = scene()
    assert not masks[-1].any()
    FORMATS["polygon"](coco, tmp_path / "out.json")
    last = read(tmp_path / "out.json", masks=True)["annotations"][-1]
    assert last["segmentation"] == [[3.5, 2.0, 9.75, 2.0, 9.75, 11.0, 3.5, 11.0]]
    assert (last["area"], last["flagged"], last["flag_reason"]) == (56.25, True, "the mask is empty")
    FORMATS["yolo"](coco, tmp_path / "yolo")
    line = (tmp_path / "yolo/deep/er/3.photo.txt").read_text().splitlines()[-1]
    expected = [3.5 / 12, 2 / 16, 9.75 / 12, 2 / 16, 9.75 / 12, 11 / 16, 3.5 / 12, 11 / 16]
    assert [float(v) for v in line.split()[1:]] == pytest.approx(expected, abs=1e-6)


def test_a_writer_leaves_its_input_alone(tmp_path):
    for kind, write in FORMATS.items():
        coco, _ = scene()
        write(coco, tmp_path / kind)
        assert coco == scene()[0]


def test_png_values_name_annotations_and_the_smaller_mask_is_on_top(tmp_path):
    coco, masks = scene()
    FORMATS["png"](coco, tmp_path)
    index = json.loads((tmp_path / "instances.json").read_text())
    without = [{k: v for k, v in a.items() if k != "segmentation"} for a in coco["annotations"]]
    assert [{k: v for k, v in a.items() if k != "value"} for a in index["annotations"]] == without
    assert index["categories"] == coco["categories"]
    of = {a["id"]: mask for a, mask in zip(coco["annotations"], masks, strict=True)}
    for image in index["images"]:
        canvas = np.asarray(Image.open(tmp_path / image["mask_file"]))
        assert canvas.dtype == np.uint16
        mine = [a for a in index["annotations"] if a["image_id"] == image["id"]]
        assert sorted(a["value"] for a in mine) == list(range(1, len(mine) + 1))
        expected = np.zeros((image["height"], image["width"]), int)
        for annotation in sorted(mine, key=lambda a: -of[a["id"]].sum()):
            expected[of[annotation["id"]]] = annotation["value"]
        np.testing.assert_array_equal(canvas, expected)
    assert index["images"][2]["mask_file"] == "deep/er/3.photo.png"


def test_yolo_lines_hold_every_part_of_each_annotation_but_crowds_by_class(tmp_path):
    coco, masks = scene()
    told = FORMATS["yolo"](coco, tmp_path)
    assert (tmp_path / "classes.txt").read_text().split("\n") == ["front door", "_background_", "wheel", ""]
    assert (tmp_path / "2.txt").read_text() == ""
    assert {p.name for p in tmp_path.rglob("*.txt")} == {"classes.txt", "1.txt", "2.txt", "3.photo.txt"}
    lines = (tmp_path / "1.txt").read_text().splitlines()
    mine = [(a, m) for a, m in zip(coco["annotations"], masks, strict=True) if a["image_id"] == 1]
    mine = [(a, m) for a, m in mine if not a.get("iscrowd")]
    assert [int(line.split()[0]) for line in lines] == [{2: 0, 7: 1, 9: 2}[a["category_id"]] for a, _ in mine]
    for line, (_, mask) in zip(lines, mine, strict=True):
        points = np.array(line.split()[1:], dtype=float).reshape(-1, 2)
        assert ((points >= 0) & (points <= 1)).all()
        polygon = (points * (30, 20)).round(3).flatten().tolist()
        np.testing.assert_array_equal(rasterised([polygon], (20, 30)), ndimage.binary_fill_holes(mask))
    assert told == [
        "1 crowds are left out: YOLO holds single objects only",
        "1 objects of several parts are one polygon each, joined by lines of no width",
        "the holes of 1 masks are filled: polygons have none",
    ]


@settings(deadline=None, max_examples=100)
@given(mask=MASKS)
@example(mask=np.eye(9, dtype=bool))
@example(mask=np.indices((8, 8)).sum(0) % 2 == 0)
def test_the_joined_polygon_of_a_mask_covers_the_same_pixels_as_its_parts(mask):
    outlines = polygons(mask)
    if outlines:
        whole = joined(outlines)
        np.testing.assert_array_equal(rasterised([whole], mask.shape), rasterised(outlines, mask.shape))
        corners = {tuple(point) for outline in outlines for point in np.reshape(outline, (-1, 2)).tolist()}
        assert {tuple(point) for point in np.reshape(whole, (-1, 2)).tolist()} == corners


def test_a_bus_behind_a_post_keeps_both_of_its_halves_in_yolo(tmp_path):
    bus = np.zeros((50, 120), bool)
    bus[10:40, 12:50] = bus[10:40, 60:105] = True
    image = {"id": 1, "file_name": "bus.jpg", "height": 50, "width": 120}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [12, 10, 93, 30], "segmentation": encode_mask(bus)}
    coco = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "bus"}]}
    write_yolo(coco, tmp_path)
    (line,) = (tmp_path / "bus.txt").read_text().splitlines()
    across = [float(value) * 120 for value in line.split()[1::2]]
    assert (min(across), max(across)) == pytest.approx((12, 105), abs=1e-3)


def test_what_polygons_and_pngs_cannot_hold_is_counted(tmp_path):
    coco, _ = scene()
    assert FORMATS["rle"](coco, tmp_path / "a.json") == []
    assert FORMATS["polygon"](coco, tmp_path / "b.json") == ["the holes of 1 masks are filled: polygons have none"]
    coco["annotations"].append({**coco["annotations"][0], "id": 99})  # the same mask twice: one hides the other
    assert FORMATS["png"](coco, tmp_path / "c") == [
        "PNG holds one mask per pixel: 2 masks are partly and 1 wholly hidden by smaller ones"
    ]


def test_annotations_that_a_format_cannot_tell_apart_are_refused(tmp_path):
    coco, _ = scene()
    coco["categories"][1]["name"] = "front\ndoor"
    with pytest.raises(AnnotationError, match=r"category 2 is called 'front\\ndoor', and classes\.txt has one name"):
        planned_files(coco, "yolo", tmp_path)
    assert tmp_path / "instances.json" in planned_files(coco, "png", tmp_path)
    coco["annotations"] *= 20000
    with pytest.raises(AnnotationError, match="image 1 has 80000 annotations, and a 16-bit PNG tells 65535 apart"):
        planned_files(coco, "png", tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_files_that_are_planned_are_those_written(tmp_path, kind):
    coco, _ = scene()
    FORMATS[kind](coco, tmp_path / "out")
    assert set(planned_files(coco, kind, tmp_path / "out")) == {p for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("kind", "names"), [("png", ["a.jpg", "a.png"]), ("yolo", ["a.jpg", "a.jpeg"])])
def test_two_images_that_would_share_a_file_are_refused(tmp_path, kind, names):
    coco, _ = scene()
    coco["images"][0]["file_name"], coco["images"][1]["file_name"] = names
    with pytest.raises(AnnotationError, match=r"image 2 \(a\..*image 1 \(a\.jpg\) would both be written to a\."):
        FORMATS[kind](coco, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_image_called_classes_does_not_overwrite_the_list_of_classes(tmp_path):
    coco, _ = scene()
    coco["images"][1]["file_name"] = "classes.jpg"
    with pytest.raises(AnnotationError, match=r"classes\.txt"):
        FORMATS["yolo"](coco, tmp_path)
    FORMATS["png"](coco, tmp_path)


@pytest.mark.parametrize("kind", ["png", "yolo"])
def test_absolute_file_names_stay_inside_the_output_folder(tmp_path, kind):
    coco, _ = scene()
    coco["images"][1]["file_name"] = str(tmp_path / "photographs" / "2.png")
    FORMATS[kind](coco, tmp_path / "out")
    assert not (tmp_path / "photographs").exists()
    assert len(list((tmp_path / "out").rglob("2.*"))) == 1


FILES = {"coco_mini": "annotations/instances_val2017_mini.json", "lvis_mini": "lvis_val_mini.json"}


@pytest.mark.parametrize("data", FILES)
def test_human_masks_of_real_photographs_survive_as_polygons(data, request):
    coco = read(request.getfixturevalue(data) / FILES[data], masks=True)
    sizes = {image["id"]: {"height": image["height"], "width": image["width"]} for image in coco["images"]}
    for annotation in coco["annotations"][::40]:
        mask = decode_mask(annotation["segmentation"], **sizes[annotation["image_id"]])
        filled = ndimage.binary_fill_holes(mask)
        np.testing.assert_array_equal(rasterised(polygons(mask), mask.shape), filled)
