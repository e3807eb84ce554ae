"""COCO-Stuff-10K, ADE20K and a user's own labels become folders of class maps: from small folders of their layout."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal.data.annotations import encode_mask, write
from mal.data.cocostuff import UNLABELLED, read_mat, stuff_map
from mal.data.semantic import read_semantic
from mal.data.semantic_folders import shifted
from mal.errors import AnnotationError
from mal.methods.simformer.splits import classes_of, novel_of
from mal.semantic import main

STUFF, ADE = classes_of("coco_stuff_10k"), classes_of("ade20k_150")
VALUES = np.array([[1, 2, 172], [3, 1, 1]])  # of COCO-Stuff: unlabelled, person, wood, bicycle


def photograph(path: Path, *, height: int = 2, width: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 99, 199)).save(path)


def index_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Three training photographs, one of them unlabelled, and one of validation."""
    folder = tmp_path / "ADEChallengeData2016"
    maps = {"training/ADE_train_1": [[0, 1, 150], [2, 0, 0]], "training/ADE_train_2": np.zeros((2, 3)),
            "training/ADE_train_3": np.full((2, 3), 7), "validation/ADE_val_1": np.full((2, 3), 13)}  # fmt: skip
    for name, values in maps.items():
        photograph(folder / "images" / f"{name}.jpg")
        index_png(folder / "annotations" / f"{name}.png", np.array(values))
    return folder


