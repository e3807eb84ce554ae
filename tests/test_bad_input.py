"""Bad input: what is refused, and that the sentence names the culprit and a way out. Nothing finished is lost."""

import copy
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mal.data.annotations import check_images, read, write
from mal.data.images import load, load_for
from mal.engine.files import atomic_write, write_json
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.errors import AnnotationError, ImageError, MalError

NAN, INF = float("nan"), float("inf")
GOOD: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "cat.png", "width": 64, "height": 48},
        {"id": 8, "file_name": "dog.png", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 11, "image_id": 7, "category_id": 1, "bbox": [4, 5, 20, 10], "segmentation": [[4, 5, 24, 5, 24, 15]]},
        {
            "id": 12,
            "image_id": 8,
            "category_id": 3,
            "bbox": [40, 30, 10, 10],
            "segmentation": [[40, 30, 50, 30, 50, 40]],
        },
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
}
Change = Callable[[dict[str, Any]], Any]


def first(**values: Any) -> Change:
    """Change the first annotation: what the error must name is 11, cat.png."""
    return lambda coco: coco["annotations"][0].update(values)


def image(**values: Any) -> Change:
    return lambda coco: coco["images"][1].update(values)


def boxes(*found: list[float]) -> Change:
    return lambda coco: [a.update(bbox=box) for a, box in zip(coco["annotations"], found, strict=True)]


def without(*keys: str, of: str = "") -> Change:
    return lambda coco: [entry.pop(key) for key in keys for entry in (coco[of] if of else [coco])]


