"""Annotation files as tools write them: encodings, packed or broken files, numbers written otherwise, odd entries."""

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bad_input import GOOD, first, image, refused_by

from mal.data.annotation_checks import LARGEST_IMAGE, check, problems
from mal.data.annotation_text import parse
from mal.data.annotations import read, strip, write
from mal.data.census import take
from mal.data.remarks import remarks
from mal.engine.findings import NOTE
from mal.errors import AnnotationError

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def made(**changes: Any) -> dict[str, Any]:
    """A good file, with its first annotation (11, on image 7) changed."""
    coco = copy.deepcopy(GOOD)
    first(**changes)(coco)
    return coco


def saved(folder: Path, coco: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(coco))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_json_is_read_alike(tmp_path: Path, encoding: str) -> None:
    coco = made(note="čtvrt' ½ 🦎")
    coco["images"][0]["file_name"] = "Straße.png"
    (tmp_path / "a.json").write_bytes(json.dumps(coco, ensure_ascii=False).encode(encoding))
    assert read(tmp_path / "a.json", masks=True) == coco


def packed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("result.json", content)
    return buffer.getvalue()


# kind: (bytes of a file, what the error says)
BROKEN: dict[str, tuple[bytes, list[str]]] = {
    "zip archive": (packed(b"{}"), ["is a zip archive", "unpack it"]),
    "bzip2": (b"BZh91AY&SY\xff\xfe", ["packed by bzip2", "unpack it"]),
    "JSON lines": (b'{"images": []}\n{"images": []}\n', ["several JSON values", "line 2", "as one COCO object"]),
    "two arrays": (b"[1][2]", ["several JSON values", "as one COCO object"]),
    "text behind the end": (b'{"images": []} thanks', ["goes on after its end", "export it again"]),
    "undefined": (b"undefined", ["the word undefined", "export it again"]),
    "undefined with a mark": (b"\xef\xbb\xbfundefined\n", ["the word undefined", "export it again"]),
    "spaces only": (b" \n\n", ["is empty", "export it again"]),
    "mark only": (b"\xef\xbb\xbf", ["is empty", "export it again"]),
    "UTF-16 mark only": (b"\xff\xfe", ["is empty", "export it again"]),
    "Windows' code page": ('{"images": "Größe"}'.encode("cp1252"), ["not in UTF-8", "byte 14", "save it as UTF-8"]),
    "an image": (b"\x89PNG\r\n\x1a\n\xff\xff", ["is not text", "give a COCO JSON file"]),
    "XML": (b'<?xml version="1.0"?><annotation/>', ["web page or XML", "Pascal VOC"]),
    "deep lists": (b'{"images":' + b"[" * 200_000, ["nested too deeply", "give a COCO JSON file"]),
    "number without end": (b'{"images":' + b"9" * 9999 + b"}", ["is not usable JSON", "give a COCO JSON file"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_json_is_named_with_its_way_out(tmp_path: Path, kind: str) -> None:
    content, says = BROKEN[kind]
    (tmp_path / "a.json").write_bytes(content)
    refused_by(read, tmp_path / "a.json", masks=False, kind=AnnotationError, says=[str(tmp_path / "a.json"), *says])


def test_an_address_in_place_of_a_file_is_to_be_downloaded() -> None:
    refused_by(
        read,
        "https://host.example/boxes.json",
        masks=False,
        kind=AnnotationError,
        says=["no annotation file", "download"],
    )
    refused_by(
        read, Path("s3://bucket/boxes.json"), masks=False, kind=AnnotationError, says=["no annotation file", "download"]
    )


@given(st.binary(max_size=60))
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"bytes\.json.*; |bytes\.json.*give a COCO"):
        read(path, masks=False)


@pytest.mark.parametrize("depth", [150, 480, 900])
def test_a_value_nested_deeply_is_refused_before_it_is_worked_on(tmp_path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    for where in ('"bbox"', '"iscrowd"'):  # beside a box, of an annotation with other keys and of one without
        text = json.dumps(GOOD).replace(where, f'"extra": {deep}, {where}', 1)
        (tmp_path / "a.json").write_text(text)
        if deep in text:
            refused_by(read, tmp_path / "a.json", masks=False, kind=AnnotationError, says=["a.json", "deep"])


def test_a_number_too_large_for_a_float_is_found_before_anything_is_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(made(weight=123456)).replace("123456", "1e999"))
    says = ["entry 11 of annotations", "infinity", "in weight", "write null"]
    refused_by(read, tmp_path / "a.json", masks=False, kind=AnnotationError, says=says)


def test_half_a_character_survives_where_it_harms_nobody_and_is_refused_in_names(tmp_path: Path) -> None:
    coco = made(caption="\ud83e")
    write(tmp_path / "b.json", strip(read(saved(tmp_path, coco), masks=True)))
    assert json.loads((tmp_path / "b.json").read_text())["annotations"][0]["caption"] == "\ud83e"
    coco["images"][1]["file_name"] = "\ud83e.png"
    says = ["image 8", r"'\ud83e.png'", "half a character", "whole name"]
    refused_by(read, saved(tmp_path, coco), masks=True, kind=AnnotationError, says=says)


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path) -> None:
    text = json.dumps(GOOD)
    for number in (7, 8, 11, 12, 64, 48, 1, 3):
        text = text.replace(f": {number},", f": {number}.0,").replace(f": {number}}}", f": {number}.0}}")
    (tmp_path / "a.json").write_text(text)
    coco = read(tmp_path / "a.json", masks=True)
    assert json.dumps(coco) == json.dumps(GOOD)  # ints again: they index arrays and name files
    half = made(category_id=1.5)
    refused_by(
        read, saved(tmp_path, half), masks=True, kind=AnnotationError, says=["category_id is 1.5", "whole number"]
    )


def test_a_crowd_of_null_is_none(tmp_path: Path) -> None:
    for value, read_as in ((None, 0), (False, False), (True, True), (1.0, 1.0)):
        found = read(saved(tmp_path, made(iscrowd=value)), masks=True)["annotations"][0]["iscrowd"]
        assert (found, type(found)) == (read_as, type(read_as))


# kind: (what is done to a good file, what the error says beside the file's name)
ODD: dict[str, tuple[Any, list[str]]] = {
    "text ids": (image(id="9c1e"), ["image entry 1 is '9c1e'", "1, 2, 3", "image_id of the annotations"]),
    "ids in quotes": (image(id="8"), ["image entry 1 is '8'", "without quotes", "image_id of the annotations"]),
    "hash as id": (image(id=2**64 - 9), ["image entry 1 is 18446744073709551607", "63 bits", "anew"]),
    "five numbers": (first(bbox=[4, 5, 20, 10, 0.5]), ["four numbers", "if the fifth is an angle", "upright box"]),
    "polygon without a box": (
        first(bbox=None, segmentation=[[4, 5, 24, 5, 24, 15]]),
        ["bbox is None", "its polygons' box is [4, 5, 20, 10]"],
    ),
    "flat polygon without a box": (
        first(bbox=[], segmentation=[4, 5, 24, 5, 24, 15]),
        ["bbox is []", "its polygons' box is [4, 5, 20, 10]"],
    ),
    "neither box nor polygon": (first(bbox=[], segmentation=[]), ["bbox is []", "four numbers"]),
    "size of -1": (image(width=-1, height=-1), ["image 8", "width is -1", "in pixels"]),
    "size of null": (image(width=None, height=None), ["image 8", "width is None", "in pixels"]),
    "half a character in a name": (
        lambda coco: coco["categories"][0].update(name="\udc00"),
        ["category 1", r"'\udc00'", "half a character"],
    ),
    "number for a name": (lambda coco: coco["categories"][0].update(name=7), ["category 1", "name is 7", "in quotes"]),
    "no category": (lambda coco: coco["categories"].clear(), ["categories is empty", '{"id": 1, "name": "object"}']),
    "malformed address": (
        image(file_name=None, coco_url="http://[::1/a.png"),
        ["image 8", "coco_url 'http://[::1/a.png' is no web address", "give a file_name"],
    ),
    "path that leads out": (
        image(file_name="..\\..\\media\\upload\\4\\dog.png"),
        ["image 8", "leads out of the image folder", "such as 'dog.png'"],
    ),
    "a size too large to open": (image(width=50_000, height=50_000), ["image 8", "178,956,970 pixels", "own size"]),
    "a size beyond all bounds": (image(width=10**400), ["image 8", "178,956,970 pixels", "own size"]),
    "polygon beyond bounds": (first(segmentation=[[4, 5, 10**400, 5, 24, 15]]), ["annotation 11", "must be pixels"]),
    "outline too long": (
        lambda coco: (image(width=10**8, height=1)(coco), coco["annotations"][1].update(
            bbox=[0, 0, 9, 1], segmentation=[[0, 0, 9e7, 0, 0, 1, 9e7, 1]])),
        ["annotation 12", "longer than 10,000,000 pixels", "simplify"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_refused_with_its_way_out(tmp_path: Path, kind: str) -> None:
    change, says = ODD[kind]
    coco = copy.deepcopy(GOOD)
    change(coco)
    path = saved(tmp_path, coco)
    refused_by(read, path, masks=True, kind=AnnotationError, says=[str(path), *says])


ACCEPTED: dict[str, Any] = {
    "a category 0": lambda coco: (
        coco["categories"][0].update(id=0), coco["annotations"][0].update(category_id=0)),
    "a box just outside": first(bbox=[-1e-7, -3e-8, 20.0, 10.0]),
    "a flat polygon that is not needed": first(segmentation=[4, 5, 24, 5, 24, 15]),
    "keypoints without a box": first(bbox=[0, 0, 0, 0], segmentation=[], keypoints=[30, 30, 2] * 17),
    "names that differ in case": lambda coco: coco["categories"][1].update(name="CAT"),
    "names with spaces": lambda coco: coco["categories"][1].update(name="dog, \"Fido\" \u00a0\u200b🐕"),
    "an unused category above all others": lambda coco: coco["categories"].append({"id": 9, "name": "pets"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_is_odd_and_plain_is_read_as_it_stands(tmp_path: Path, kind: str) -> None:
    coco = copy.deepcopy(GOOD)
    ACCEPTED[kind](coco)
    assert json.dumps(read(saved(tmp_path, coco), masks=False)) == json.dumps(coco)


def many(count: int) -> dict[str, Any]:
    """A file of `count` annotations, 100 and up, on image 7."""
    coco = copy.deepcopy(GOOD)
    coco["annotations"] = [{**GOOD["annotations"][0], "id": 100 + n} for n in range(count)]
    return coco


def test_of_many_faults_each_kind_is_counted_and_the_first_few_are_named(tmp_path: Path) -> None:
    coco = many(90)
    for n in range(70):
        coco["annotations"][n]["bbox"] = [70, 5, 20, 10]
    for n in range(70, 72):
        coco["annotations"][n]["iscrowd"] = "no"
    coco["annotations"][80]["category_id"] = 44
    coco["images"][1]["height"] = None
    says = [
        "image 8: height is None",
        "annotation 100: image 7 (cat.png): bbox [70, 5, 20, 10] lies outside",
        "(70 annotations have this fault: 100, 101, 102, ...)",
        "annotation 170: image 7 (cat.png): iscrowd is 'no'",
        "(2 annotations have this fault: 170, 171)",
        "annotation 180: image 7 (cat.png): category_id is 44",
    ]
    refused_by(read, saved(tmp_path, coco), masks=False, kind=AnnotationError, says=says)
    with pytest.raises(AnnotationError) as error:
        check(coco, source="a.json", masks=False)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)
    found = problems(coco, masks=False)
    assert len(found) == 74
    assert {problem.kind for problem in found if problem.entries == "images"} == {"no height"}
    assert [problem.name for problem in found][:3] == ["8", "100", "101"]
    assert len({problem.kind for problem in found}) == 4


def test_more_kinds_of_fault_than_fit_are_counted() -> None:
    coco = many(8)
    for annotation, wrong in zip(
        coco["annotations"],
        [{"bbox": None}, {"bbox": [1, 2, -3, 4]}, {"bbox": ["1", 2, 3, 4]}, {"bbox": [70, 5, 2, 1]},
         {"bbox": [50, 5, 20, 10]}, {"iscrowd": 3}, {"iscrowd": 4}, {"category_id": 5}],
        strict=True,
    ):  # fmt: skip
        annotation.update(wrong)
    with pytest.raises(AnnotationError, match=r"And 3 more kinds of fault in 4 entries$"):
        check(coco, source="a.json", masks=False)


def test_who_refers_to_a_faulty_entry_is_not_at_fault() -> None:
    coco = copy.deepcopy(GOOD)
    for entry, key in ((coco["images"][0], "a7"), (coco["categories"][1], "c3")):
        entry["id"] = key
    first(image_id="a7")(coco)
    coco["annotations"][1]["category_id"] = "c3"
    assert [(p.entries, p.name) for p in problems(coco, masks=True)] == [
        ("categories", "entry 1"),
        ("images", "entry 0"),
    ]


def test_a_good_file_has_no_problems(shared_data: Path) -> None:
    for masks in (True, False):
        assert problems(GOOD, masks=masks) == []
        assert problems(parse(shared_data / "lvis_mini/lvis_val_mini.json").value, masks=masks) == []


def test_a_large_file_of_faults_takes_seconds_not_hours() -> None:
    coco = many(30_000)
    for annotation in coco["annotations"]:
        annotation["bbox"] = [50, 5, 20, 10]  # its sentence says how many of the file's boxes do so
    with pytest.raises(AnnotationError, match=r"\(30000 of the file's 30000 boxes do\).*\(30000 annotations have this"):
        check(coco, source="a.json", masks=False)


LEFT_OVER = {"id": 50, "image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 0], "iscrowd": False}


@pytest.mark.parametrize("segmentation", [[], None, [[]], {}, {"size": [48, 64], "counts": []}])
def test_what_a_tool_left_over_stops_nothing_and_is_counted(tmp_path: Path, segmentation: Any) -> None:
    coco = copy.deepcopy(GOOD)
    coco["annotations"].append({**LEFT_OVER, "segmentation": segmentation})
    path = saved(tmp_path, coco)
    assert [a["id"] for a in read(path, masks=True)["annotations"]] == [
        11,
        12,
    ]  # nothing to learn from or to measure on
    assert read(path, masks=False) == coco  # whoever labels it gets every annotation back
    (said,) = take(coco).findings  # once: the remark, and not that it is small as well
    assert (said.level, said.text[:54]) == (NOTE, "1 of 3 annotations have a box without area and no mask")
    assert "(ids 50)" in said.text


def test_a_box_without_area_that_has_a_mask_stays(tmp_path: Path) -> None:
    coco = made(bbox=[4, 5, 0, 0])
    assert read(saved(tmp_path, coco), masks=True) == coco


def test_oddities_that_harm_nobody_are_said() -> None:
    assert remarks(GOOD) == []
    coco = copy.deepcopy(GOOD)
    coco["images"].append({**GOOD["images"][0], "id": 9})
    coco["categories"].append({"id": 4, "name": "dog"})
    for category in coco["categories"]:
        category["supercategory"] = "pets-9xk"
    coco["categories"].insert(0, {"id": 0, "name": "pets-9xk", "supercategory": "none"})
    text = "\n".join(remarks(coco))
    assert "'cat.png' as images 7, 9" in text
    assert "'dog' to 3, 4" in text
    assert "category 0 ('pets-9xk') is the supercategory of all others" in text
    assert "Roboflow" in text


def test_the_largest_image_is_the_one_that_can_be_opened() -> None:
    from PIL import Image

    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS == LARGEST_IMAGE
