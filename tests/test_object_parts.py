"""Parts of objects: merged to whole ones, read beside them, and refused before anything is trained."""

import json
from pathlib import Path
from typing import Any

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
from mal.errors import AnnotationError
from mal.request import Graph
from mal.wholes import main
from tests.attentionshift_cases import SMOKE

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
        f"{tmp_path / 'cars' / 'objects'}.json: 1 objects on 2 images",
    ]
    objects = tmp_path / "cars" / "objects.json"
    assert read(objects, masks=True)["annotations"][0]["bbox"] == [1, 1, 7, 4]
    assert [a["id"] for a in read_parts(tmp_path / "cars" / "parts.json", objects)["annotations"]] == [10, 11]


def test_parts_of_other_objects_are_left_out(tmp_path: Path) -> None:
    objects, parts = wholes(coco([(1, block(1, 1, 3, 4)), (2, block(2, 3, 5, 8))]), "car", source=Path("parts.json"))
    more = [{**parts["annotations"][0], "id": 30 + n, "object_id": one} for n, one in enumerate(([1], "1", 77, None))]
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    (tmp_path / "parts.json").write_text(json.dumps({**parts, "annotations": [*parts["annotations"], *more]}))
    assert read_parts(tmp_path / "parts.json", tmp_path / "objects.json") == parts


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
    elif name == "lists":
        for part in parts["annotations"]:
            part["object_id"] = [1]
    elif name == "other image":
        parts["annotations"][0]["image_id"] = 2
    elif name == "other size":
        parts["images"] = [{**parts["images"][0], "height": 12, "width": 18}]
        for part in parts["annotations"]:
            part["segmentation"] = encode_mask(np.ones((12, 18), dtype=bool))
    elif name == "no mask":
        del parts["annotations"][0]["segmentation"]
    elif name == "crowd of others":
        objects["annotations"][0]["id"] = 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unjoined", "none of its 2 parts is of an object of .*objects.json; each needs `object_id`"),
        ("lists", "none of its 2 parts is of an object"),
        ("crowd of others", "none of its 2 parts is of an object"),
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
    for file, content in (("objects", objects), ("parts", parts)):
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message):
        read_parts(tmp_path / "parts.json", tmp_path / "objects.json")
    for frame in objects["images"]:
        Image.new("RGB", SIZE[::-1]).save(tmp_path / frame["file_name"])
    split = [f"data.{s}.{k}" for s in ("train", "val") for k in ("annotations=objects.json", "images=.")]
    config = compose(*SMOKE, "data=coco", f"data.root={tmp_path}", *split, "data.val.parts=parts.json")
    with pytest.raises(AnnotationError, match=message):
        Graph(config, Store(tmp_path / "store"), torch.device("cpu")).targets()


def test_a_file_of_parts_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"parts\.json"):
        read_parts(tmp_path / "parts.json", tmp_path / "objects.json")
