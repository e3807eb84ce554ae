"""Classes that a user knows by image-level tags alone: from their files to what training sees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mal.data.annotations import encode_mask, write
from mal.data.config import DataConfig, SplitConfig
from mal.data.semantic import IGNORED, MappedImage, SemanticFile, read_semantic, write_map, write_semantic
from mal.data.sources import maps_split
from mal.data.stages import class_maps
from mal.data.tags import read_tags
from mal.data.weak_view import weak_view
from mal.engine.graph import execute
from mal.engine.store import Fingerprints, Store
from mal.errors import AnnotationError
from mal.methods.simformer.evaluation import pseudo_quality
from mal.semantic import main

CLASSES = ["sky", "dog", "cat"]


def folder_of(folder: Path, *images: dict, maps: tuple[np.ndarray, ...] = ()) -> Path:
    """A semantic.json whose images are 3 x 2 pixels, and its maps 0.png, 1.png, …."""
    for place, values in enumerate(maps):
        write_map(folder / f"{place}.png", values.astype(np.uint8))
    entries = [{"id": i, "file_name": f"{i}.png", "width": 3, "height": 2, **image} for i, image in enumerate(images)]
    (folder / "semantic.json").write_text(json.dumps({"classes": CLASSES, "images": entries}))
    return folder / "semantic.json"


def test_tags_are_named_or_numbered_and_stand_without_a_map(tmp_path: Path) -> None:
    found = read_semantic(folder_of(tmp_path, {"tags": ["cat", 1]}, {"tags": []}), maps=True)
    assert [(image.map, image.tags) for image in found.images] == [(None, (1, 2)), (None, ())]
    assert found.map_of(found.images[0]).tolist() == [[IGNORED] * 3] * 2
    write_semantic(tmp_path / "again.json", found)
    assert read_semantic(tmp_path / "again.json") == found


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({}, r"entry 0 of images \('0.png'\) has neither a map nor tags; give one"),
        ({"tags": ["cow"]}, r"entry 0: tags has 'cow', which the file's classes have not \(sky, dog, cat\)"),
        ({"tags": ["cat", 2]}, r"entry 0: tags is \[2, 2\]; it must be a list of different classes"),
        ({"tags": "cat"}, "entry 0: tags is 'cat'; it must be a list"),
        ({"tags": [3]}, r"tags is \[3\]; it must be a list of different classes, 0 to 2"),
    ],
)
def test_tags_of_no_class_are_refused(tmp_path: Path, image: dict, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_semantic(folder_of(tmp_path, image))


def test_training_sees_given_tags_and_those_of_visible_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = (np.array([[0, 0, 2], [0, 255, 255]]), np.full((2, 3), 255))
    images = ({"map": "0.png", "tags": ["dog"]}, {"map": "1.png"}, {"tags": ["cat"]}, {"map": "0.png"})
    view = weak_view(read_semantic(folder_of(tmp_path, *images, maps=drawn)), [1, 2], tmp_path / "weak")
    assert [image.tags for image in view.images] == [(1, 2), (), (2,), (2,)]
    assert [view.map_of(image).tolist() for image in view.images] == [
        [[0, 0, 255], [0, 255, 255]],
        [[255] * 3] * 2,
        [[255] * 3] * 2,
        [[0, 0, 255], [0, 255, 255]],
    ]
    assert "note: 1 image shows neither a base pixel nor a tag" in capsys.readouterr().err


def test_a_tag_of_a_base_class_is_refused(tmp_path: Path) -> None:
    semantic = read_semantic(folder_of(tmp_path, {"tags": ["dog", "cat"]}))
    with pytest.raises(AnnotationError, match=r"image 0 \(0.png\) is tagged dog, a base class; .* simformer.split"):
        weak_view(semantic, [2], tmp_path / "weak")


def test_a_run_takes_in_images_of_tags_alone(tmp_path: Path) -> None:
    """The split's identity holds the maps that there are; the copy in the store has one of each image."""
    file = folder_of(tmp_path, {"map": "0.png"}, {"tags": ["cat"]}, maps=(np.zeros((2, 3)),))
    photos = photographs(tmp_path / "photos", "0.png", "1.png")
    data = DataConfig(name="mine", format="maps", train=SplitConfig(str(file), str(photos)))
    store, fingerprints = Store(tmp_path / "store"), Fingerprints(tmp_path / "known")
    split = maps_split("train", data, fingerprints)
    assert split is not None
    before = dict(split.sources)["maps"]
    stage = class_maps(split, {}, data.semantic, form="maps")
    execute(stage, store, device=torch.device("cpu"))
    copied = read_semantic(store.folder(stage.name, stage.key) / "semantic.json", maps=True)
    assert [copied.map_of(image).tolist() for image in copied.images] == [[[0] * 3] * 2, [[255] * 3] * 2]
    assert copied.images[1].tags == (2,)
    write_map(tmp_path / "0.png", np.ones((2, 3), dtype=np.uint8))
    changed = maps_split("train", data, fingerprints)
    assert changed is not None
    assert dict(changed.sources)["maps"] != before


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.csv", "x.jpg,dog,cat\n\ny.jpg\nx.jpg, sky \n", {"x.jpg": (0, 1, 2), "y.jpg": ()}),
        ("t.csv", "\ufeffImage,classes\nx.jpg,cat\n", {"x.jpg": (2,)}),
        ("t.json", '{"x.jpg": ["cat", "dog"], "y.jpg": []}', {"x.jpg": (1, 2), "y.jpg": ()}),
    ],
)
def test_a_file_of_tags_names_images_and_classes(tmp_path: Path, name: str, text: str, expected: dict) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_tags(tmp_path / name, CLASSES) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "x.jpg,cow\n", r"t.csv: x.jpg is tagged 'cow', and the classes are sky, dog, cat; correct the name"),
        ("t.csv", "\n", "t.csv tags no image; a CSV file has lines such as"),
        ("t.csv", ",cat\n", "a line with cat names no image"),
        ("t.json", '["x.jpg"]', r"t.json holds \['x.jpg'\], no classes by image name"),
        ("t.json", '{"x.jpg": "cat"}', "no classes by image name; .* a JSON file is an object such as"),
        ("absent.csv", None, r"absent.csv cannot be read"),
    ],
)
def test_a_file_of_tags_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_tags(tmp_path / name, CLASSES)


