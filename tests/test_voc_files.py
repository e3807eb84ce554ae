"""VOC 2012 and SBD as COCO files: from folders of their layout, small ones that the tests write."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from mal.data.annotations import decode_mask, read
from mal.data.views import VIEWS
from mal.data.voc import CLASSES, IMAGES
from mal.engine.store import Store
from mal.request import Graph
from mal.voc import main

Objects = list[tuple[int, np.ndarray]]  # class, mask


def box(top: int, left: int, bottom: int, right: int, *, height: int = 24, width: int = 32) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


DOG, CAT, CAR = (box(2, 3, 12, 15), CLASSES.index("dog") + 1), (box(14, 1, 20, 9), 8), (box(5, 18, 20, 30), 7)


def palette_image(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8)).convert("P")
    image.putdata(numbers.flatten().tolist())
    image.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    image.save(path)


def photograph(voc: Path, name: str, *, height: int = 24, width: int = 32) -> None:
    (voc / "JPEGImages").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 99, 199)).save(voc / "JPEGImages" / f"{name}.jpg")


def voc_image(voc: Path, name: str, objects: list[tuple[np.ndarray, int]], void: np.ndarray | None = None) -> None:
    photograph(voc, name)
    numbers, classes = np.zeros((24, 32), dtype=int), np.zeros((24, 32), dtype=int)
    for number, (mask, category) in enumerate(objects, 1):
        numbers[mask], classes[mask] = number, category
    if void is not None:
        numbers[void] = classes[void] = 255
    palette_image(voc / "SegmentationObject" / f"{name}.png", numbers)
    palette_image(voc / "SegmentationClass" / f"{name}.png", classes)


def sbd_image(sbd: Path, name: str, objects: list[tuple[np.ndarray, int]]) -> None:
    numbers = np.zeros((24, 32), dtype=np.uint8)
    for number, (mask, _) in enumerate(objects, 1):
        numbers[mask] = number
    categories = np.array([[category] for _, category in objects], dtype=np.uint8)
    (sbd / "inst").mkdir(parents=True, exist_ok=True)
    cells = np.empty((len(objects), 1), dtype=object)  # MATLAB's cell array: contours, which nothing reads
    cells[:, 0] = [np.zeros((24, 32), dtype=np.uint8) for _ in objects]
    struct = {"Segmentation": numbers, "Categories": categories, "Boundaries": cells}
    savemat(sbd / "inst" / f"{name}.mat", {"GTinst": struct}, do_compression=True)


def listed(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two photographs of VOC's train and one of val; SBD has one of each and two of its own."""
    voc, sbd = tmp_path / "VOC2012", tmp_path / "dataset"
    frame = box(1, 2, 13, 16) & ~box(2, 3, 12, 15)
    voc_image(voc, "2007_000032", [DOG, CAR], void=frame)
    voc_image(voc, "2007_000039", [CAT])
    voc_image(voc, "2008_000002", [CAR, CAT], void=box(0, 0, 2, 2))
    listed(voc / "ImageSets" / "Segmentation" / "train.txt", "2007_000032", "2007_000039")
    listed(voc / "ImageSets" / "Segmentation" / "val.txt", "2008_000002")
    for name in ("2009_000001", "2010_000007"):
        photograph(voc, name)
    sbd_image(sbd, "2007_000032", [CAT])  # VOC's own is finer
    sbd_image(sbd, "2008_000002", [DOG])  # of val: no part of train_aug
    sbd_image(sbd, "2009_000001", [CAT, DOG, CAR])
    sbd_image(sbd, "2010_000007", [DOG])  # one object: MATLAB's array of one class
    listed(sbd / "train.txt", "2009_000001", "2008_000002")
    listed(sbd / "val.txt", "2007_000032", "2010_000007")
    return voc, sbd


def objects_of(coco: dict, name: str) -> list[tuple[str, np.ndarray, list, int]]:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    (image,) = [image for image in coco["images"] if image["file_name"] == f"{name}.jpg"]
    return [
        (names[a["category_id"]], decode_mask(a["segmentation"], height=24, width=32), a["bbox"], a["area"])
        for a in coco["annotations"]
        if a["image_id"] == image["id"]
    ]


def check(found: list[tuple[str, np.ndarray, list, int]], *expected: tuple[str, np.ndarray, list[int]]) -> None:
    assert [name for name, *_ in found] == [name for name, *_ in expected]
    for (_, mask, bbox, area), (_, shape, around) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, shape)
        assert bbox == around
        assert area == shape.sum()