def test_ade20k_becomes_class_maps(ade: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    assert main(["ade20k", "--from", str(ade), "--out", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "labels/train/semantic.json: 150 classes on 2 images" in printed
    assert "note: 1 image without a labelled pixel left out: ADE_train_2.jpg" in printed
    assert "note: the whole train has 20,210 images; here are 3" in printed
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "images/test/ADE_val_1.jpg", "images/train/ADE_train_1.jpg", "images/train/ADE_train_3.jpg",
        "labels/test/ADE_val_1.png", "labels/test/semantic.json",
        "labels/train/ADE_train_1.png", "labels/train/ADE_train_3.png", "labels/train/semantic.json",
    ]  # fmt: skip
    train = read_semantic(root / "labels" / "train" / "semantic.json", maps=True)
    np.testing.assert_array_equal(train.map_of(train.images[0]), [[255, 0, 149], [1, 255, 255]])
    assert [image.file_name for image in train.images] == ["ADE_train_1.jpg", "ADE_train_3.jpg"]
    assert len(novel_of(train.classes, "S1")) == 38
    first = ade / "images" / "training" / "ADE_train_1.jpg"
    assert (root / "images" / "train" / "ADE_train_1.jpg").read_bytes() == first.read_bytes()
    assert main(["ade20k", "--from", str(ade), "--out", str(root)]) == 0, "a second time changes nothing"


def test_stuff_counts_from_two_and_one_is_unlabelled() -> None:
    found = stuff_map(VALUES, [UNLABELLED, *STUFF], 171, Path("a.mat"))
    np.testing.assert_array_equal(found, [[255, 0, 170], [1, 255, 255]])
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (
            VALUES,
            STUFF,
            r"a.mat has 171 names of classes, from person, bicycle, car, …, and v1.0's files 172, from 'unl",
        ),
        (VALUES, [*STUFF, UNLABELLED], "a.mat has 172 names of classes, from person, .* v1.1 numbers its classes diff"),
        (VALUES, [], "a.mat has 0 names of classes, from none"),
        (VALUES - 1, [UNLABELLED, *STUFF], r"a.mat holds the values 0; classes are 2 to 172, and 1 is unlabelled"),
        (VALUES + 1, [UNLABELLED, *STUFF], r"a.mat holds the values 173; classes are 2 to 172"),
        (VALUES + 256, [UNLABELLED, *STUFF], r"a.mat holds the values 257, 258, 259, …; classes are 2 to 172"),
    ],
)
def test_other_label_files_than_those_of_stuff_10k_are_refused(values, names: list[str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        stuff_map(values, names, 171, Path("a.mat"))


@pytest.mark.parametrize(
    ("by", "value", "fits"),
    [(0, 4, True), (0, 5, False), (0, 255, True), (1, 0, True), (1, 5, True), (1, 6, False), (1, 255, False),
     (2, 0, False)],
)  # fmt: skip
def test_values_are_classes_or_unlabelled(by: int, value: int, fits: bool) -> None:
    values = np.array([[value]], dtype=np.uint8)
    if not fits:
        with pytest.raises(AnnotationError, match=r"a.png holds the values"):
            shifted(values, by, 5, Path("a.png"))
        return
    expected = 255 if value == (255 if by == 0 else by - 1) else value - by
    assert shifted(values, by, 5, Path("a.png")).tolist() == [[expected]]


def mat(path: Path, values: np.ndarray, names: list[str]) -> None:
    """As MATLAB 7.3 writes it: arrays column by column, a cell array as references to arrays of characters."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads COCO-Stuff's files, is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["S"] = values.T.astype(np.uint8)
        cells = file.create_dataset("names", (1, len(names)), dtype=h5py.ref_dtype)
        for place, name in enumerate(names):
            letters = file.create_dataset(f"#refs#/{place}", data=np.array([[ord(x)] for x in name], dtype=np.uint16))
            cells[0, place] = letters.ref


def listed(folder: Path, **names: tuple[str, ...]) -> None:
    (folder / "imageLists").mkdir(parents=True, exist_ok=True)
    for split, those in names.items():
        (folder / "imageLists" / f"{split}.txt").write_text("".join(f"{name}\n" for name in those))


def test_coco_stuff_becomes_class_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = tmp_path / "cocostuff", tmp_path / "root"
    listed(folder, train=("b", "a"), test=("c",))
    for name in "abcd":
        photograph(folder / "images" / f"{name}.jpg")
        mat(folder / "annotations" / f"{name}.mat", VALUES, [UNLABELLED, *STUFF])
    assert main(["cocostuff", "--from", str(folder), "--out", str(root)]) == 0
    assert "labels/test/semantic.json: 171 classes on 1 image\n" in capsys.readouterr().out
    train = read_semantic(root / "labels" / "train" / "semantic.json", maps=True)
    assert [image.file_name for image in train.images] == ["b.jpg", "a.jpg"]
    np.testing.assert_array_equal(train.map_of(train.images[0]), [[255, 0, 170], [1, 255, 255]])
    assert len(novel_of(train.classes, "S9")) == 85


def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py, which reads COCO-Stuff's files, is not installed")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 " * 40)
    with pytest.raises(AnnotationError, match=r"a.mat cannot be read as COCO-Stuff-10K's labels"):
        read_mat(tmp_path / "a.mat")


def test_without_h5py_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    folder = tmp_path / "cocostuff"
    listed(folder, train=("a",), test=("a",))
    photograph(folder / "images" / "a.jpg")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "a.mat").write_bytes(b"")
    assert main(["cocostuff", "--from", str(folder), "--out", str(tmp_path / "root")]) == 1
    assert "h5py, which reads them, is not installed; pip install h5py" in capsys.readouterr().err


def test_lists_that_are_absent_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cocostuff", "--from", str(tmp_path), "--out", str(tmp_path / "root")]) == 1
    message = capsys.readouterr().err
    assert "train.txt cannot be read (No such file or directory); get cocostuff-10k-v1.0.zip" in message
    listed(tmp_path, train=("a", "b"), test=("c",))
    photograph(tmp_path / "images" / "a.jpg")
    assert main(["cocostuff", "--from", str(tmp_path), "--out", str(tmp_path / "root")]) == 1
    assert "the folder" in (message := capsys.readouterr().err)
    assert "annotations cannot be listed (No such file or directory); check its name; get cocostuff" in message
    (tmp_path / "annotations").mkdir()
    assert main(["cocostuff", "--from", str(tmp_path), "--out", str(tmp_path / "root")]) == 1
    assert "1 of 2 files are absent from" in (message := capsys.readouterr().err)
    assert "images: b; each photograph needs a label file of the same name" in message


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "annotations" / "training" / "ADE_train_3.png").unlink(),
         "1 of 3 files are absent from"),
        (lambda f: (f / "images" / "validation" / "ADE_val_1.jpg").unlink(), "images/validation: ADE_val_1; each phot"),
        (lambda f: photograph(f / "images" / "training" / "ADE_train_1.jpg", width=5),
         "ADE_train_1.jpg has 5 x 2 pixels and"),
        (lambda f: index_png(f / "annotations" / "training" / "ADE_train_1.png", np.full((2, 3), 151)),
         "ADE_train_1.png holds the values 151; classes are 1 to 150, and 0 is unlabelled"),
        (lambda f: (f / "images" / "training" / "ADE_train_1.jpg").write_bytes(b"none"),
         "ADE_train_1.jpg: it is not an image that can be read; get it anew"),
        (lambda f: photograph(f / "images" / "training" / "ADE_train_1.png"),
         "holds several files with the name of ADE_train_1.jpg; remove all but one"),
    ],
)  # fmt: skip
def test_what_is_absent_or_wrong_is_named(
    ade: Path, spoil, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(ade)
    assert main(["ade20k", "--from", str(ade), "--out", str(tmp_path / "root")]) == 1
    assert message in capsys.readouterr().err


def test_all_unlabelled_is_nothing_to_learn_from(ade: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index_png(ade / "annotations" / "validation" / "ADE_val_1.png", np.zeros((2, 3)))
    assert main(["ade20k", "--from", str(ade), "--out", str(tmp_path / "root")]) == 1
    assert "none of the 1 label files of test has a labelled pixel" in capsys.readouterr().err


@pytest.mark.parametrize(("zero", "expected"), [("class", [[0, 1, 255]]), ("unlabelled", [[255, 0, 1]])])
def test_a_users_own_pngs(zero: str, expected: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(tmp_path / "photos" / "x.JPG", height=1)
    index_png(tmp_path / "maps" / "x.png", np.array([[0, 1, 255 if zero == "class" else 2]]))
    (tmp_path / "names.txt").write_text("sky\n\ndog \n")
    folders = [
        "--images",
        str(tmp_path / "photos"),
        "--labels",
        str(tmp_path / "maps"),
        "--out",
        str(tmp_path / "root"),
    ]
    command = ["png", *folders, "--zero", zero, "--classes", str(tmp_path / "names.txt"), "--split", "test"]
    assert main(command) == 0, capsys.readouterr().err
    found = read_semantic(tmp_path / "root" / "labels" / "test" / "semantic.json", maps=True)
    assert found.classes == ("sky", "dog")
    np.testing.assert_array_equal(found.map_of(found.images[0]), expected)
    (tmp_path / "names.txt").write_text("sky\nsky\n")
    assert main(command) == 1
    assert "names.txt names 2 classes; write 1 to 255 different ones" in capsys.readouterr().err


def test_a_users_own_coco_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(tmp_path / "photos" / "below" / "x.jpg")
    mask = np.array([[True, False, False], [True, False, False]])
    annotation = {"id": 1, "image_id": 4, "category_id": 8, "bbox": [0, 0, 1, 2], "segmentation": encode_mask(mask)}
    image = {"id": 4, "file_name": "below/x.jpg", "width": 3, "height": 2}
    categories = [{"id": 8, "name": "dog", "supercategory": "animal"}]
    write(tmp_path / "a.json", {"images": [image], "annotations": [annotation], "categories": categories})
    command = ["coco", "--annotations", str(tmp_path / "a.json"), "--images", str(tmp_path / "photos"),
               "--split", "train", "--out", str(tmp_path / "root"), "--ground", "class", "--groups"]  # fmt: skip
    assert main(command) == 0
    assert "semantic.json: 2 classes on 1 image" in capsys.readouterr().out
    found = read_semantic(tmp_path / "root" / "labels" / "train" / "semantic.json", maps=True)
    assert (found.classes, found.images[0].entry) == (("animal", "ground"), image)
    np.testing.assert_array_equal(found.map_of(found.images[0]), [[0, 1, 1], [0, 1, 1]])
    assert (tmp_path / "root" / "images" / "train" / "below" / "x.jpg").is_file()