# kind of bad input: (what is done to a good file, what the error says beside the file's name)
ANNOTATION_CASES: dict[str, tuple[Change, list[str]]] = {
    "images missing": (without("images"), ["no images", "'annotations', 'categories'", "give a COCO"]),
    "all keys missing": (without(*GOOD), ["no images and no annotations and no categories", "it has nothing"]),
    "images no list": (lambda coco: coco.update(images={"7": "cat.png"}), ["images is {'7': 'cat.png'}", "a list"]),
    "no images": (lambda coco: coco["images"].clear(), ["the list of images is empty", "give another file"]),
    "no annotations": (lambda coco: coco["annotations"].clear(), ["the list of annotations is empty"]),
    "no categories": (lambda coco: coco["categories"].clear(), ["the list of categories is empty"]),
    "entry no object": (lambda coco: coco["annotations"].append(5), ["entry 2 of the annotation list is 5", "object"]),
    "image id twice": (image(id=7), ["image id 7 is used twice", "entry 1", "number the entries anew"]),
    "annotation id twice": (first(id=12), ["annotation id 12 is used twice", "entry 1", "number the entries anew"]),
    "category id twice": (lambda coco: coco["categories"][0].update(id=3), ["category id 3 is used twice", "anew"]),
    "annotation id missing": (without("id", of="annotations"), ["id of annotation entry 0 is None", "whole number"]),
    "annotation id text": (first(id="11"), ["annotation entry 0 is '11'", "without quotes"]),
    "image id text": (image(id="8"), ["image entry 1 is '8'", "without quotes"]),
    "image id true": (image(id=True), ["image entry 1 is True", "whole number"]),
    "id beyond 64 bits": (first(id=2**63), ["annotation entry 0 is 9223372036854775808", "whole number"]),
    "unknown image": (first(image_id=99), ["annotation 11", "image_id is 99", "none of the 2 images", "from 7 to 8"]),
    "image_id text": (first(image_id="7"), ["annotation 11", "image_id is '7'", "without quotes"]),
    "image_id list": (first(image_id=[7]), ["annotation 11", "image_id is [7]", "whole number"]),
    "unknown category": (
        first(category_id=2),
        ["annotation 11", "category_id is 2", "cat.png", "2 categories", "correct it"],
    ),
    "category_id missing": (without("category_id", of="annotations"), ["annotation 11", "category_id is None"]),
    "category nameless": (lambda coco: coco["categories"][1].pop("name"), ["category 3", "name is None", "give it"]),
    "width missing": (without("width", of="images"), ["image 7", "width is missing", "in pixels"]),
    "height text": (image(height="48"), ["image 8", "height is '48'", "whole number > 0"]),
    "height zero": (image(height=0), ["image 8", "height is 0", "whole number > 0"]),
    "width negative": (image(width=-64), ["image 8", "width is -64", "whole number > 0"]),
    "width fractional": (image(width=63.5), ["image 8", "width is 63.5", "whole number > 0"]),
    "file_name missing": (without("file_name", of="images"), ["image 7", "file_name is None", "give the image's path"]),
    "file_name number": (image(file_name=5), ["image 8", "file_name is 5", "in quotes"]),
    "file_name leads out": (image(file_name="../dog.png"), ["image 8", "'../dog.png'", "leads out", "remove the '..'"]),
    "box missing": (without("bbox", of="annotations"), ["annotation 11", "cat.png", "bbox is None", "[x, y, width"]),
    "box of three": (first(bbox=[4, 5, 20]), ["annotation 11", "[4, 5, 20]", "four numbers"]),
    "box nested": (first(bbox=[[4, 5, 20, 10]]), ["annotation 11", "[[4, 5, 20, 10]]", "four numbers"]),
    "box NaN": (first(bbox=[4, NAN, 20, 10]), ["annotation 11", "image 7 (cat.png)", "holds nan", "correct or remove"]),
    "box infinite": (first(bbox=[4, 5, INF, 10]), ["annotation 11", "cat.png", "holds inf", "correct or remove"]),
    "box of text": (first(bbox=["4", 5, 20, 10]), ["annotation 11", "cat.png", "holds '4'", "without quotes"]),
    "box of booleans": (first(bbox=[True, 5, 20, 10]), ["annotation 11", "holds True", "not a number"]),
    "box of null": (first(bbox=[4, 5, None, 10]), ["annotation 11", "holds None", "not a number"]),
    "corners swapped": (
        first(bbox=[24, 15, -20, -10]),
        ["annotation 11", "[24, 15, -20, -10]", "swapped", "max x - min x"],
    ),
    "box outside": (
        first(bbox=[70, 5, 20, 10]),
        ["annotation 11", "cat.png", "outside its image of 64 x 48", "remove"],
    ),
    "box left of the image": (first(bbox=[-20, 5, 20, 10]), ["annotation 11", "[-20, 5, 20, 10]", "outside"]),
    "box over the border": (
        first(bbox=[50, 5, 20, 10]),
        ["annotation 11", "cat.png", "[50, 5, 20, 10]", "sticks out", "by 6", "1 of the file's 2 boxes", "clip"],
    ),
    "corners for sizes": (
        boxes([4, 5, 64, 40], [40, 30, 50, 40]),
        [
            "annotation 11",
            "[4, 5, 64, 40]",
            "2 of the file's 2 boxes",
            "two corners",
            "write [x1, y1, x2 - x1, y2 - y1]",
        ],
    ),
    "iscrowd text": (first(iscrowd="0"), ["annotation 11", "iscrowd is '0'", "0 or 1"]),
    "box-only file for masks": (
        without("segmentation", of="annotations"),
        ["boxes only", "none of its 2 annotations", "human masks are needed", "instances_*.json"],
    ),
    "one mask missing": (
        first(segmentation=[]),
        ["annotation 11", "cat.png", "segmentation is []", "remove the annot"],
    ),
    "polygon too short": (first(segmentation=[[24, 24]]), ["annotation 11", "[24, 24] has 2 numbers", "at least 6"]),
    "polygon odd": (first(segmentation=[[4, 5, 24, 5, 24, 15, 9]]), ["annotation 11", "has 7 numbers", "even number"]),
    "polygon flat": (first(segmentation=[4, 5, 24, 5, 24, 15]), ["annotation 11", "a polygon is 4", "list of lists"]),
    "polygon of corners": (
        first(segmentation=[[[4, 5], [24, 5], [24, 15]]]),
        ["annotation 11", "holds lists", "[x1, y1, x2, y2, ...]"],
    ),
    "polygon NaN": (first(segmentation=[[4, NAN, 24, 5, 24, 15]]), ["annotation 11", "holds NaN", "draw it again"]),
    "polygon of text": (
        first(segmentation=[[4, "5", 24, 5, 24, 15]]),
        ["annotation 11", "holds '5'", "without quotes"],
    ),
    "polygon far away": (first(segmentation=[[4, 5, 1e7, 5, 24, 15]]), ["annotation 11", "to 1e+07", "must be pixels"]),
    "mask a file name": (first(segmentation="cat_mask.png"), ["annotation 11", "'cat_mask.png'", "polygons or an RLE"]),
    "RLE of swapped size": (
        first(segmentation={"size": [64, 48], "counts": [64 * 48]}),
        ["annotation 11", "[64, 48]", "[height, width] of the image is [48, 64]", "swapped"],
    ),
    "RLE too short": (
        first(segmentation={"size": [48, 64], "counts": [5, 9]}),
        ["annotation 11", "sum to 14", "48 x 64 = 3072 pixels", "write the mask again"],
    ),
    "RLE negative": (
        first(segmentation={"size": [48, 64], "counts": [-5, 3077]}),
        ["annotation 11", "[-5, 3077]", "whole numbers >= 0"],
    ),
    "RLE text broken": (
        first(segmentation={"size": [48, 64], "counts": "hello world!"}),
        ["annotation 11", "'hello world!'", "with pycocotools"],
    ),
    "area text": (first(area="100"), ["annotation 11", "area is '100'", "left out"]),
    "score NaN": (first(score=NAN), ["entry 11 of annotations", "NaN", "in score", "write null"]),
    "NaN deep inside": (image(place={"gps": [1.5, NAN]}), ["entry 8 of images", "in place.gps.1", "write null"]),
}