def photographs(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (3, 2), (9, 99, 199)).save(folder / name)
    return folder


def test_index_pngs_with_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = photographs(tmp_path / "photos", "a.png", "b.png", "c.png")
    write_map(tmp_path / "pngs" / "a.png", np.zeros((2, 3), dtype=np.uint8))
    write_map(tmp_path / "pngs" / "c.png", np.full((2, 3), 255, dtype=np.uint8))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    (tmp_path / "tags.csv").write_text("b.png,cat\nc.png,dog\n")
    command = ["png", "--images", str(photos), "--labels", str(tmp_path / "pngs"), "--classes",
               str(tmp_path / "names.txt"), "--split", "train", "--out", str(tmp_path / "root"),
               "--tags", str(tmp_path / "tags.csv")]  # fmt: skip
    assert main(command) == 0
    assert "3 classes on 3 images, 2 of them with tags" in capsys.readouterr().out
    found = read_semantic(tmp_path / "root" / "labels" / "train" / "semantic.json", maps=True)
    assert [(it.file_name, it.map, it.tags) for it in found.images] == [
        ("a.png", "a.png", ()), ("b.png", None, (2,)), ("c.png", "c.png", (1,))
    ]  # fmt: skip
    assert (found.images[1].width, found.images[1].height) == (3, 2)
    assert (tmp_path / "root" / "images" / "train" / "b.png").is_file()
    (tmp_path / "tags.csv").write_text("b.png,cat\nd.png,dog\n")
    assert main(command) == 1
    assert "tags d.png, and there is no such image; name images as their files are, such as a.png" in (
        capsys.readouterr().err
    )
    (tmp_path / "tags.csv").write_text("a.png,cat\n")
    assert main(command) == 1
    assert "1 of 3 files are absent from" in (message := capsys.readouterr().err)
    assert "pngs: b; each photograph needs a label file of the same name or tags" in message


