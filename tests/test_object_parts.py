"""Parts of objects: merged to whole ones, read beside them, and refused before anything is trained."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mal.data.annotations import decode_mask, encode_mask, instance, read
from mal.data.object_parts import read_parts, wholes
from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError
from mal.request import Graph
from mal.run_notes import notes_of
from mal.wholes import main
from tests.attentionshift_cases import SMOKE, drawn_files

SIZE = (6, 9)  # height, width


def coco(masks: list[tuple[int, np.ndarray]], *, images: int = 2, **more: Any) -> dict[str, Any]:
    """A file of parts: image of each, and its mask."""
    frames = [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(1, images + 1)]
    parts = [
        {"id": 10 + n, "image_id": image, "category_id": 1 + n % 2, "bbox": [0, 0, 2, 2], "iscrowd": 0, **more,
         "segmentation": encode_mask(mask)}
        for n, (image, mask) in enumerate(masks)
    ]  # fmt: skip
    return {
        "images": frames,
        "categories": [{"id": 1, "name": "door"}, {"id": 2, "name": "wheel"}],
        "annotations": parts,
    }


def block(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@given(st.lists(st.tuples(st.integers(1, 3), arrays(np.bool_, SIZE)), min_size=1, max_size=6))
def test_an_object_is_all_the_parts_of_its_image(masks: list[tuple[int, np.ndarray]]) -> None:
    given_parts = coco(masks, images=3)
    shown = [(image, mask) for image, mask in masks if mask.any()]
    if not shown:
        with pytest.raises(AnnotationError, match="there are no parts to merge"):
            wholes(given_parts, "car", source=Path("parts.json"))
        return
    objects, parts = wholes(given_parts, "car", source=Path("parts.json"))
    assert [a["image_id"] for a in objects["annotations"]] == sorted({image for image, _ in shown})
    assert objects["categories"] == [{"id": 1, "name": "car"}]
    for whole in objects["annotations"]:
        own = np.any([mask for image, mask in shown if image == whole["image_id"]], axis=0)
        assert np.array_equal(decode_mask(whole["segmentation"], height=SIZE[0], width=SIZE[1]), own)
        assert {key: whole[key] for key in ("bbox", "area")} == {key: instance(own)[key] for key in ("bbox", "area")}
    image_of = {a["id"]: a["image_id"] for a in objects["annotations"]}
    assert sorted((a["image_id"], a["id"]) for a in parts["annotations"]) == sorted(
        (image, 10 + n) for n, (image, mask) in enumerate(masks) if mask.any()
    )
    assert all(image_of[part["object_id"]] == part["image_id"] for part in parts["annotations"])


def test_the_command_writes_a_pair_that_goes_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "parts.json"
    crowd = coco([(2, block(0, 0, 6, 9))], iscrowd=1)["annotations"]
    given_parts = coco([(1, block(1, 1, 3, 4)), (1, block(2, 3, 5, 8)), (1, block(0, 0, 0, 0))])
    file.write_text(json.dumps({**given_parts, "annotations": given_parts["annotations"] + [{**crowd[0], "id": 99}]}))
    assert main(["--annotations", str(file), "--category", "car", "--out", str(tmp_path / "cars")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'cars' / 'parts'}.json: 2 parts on 2 images",
        f"{tmp_path / 'cars' / 'objects'}.json: 1 object on 2 images",
    ]
    objects = tmp_path / "cars" / "objects.json"
    assert read(objects, masks=True)["annotations"][0]["bbox"] == [1, 1, 7, 4]
    assert [a["id"] for a in read_parts(tmp_path / "cars" / "parts.json", objects).coco["annotations"]] == [10, 11]


def test_what_is_there_already_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "parts.json"
    source.write_text(json.dumps(coco([(1, block(1, 1, 3, 4))])))
    asked = ["--annotations", str(source), "--category", "car", "--out"]
    assert main([*asked, str(tmp_path), "--overwrite"]) == 1
    assert "parts.json is the file that is read, and would be overwritten" in capsys.readouterr().err
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "objects.json").write_text("mine")
    assert main([*asked, str(tmp_path / "cars")]) == 1
    assert "objects.json exists; give another folder" in capsys.readouterr().err
    assert (tmp_path / "cars" / "objects.json").read_text() == "mine"
    assert not (tmp_path / "cars" / "parts.json").exists()
    assert main([*asked, str(tmp_path / "cars"), "--overwrite"]) == 0


@pytest.mark.parametrize("category", ["", " ", "a\nb", "\udcff"])
def test_a_category_is_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], category: str) -> None:
    (tmp_path / "parts.json").write_text(json.dumps(coco([(1, block(1, 1, 3, 4))])))
    asked = ["--annotations", str(tmp_path / "parts.json"), "--out", str(tmp_path / "cars"), "--category", category]
    assert main(asked) == 1
    assert "is no name; give what the objects are" in capsys.readouterr().err


def test_lists_of_the_parts_categories_do_not_come_with_the_objects() -> None:
    given_parts = coco([(1, block(1, 1, 3, 4))])
    for image in given_parts["images"]:
        image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [], "license": 4}
    objects, parts = wholes(given_parts, "car", source=Path("parts.json"))
    assert [set(image) for image in objects["images"]] == [{"id", "file_name", "height", "width", "license"}] * 2
    assert parts["images"] == given_parts["images"]


def written(folder: Path, objects: dict, parts: dict) -> tuple[Path, Path]:
    for name, content in (("objects", objects), ("parts", parts)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "parts.json", folder / "objects.json"


def test_parts_of_other_objects_are_left_out_and_counted(tmp_path: Path) -> None:
    objects, parts = wholes(coco([(1, block(1, 1, 3, 4)), (2, block(2, 3, 5, 8))]), "car", source=Path("parts.json"))
    assert read_parts(*written(tmp_path, objects, parts)).remark is None
    first, second = parts["annotations"]
    crowd = {**first, "id": 30, "iscrowd": 1}
    blank = {**first, "id": 31, "segmentation": encode_mask(np.zeros(SIZE, dtype=bool))}
    found = read_parts(*written(tmp_path, objects, {**parts, "annotations": [first, second, crowd, blank]}))
    assert (found.coco["annotations"], found.remark) == ([first, second], None)
    more = [
        {**first, "id": 40, "object_id": 77},
        {**first, "id": 41, "object_id": 3},
        {**first, "id": 42, "object_id": 4},
    ]
    unmasked = {key: value for key, value in objects["annotations"][0].items() if key != "segmentation"} | {"id": 3}
    hidden = {**objects["annotations"][0], "id": 4, "iscrowd": 1}
    objects["annotations"] += [unmasked, hidden]
    files = written(tmp_path, objects, {**parts, "annotations": [first, second, *more]})
    found = read_parts(*files)
    assert found.coco["annotations"] == [first, second]
    assert found.remark == f"{files[0]}: 3 parts are of objects that {files[1]} does not have, or has without a mask"


def test_the_cars_of_photographs(shared_data: Path) -> None:
    source = shared_data / "car_parts" / "test" / "annotations.json"
    objects, parts = wholes(read(source, masks=True), "car", source=source)
    assert len(objects["annotations"]) == 100
    assert len(parts["annotations"]) == 811
    sizes = {image["id"]: {"height": image["height"], "width": image["width"]} for image in objects["images"]}
    for whole in objects["annotations"][:5]:
        size = sizes[whole["image_id"]]
        own = [decode_mask(a["segmentation"], **size) for a in parts["annotations"] if a["object_id"] == whole["id"]]
        assert np.array_equal(decode_mask(whole["segmentation"], **size), np.any(own, axis=0))


def spoiled(name: str, objects: dict, parts: dict) -> None:
    if name == "unjoined":
        for part in parts["annotations"]:
            del part["object_id"]
    elif name in ("[1]", "1.0", '"1"', "null", "true"):
        parts["annotations"][1]["object_id"] = json.loads(name)
    elif name == "other image":
        parts["annotations"][0]["image_id"] = 2
    elif name == "other size":
        parts["images"] = [{**parts["images"][0], "height": 12, "width": 18}]
        for part in parts["annotations"]:
            part["segmentation"] = encode_mask(np.ones((12, 18), dtype=bool))
    elif name == "no mask":
        del parts["annotations"][0]["segmentation"]
    elif name == "another object":
        objects["annotations"][0]["id"] = 5
    elif name == "a crowd":
        objects["annotations"][0]["iscrowd"] = 1
    elif name == "other file":
        parts["images"] = [{**image, "file_name": f"b{image['file_name']}"} for image in parts["images"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unjoined", "2 parts of 2 without a whole number for `object_id` .*; give each the id of its object"),
        *(
            (name, r"1 part of 2 without a whole number for `object_id` \(ids 11\)")
            for name in ("[1]", "1.0", '"1"', "null", "true")
        ),
        ("another object", "none of its 2 parts is of an object of .*objects.json that has a mask and is no crowd"),
        ("a crowd", "none of its 2 parts is of an object of .*objects.json that has a mask and is no crowd"),
        ("other file", r"2 parts have another image, .* \(ids 10, 11\)"),
        ("other image", r"1 part has another image, or one of another size, .* \(ids 10\)"),
        ("other size", r"2 parts have another image, or one of another size, .* \(ids 10, 11\)"),
        ("no mask", "a mask is needed"),
    ],
)
def test_parts_that_do_not_go_with_their_objects_are_refused_before_training(
    compose, tmp_path: Path, name: str, message: str
) -> None:
    objects, parts = wholes(coco([(1, block(1, 1, 3, 4)), (1, block(2, 3, 5, 8))]), "car", source=Path("parts.json"))
    spoiled(name, objects, parts)
    written(tmp_path, objects, parts)
    with pytest.raises(AnnotationError, match=message):
        read_parts(tmp_path / "parts.json", tmp_path / "objects.json")
    for frame in objects["images"]:
        Image.new("RGB", SIZE[::-1]).save(tmp_path / frame["file_name"])
    split = [f"data.{s}.{k}" for s in ("train", "val") for k in ("annotations=objects.json", "images=.")]
    config = compose(*SMOKE, "data=coco", f"data.root={tmp_path}", *split, "data.val.parts=parts.json")
    with pytest.raises(AnnotationError, match=message):
        Graph(config, Store(tmp_path / "store"), torch.device("cpu")).targets()


@pytest.mark.parametrize("parts", ["none.json", "''"])
def test_a_file_of_parts_that_is_not_there_is_named(compose, tmp_path: Path, parts: str) -> None:
    config = compose(*SMOKE, "data=coco", *drawn_files(tmp_path), f"data.val.parts={parts}")
    with pytest.raises(ConfigError, match=r"data\.val\.parts=\S*: there is no file"):
        Graph(config, Store(tmp_path / "store"), torch.device("cpu"))


@pytest.mark.parametrize("data", ["shapes", "parts"])
def test_drawn_images_have_no_file_of_parts(compose, data: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.val\.parts=mine\.json is a file of parts of objects in files"):
        compose(*SMOKE, f"data={data}", "data.val.parts=mine.json")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("labeler=disc",), "this run scores no key-points"),
        (("attentionshift.steps.mask_points.source=attention",), "this run scores no key-points"),
        ((), None),
    ],
)
def test_parts_that_nothing_is_scored_by_are_said(compose, tmp_path: Path, asked: tuple, said: str | None) -> None:
    config = compose(*SMOKE, "data=coco", *drawn_files(tmp_path), "data.val.parts=parts.json", *asked)
    notes = notes_of(Graph(config, Store(tmp_path / "store"), torch.device("cpu")))
    assert [note for note in notes if "data.val.parts" in note] == ([] if said is None else [ANY])
    assert said is None or any(said in note for note in notes)


def test_a_choice_of_images_without_parts_is_refused_before_training(compose, tmp_path: Path) -> None:
    objects, parts = wholes(coco([(1, block(1, 1, 3, 4)), (2, block(2, 3, 5, 8))]), "car", source=Path("parts.json"))
    parts["annotations"] = [part for part in parts["annotations"] if part["image_id"] == 1]  # the first place is even
    written(tmp_path, objects, parts)
    for frame in objects["images"]:
        Image.new("RGB", SIZE[::-1]).save(tmp_path / frame["file_name"])
    split = [f"data.{s}.{k}" for s in ("train", "val") for k in ("annotations=objects.json", "images=.")]
    asked = [*SMOKE, "data=coco", f"data.root={tmp_path}", *split, "data.val.parts=parts.json"]
    for which in ("all", "even"):
        Graph(compose(*asked, f"data.val_images={which}"), Store(tmp_path / "store"), torch.device("cpu")).targets()
    with pytest.raises(AnnotationError, match=r"other than the odd-placed images \(data\.val_images=odd\)"):
        Graph(compose(*asked, "data.val_images=odd"), Store(tmp_path / "store"), torch.device("cpu")).targets()