TEXT_CASES: dict[str, tuple[str | bytes, list[str]]] = {
    "truncated": (json.dumps(GOOD)[:300], ["ends in the middle", "line 1", "download or export it again"]),
    "truncated in text": (json.dumps(GOOD)[:38], ["ends in the middle", "download or export it again"]),
    "empty file": ("", ["is empty", "download or export it again"]),
    "not JSON": ("<html>404 Not Found</html>", ["is not JSON", "line 1, column 1", "give a COCO JSON file"]),
    "JSON with comma": ('{"images": [],\n}', ["is not JSON", "line 2", "give a COCO JSON file"]),
    "packed file": (b"\x1f\x8b\x08\x00\xff\xfe\x90", ["packed by gzip", "unpack it"]),
    "list of results": (json.dumps(GOOD["annotations"]), ["holds a list", "detection results", "give a COCO instance"]),
    "a number": ("5", ["holds 5", "give a COCO instance file"]),
    "nested without end": ("[" * 100_000, ["nested too deeply", "give a COCO JSON file"]),
}


@pytest.mark.parametrize("kind", ANNOTATION_CASES)
def test_a_bad_annotation_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    change, says = ANNOTATION_CASES[kind]
    coco = copy.deepcopy(GOOD)
    change(coco)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco))
    refused_by(read, path, masks=True, kind=AnnotationError, says=[str(path), *says])


def test_the_file_that_all_those_are_made_of_is_accepted(tmp_path: Path) -> None:
    write(tmp_path / "instances.json", GOOD)
    assert read(tmp_path / "instances.json", masks=True) == GOOD


@pytest.mark.parametrize("kind", TEXT_CASES)
def test_a_file_that_is_no_coco_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    text, says = TEXT_CASES[kind]
    path = tmp_path / "instances.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused_by(read, path, masks=False, kind=AnnotationError, says=[str(path), *says])


def test_an_annotation_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing.json"
    refused_by(read, path, masks=False, kind=AnnotationError, says=["no annotation file", str(path), "give the path"])
    refused_by(read, tmp_path, masks=False, kind=AnnotationError, says=[str(tmp_path), "directory", "give a COCO"])


def test_the_number_of_a_nan_is_not_written(tmp_path: Path) -> None:
    coco = copy.deepcopy(GOOD)
    first(score=NAN)(coco)
    path = tmp_path / "out.json"
    path.write_text("old")
    refused_by(write, path, coco, kind=AnnotationError, says=[str(path), "entry 11", "score", "correct the value"])
    assert path.read_text() == "old"


def png(path: Path, *, exif: int = 1, size: tuple[int, int] = (64, 48)) -> Path:
    tags = Image.Exif()
    tags[0x0112] = exif
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=tags)
    return path


# kind: (names of the files there are, what the error says)
FOLDER_CASES: dict[str, tuple[list[str], list[str]]] = {
    "one missing": (["cat.png"], ["1 of 2 images", "dog.png", "give the folder that holds them"]),
    "in a sub-folder": (
        ["JPEGImages/cat.png", "JPEGImages/dog.png"],
        ["2 of 2", "cat.png is in", "JPEGImages: give that"],
    ),
    "another ending": (["cat.JPG", "dog.JPG"], ["2 of 2", "cat.JPG is there: correct file_name"]),
}


@pytest.mark.parametrize("kind", FOLDER_CASES)
def test_missing_images_are_counted_named_and_looked_for(kind: str, tmp_path: Path) -> None:
    there, says = FOLDER_CASES[kind]
    for name in there:
        png(tmp_path / name)
    refused_by(check_images, GOOD, tmp_path, kind=ImageError, says=[str(tmp_path), *says])