def coco(folder: Path, *annotations: dict) -> list[str]:
    """A COCO file of three images, and the command that reads it."""
    photos = photographs(folder / "photos", "1.png", "2.png", "3.png")
    mask = encode_mask(np.array([[True, False, False], [True, False, False]]))
    images = [{"id": i, "file_name": f"{i}.png", "width": 3, "height": 2} for i in (1, 2, 3)]
    made = [
        {"id": i, "category_id": 1, **({"bbox": [0, 0, 1, 2], "segmentation": mask} if "image_id" in it else {}), **it}
        for i, it in enumerate(annotations, 1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    write(folder / "a.json", {"images": images, "annotations": made, "categories": categories})
    return ["coco", "--annotations", str(folder / "a.json"), "--images", str(photos), "--split", "train",
            "--out", str(folder / "root"), "--ground", "class"]  # fmt: skip


BARE = {"segmentation": [], "category_id": 3}


def test_annotations_without_a_mask_are_tags(tmp_path: Path) -> None:
    """What no mask covers is no ground where an object lies anywhere."""
    left_over = {"image_id": 3, "bbox": [1, 1, 0, 0], "segmentation": []}
    command = coco(
        tmp_path, {"image_id": 1}, {"image_id": 2, **BARE, "bbox": None}, {"image_id": 2}, {"image_id": 3}, left_over
    )
    assert main(command) == 0
    found = read_semantic(tmp_path / "root" / "labels" / "train" / "semantic.json", maps=True)
    assert [image.tags for image in found.images] == [(), (2,), ()]
    assert [found.map_of(image)[0].tolist() for image in found.images] == [[0, 3, 3], [0, 255, 255], [0, 3, 3]]


def test_a_coco_file_with_a_file_of_tags(tmp_path: Path) -> None:
    """A tag whose pixels are drawn hides nothing."""
    (tmp_path / "tags.json").write_text('{"1.png": ["sky"], "2.png": ["dog"]}')
    command = [*coco(tmp_path, {"image_id": 1}, {"image_id": 2}), "--tags", str(tmp_path / "tags.json")]
    assert main(command) == 0
    found = read_semantic(tmp_path / "root" / "labels" / "train" / "semantic.json", maps=True)
    assert [image.tags for image in found.images] == [(0,), (1,), ()]
    assert [found.map_of(image)[0].tolist() for image in found.images] == [[0, 3, 3], [0, 255, 255], [3, 3, 3]]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 2, **BARE, "category_id": 9}, "category_id"),
        ({"image_id": 9, **BARE}, "image_id"),
        ({"image_id": 2, **BARE, "id": 1}, "annotation id 1 is used twice"),
        ({"image_id": 2, "segmentation": [[1, 2]]}, "annotation 3: image 2 (2.png): polygon [1, 2] has 2 numbers"),
    ],
)
def test_what_annotations_without_a_mask_refer_to_is_checked(
    tmp_path: Path, annotation: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(coco(tmp_path, {"image_id": 1}, {"image_id": 3, **BARE}, annotation)) == 1
    assert message in capsys.readouterr().err


def test_a_coco_file_of_tags_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(coco(tmp_path, {"image_id": 1, **BARE})) == 1
    assert "none of its 1 annotations has a segmentation" in capsys.readouterr().err


def test_pseudo_labels_of_classes_without_known_pixels_are_not_scored(tmp_path: Path) -> None:
    write_map(tmp_path / "0.png", np.zeros((2, 3), dtype=np.uint8))
    semantic = SemanticFile(("sky", "dog"), (MappedImage(1, "0.png", 3, 2, "0.png"),), folder=tmp_path)
    write_semantic(tmp_path / "semantic.json", semantic)
    assert pseudo_quality(tmp_path / "semantic.json", tmp_path / "semantic.json", (1,)) == {}