def test_voc_and_sbd_become_coco_files(folders, capsys: pytest.CaptureFixture[str]) -> None:
    voc, sbd = folders
    assert main(["--voc", str(voc), "--sbd", str(sbd)]) == 0
    printed = capsys.readouterr().out
    assert "train_aug.json: 7 objects on 4 images" in printed
    assert "note: the whole train_aug has 10,582 images; the lists name 4" in printed
    files = {name: read(voc / "instances" / f"{name}.json", masks=True) for name in IMAGES}
    images = {name: [image["file_name"] for image in coco["images"]] for name, coco in files.items()}
    assert images == {
        "train": ["2007_000032.jpg", "2007_000039.jpg"],
        "val": ["2008_000002.jpg"],
        "train_aug": ["2007_000032.jpg", "2007_000039.jpg", "2009_000001.jpg", "2010_000007.jpg"],
    }
    for name in ("train", "train_aug"):
        found = objects_of(files[name], "2007_000032")
        check(found, ("dog", DOG[0], [3, 2, 12, 10]), ("car", CAR[0], [18, 5, 12, 15]))
    check(objects_of(files["val"], "2008_000002"), ("car", CAR[0], [18, 5, 12, 15]), ("cat", CAT[0], [1, 14, 8, 6]))
    found = objects_of(files["train_aug"], "2009_000001")
    check(found, ("cat", CAT[0], [1, 14, 8, 6]), ("dog", DOG[0], [3, 2, 12, 10]), ("car", CAR[0], [18, 5, 12, 15]))
    check(objects_of(files["train_aug"], "2010_000007"), ("dog", DOG[0], [3, 2, 12, 10]))
    assert [category["name"] for category in files["val"]["categories"]] == list(CLASSES)
    ids = [image["id"] for coco in (files["train_aug"], files["val"]) for image in coco["images"]]
    assert len({*ids}) == 5


def test_void_belongs_to_no_object_and_is_kept_apart(folders) -> None:
    voc, _ = folders
    assert main(["--voc", str(voc)]) == 0
    assert not (voc / "instances" / "train_aug.json").exists()
    coco = read(voc / "instances" / "train.json", masks=True)
    void = json.loads((voc / "instances" / "train_void.json").read_text())
    assert [a["image_id"] for a in void["annotations"]] == [2007000032]
    pixels = decode_mask(void["annotations"][0]["segmentation"], height=24, width=32)
    assert pixels.sum() == 12 * 14 - 10 * 12
    for _, mask, *_ in objects_of(coco, "2007_000032"):
        assert not (mask & pixels).any()
    for view in VIEWS.values():
        assert "segmentation" not in json.dumps(view(coco))


def test_data_voc_reads_what_was_written(folders, compose, tmp_path: Path) -> None:
    voc, sbd = folders
    assert main(["--voc", str(voc), "--sbd", str(sbd), "--out", str(voc / "instances")]) == 0
    config = compose("data=voc", f"roots.voc={voc}", "labeler=disc", "segmenter=none", "compare=[]")
    graph = Graph(config, Store(tmp_path / "runs"), torch.device("cpu"))
    graph.check()
    assert [(split.name, split.census.annotations) for split in graph.splits] == [("train", 7), ("val", 2)]
    assert config.evaluate.voc


def remove(path: Path) -> None:
    path.unlink()


def without_class(folders: tuple[Path, Path]) -> None:
    palette_image(folders[0] / "SegmentationClass" / "2007_000039.png", np.zeros((24, 32), dtype=int))


def in_colour(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "SegmentationObject" / "2007_000039.png"
    Image.open(path).convert("RGB").save(path)


def of_another_size(folders: tuple[Path, Path]) -> None:
    photograph(folders[0], "2010_000007", width=40)


def of_too_few_classes(folders: tuple[Path, Path]) -> None:
    struct = {"Segmentation": np.full((24, 32), 2, dtype=np.uint8), "Categories": np.array([[3]], dtype=np.uint8)}
    savemat(folders[1] / "inst" / "2010_000007.mat", {"GTinst": struct})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: remove(f[0] / "ImageSets" / "Segmentation" / "val.txt"),
         "val.txt cannot be read (No such file or directory); get VOCtrainval_11-May-2012.tar"),
        (lambda f: remove(f[1] / "train.txt"), "train.txt cannot be read (No such file or directory); get benchmark"),
        (lambda f: listed(f[1] / "train.txt"), "train.txt names nothing in place of photographs of VOC 2012"),
        (lambda f: listed(f[1] / "train.txt", "dog.jpg"), "train.txt names dog.jpg in place of photographs"),
        (lambda f: remove(f[0] / "SegmentationClass" / "2007_000039.png"),
         "1 of 2 files are absent from"),
        (lambda f: remove(f[0] / "JPEGImages" / "2009_000001.jpg"), "JPEGImages: 2009_000001.jpg; get VOCtrainval"),
        (lambda f: remove(f[1] / "inst" / "2009_000001.mat"), "inst: 2009_000001.mat; get benchmark.tgz"),
        (lambda f: (f[1] / "inst" / "2009_000001.mat").write_bytes(b"MATLAB 5.0 " * 40),
         "2009_000001.mat cannot be read as SBD's instances"),
        (without_class, "2007_000039.png: object 1 has class 0, which is none of VOC's 1 to 20"),
        (in_colour, "2007_000039.png holds colours (mode RGB), not the numbers of objects or classes"),
        (of_another_size, "2010_000007.jpg has 40 x 24 pixels and its annotation 32 x 24"),
        (of_too_few_classes, "2010_000007.mat: object 2 has class 0"),
    ],
)  # fmt: skip
def test_what_is_absent_or_wrong_is_named(folders, spoil, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(folders)
    assert main(["--voc", str(folders[0]), "--sbd", str(folders[1])]) == 1
    assert message in capsys.readouterr().err
    assert not (folders[0] / "instances" / "train_aug.json").exists()