def test_missing_images_are_looked_for_without_the_folders_of_their_names(tmp_path: Path) -> None:
    png(tmp_path / "images" / "cat.png")
    for name in ("train2017/cat.png", "C:\\data\\cat.png", "/nowhere/cat.png"):
        coco = {**GOOD, "images": [{**GOOD["images"][0], "file_name": name}]}
        says = ["1 of 1", name, f"cat.png is in {tmp_path / 'images'}", "remove the rest of the path"]
        refused_by(check_images, coco, tmp_path / "images", kind=ImageError, says=says)
        refused_by(check_images, coco, tmp_path, kind=ImageError, says=says)
    png(tmp_path / "train2017" / "cat.png")
    coco = {**GOOD, "images": [{**GOOD["images"][0], "file_name": "train2017/cat.png"}]}
    refused_by(check_images, coco, tmp_path / "images", kind=ImageError, says=[f"is in {tmp_path}: give that folder"])
    check_images(coco, tmp_path)


def test_only_the_first_three_of_many_missing_images_are_named(tmp_path: Path) -> None:
    coco = {**GOOD, "images": [{"id": n, "file_name": f"{n}.jpg", "width": 1, "height": 1} for n in range(1000)]}
    refused_by(check_images, coco, tmp_path, kind=ImageError, says=["1000 of 1000", "0.jpg, 1.jpg, 2.jpg, ...;"])


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    names = [str(png(tmp_path / "far" / f"{n}.png")) for n in range(2)]
    coco = {**GOOD, "images": [{**entry, "file_name": n} for entry, n in zip(GOOD["images"], names, strict=True)]}
    (tmp_path / "near").mkdir()
    check_images(coco, tmp_path / "near")
    assert load_for(coco["images"][0], tmp_path / "near").shape == (3, 48, 64)


def test_a_missing_image_folder_is_named(tmp_path: Path) -> None:
    refused_by(check_images, GOOD, tmp_path / "no", kind=ImageError, says=[str(tmp_path / "no"), "give the folder"])


def truncated(path: Path, suffix: str) -> Path:
    whole = png(path.with_suffix(suffix)).read_bytes()
    path.with_suffix(suffix).write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(suffix)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


# kind: (makes the file, what the error says beside its name)
IMAGE_CASES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "truncated JPEG": (lambda f: truncated(f / "a", ".jpg"), ["cut off", "copy or download it again"]),
    "truncated PNG": (lambda f: truncated(f / "a", ".png"), ["cut off", "copy or download it again"]),
    "truncated WebP": (lambda f: truncated(f / "a", ".webp"), ["cut off or damaged", "copy or download it again"]),
    "missing": (lambda f: f / "a.jpg", ["there is no image", "check the image folder"]),
    "a folder": (lambda f: f, ["cannot open", "directory", "check the file"]),
    "empty": (lambda f: written(f / "a.jpg", b""), ["empty file", "copy or download it again"]),
    "a web page": (lambda f: written(f / "a.jpg", b"<html>404</html>"), ["not an image", "save it as JPEG or PNG"]),
    "floating point": (lambda f: saved(f / "a.tif", np.ones((4, 4), np.float32)), ["floating-point", "8 or 16 bits"]),
    "32-bit": (lambda f: saved(f / "a.tif", np.ones((4, 4), np.int32)), ["32-bit integer", "8 or 16 bits"]),
    "text file below it": (lambda f: written(f / "a", b"") / "b.jpg", ["there is no image", "check the image folder"]),
}


@pytest.mark.parametrize("kind", IMAGE_CASES)
def test_a_bad_image_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, says = IMAGE_CASES[kind]
    path = make(tmp_path)
    refused_by(load, path, kind=ImageError, says=[str(path), *says])


def test_a_jpeg_cut_anywhere_is_refused_and_never_half_decoded(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.jpg").read_bytes()
    for kept in range(0, len(whole) - 2, max(1, len(whole) // 25)):  # without the end marker all pixels may be there
        (tmp_path / "a.jpg").write_bytes(whole[:kept])
        refused_by(load, tmp_path / "a.jpg", kind=ImageError, says=[str(tmp_path / "a.jpg"), ";"])


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused_by(load, path, kind=ImageError, says=[str(path), "more than 2,000 pixels", "cut it into tiles"])


# kind: (EXIF orientation, annotated width and height, what the error says)
SIZE_CASES: dict[str, tuple[int, tuple[int, int], list[str]]] = {
    "another size": (1, (128, 96), ["64 x 48", "128 x 96", "image 7", "scale the annotations"]),
    "width and height swapped": (1, (48, 64), ["64 x 48", "48 x 64", "image 7", "swapped", "turn the image"]),
    "swapped, EXIF only upside down": (3, (48, 64), ["64 x 48", "48 x 64", "swapped"]),
    "neither size, EXIF turned": (6, (128, 96), ["64 x 48", "EXIF tag turns it", "128 x 96", "scale the annotations"]),
}


@pytest.mark.parametrize("kind", SIZE_CASES)
def test_an_image_of_another_size_than_annotated_is_refused(kind: str, tmp_path: Path) -> None:
    exif, (width, height), says = SIZE_CASES[kind]
    path = png(tmp_path / "cat.png", exif=exif)
    entry = {"id": 7, "file_name": "cat.png", "width": width, "height": height}
    refused_by(load_for, entry, tmp_path, kind=ImageError, says=[str(path), *says])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB. Mounting needs root; the simulated failures below run everywhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None or not mounted("tmpfs", folder, "size=64k"):
        pytest.skip("a tmpfs cannot be mounted here: not root, or not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mounted(kind: str, folder: Path, options: str) -> bool:
    command = ["mount", "-t", kind, "-o", options, kind, str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


BIG = {**GOOD, "info": "x" * 200_000}
WRITERS: dict[str, Callable[[Path], None]] = {
    "annotations": lambda path: write(path, BIG),
    "json": lambda path: write_json(path, BIG),
    "checkpoint": lambda path: save_checkpoint(path, {"weights": torch.zeros(100_000)}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(writer: str, small_disk: Path) -> None:
    path = small_disk / "out.json"
    path.write_text("old")
    says = [str(path), "the disk is full", "free some space", "run the same command again"]
    refused_by(WRITERS[writer], path, kind=MalError, says=says)
    assert path.read_text() == "old"
    assert names(small_disk) == ["out.json"]
    write_json(path, "new")  # the space of the attempt is free again
    assert path.read_text() == '"new"'


def test_a_read_only_results_folder_is_named_and_left_as_it_was(small_disk: Path) -> None:
    path = small_disk / "out.json"
    path.write_text("old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    says = [str(path), "read-only", "name another place"]
    refused_by(WRITERS["json"], path, kind=MalError, says=says)
    refused_by(WRITERS["json"], small_disk / "new folder" / "out.json", kind=MalError, says=["read-only"])
    assert path.read_text() == "old"
    assert names(small_disk) == ["out.json"]


# kind: (error number, the call that meets it, what the error says)
WRITE_CASES: dict[str, tuple[int, tuple[Any, str], list[str]]] = {
    "disk full at the end": (errno.ENOSPC, (os, "fsync"), ["the disk is full", "free some space"]),
    "quota used up": (errno.EDQUOT, (os, "fsync"), ["quota", "free some space"]),
    "read-only file system": (errno.EROFS, (tempfile, "mkstemp"), ["read-only", "name another place"]),
    "no right to write": (errno.EACCES, (tempfile, "mkstemp"), ["permission is denied", "change its rights"]),
    "target not replaceable": (errno.EPERM, (os, "replace"), ["permission is denied", "change its rights"]),
    "input/output error": (errno.EIO, (os, "fsync"), ["Input/output error"]),
}


@pytest.mark.parametrize("kind", WRITE_CASES)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    kind: str, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, (module, call), says = WRITE_CASES[kind]
    path = tmp_path / "out.json"
    path.write_text("old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, call, fail)
        refused_by(WRITERS[writer], path, kind=MalError, says=[str(path), *says, "Nothing that was finished is lost"])
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.json"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    path = tmp_path / "results" / "out.json"
    refused_by(WRITERS["json"], path, kind=MalError, says=[str(path)])
    assert (tmp_path / "results").read_text() == "a file"


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    program = (
        "import os, signal, sys; from mal.engine.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.json"]


def test_a_damaged_or_missing_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labeler.pt"
    refused_by(load_checkpoint, path, kind=MalError, says=["no checkpoint", str(path), "give the path"])
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    refused_by(load_checkpoint, path, kind=MalError, says=[str(path), "not a readable checkpoint", "give another file"])
    with pytest.raises(MalError) as error:
        load_checkpoint(path)
    assert "delete" not in str(error.value)  # the user's own folder
    (tmp_path / "run.json").write_text("{}")
    refused_by(load_checkpoint, path, kind=MalError, says=[f"or delete {tmp_path}, a stage's folder in the run store"])


def names(folder: Path) -> list[str]:
    """Of everything in the folder, hidden temporary files too."""
    return sorted(path.name for path in folder.iterdir())


def refused_by(
    call: Callable[..., Any], /, *arguments: Any, kind: type[MalError], says: list[str], **named: Any
) -> None:
    """The call fails with this kind of error, whose sentence holds every one of these parts."""
    with pytest.raises(kind) as error:
        call(*arguments, **named)
    assert type(error.value) is kind
    missing = [part for part in says if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"
