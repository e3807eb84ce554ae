"""Labels of Partial-RES, and `python -m mal.label --expressions`: anyone's boxes and expressions in, masks out."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mal.data.annotations import decode_mask, read, write
from mal.data.boxes import pixel_edges
from mal.data.expressions import words
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.label import main
from mal.methods.partialres import label, lessons
from mal.methods.partialres.checkpoint import load
from mal.methods.partialres.infer import Asked, Found, Shown, find, locate
from mal.methods.partialres.train import train
from tests.label_calls import command_line
from tests.partialres_cases import changed, draw, some_masks

CPU = torch.device("cpu")


@dataclass
class Place:
    """A trained labeler, and images with boxes and expressions."""

    folder: Path
    expressions: Path
    checkpoint: Path

    def arguments(self, out: Path, *more: object, **instead: object) -> list[str]:
        inputs = {"images": self.folder / "images", "expressions": self.expressions, "checkpoint": self.checkpoint}
        return command_line({**inputs, "out": out, **instead}, *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory, compose) -> Place:
    folder = tmp_path_factory.mktemp("expressions")
    view = draw(folder)
    config = lessons.for_masks(changed(compose))
    train(view, folder / "images", config, task="mask", folder=folder, device=CPU, masks=some_masks(folder, 1, 2, 4))
    write(folder / "own.json", view)
    return Place(folder, folder / "own.json", folder / "labeler.pt")


@pytest.fixture
def view(place: Place) -> dict:
    return json.loads(place.expressions.read_text())


def predicting(monkeypatch: pytest.MonkeyPatch, masks: dict[tuple[str, ...], np.ndarray]) -> None:
    """Masks by their expressions, in place of a network's."""
    none = np.zeros((0, 2))
    monkeypatch.setattr(label, "find", lambda _, some, __: [Found(none, masks[each.words]) for each in some])


def labels_of(place: Place, compose, view: dict, *overrides: str) -> dict:
    config = changed(compose, *overrides)
    return label.labeler(load(place.checkpoint, config, CPU), config)(view, place.folder / "images")


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((64, 64), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("in_box", "expected"), [("cut", rectangle(12, 12, 30, 28)), ("fit", rectangle(10, 10, 30, 30))]
)
def test_an_object_has_what_the_mask_that_suits_its_box_best_comes_to_in_it(
    place, compose, view, monkeypatch, in_box: str, expected: np.ndarray
) -> None:
    image = view["images"][0]
    one = {"id": 1, "image_id": image["id"], "category_id": 1, "bbox": [10.0, 10.0, 20.0, 20.0]}
    coco = {
        **view,
        "images": [image],
        "annotations": [
            {**one, "expressions": ["far", "near"]},
            {**one, "id": 2, "expressions": ["far"]},
            {**one, "id": 3, "expressions": []},
        ],
    }
    predicting(monkeypatch, {("far",): rectangle(40, 40, 60, 60), ("near",): rectangle(12, 12, 34, 28)})
    found = labels_of(place, compose, coco, f"testing.in_box={in_box}")
    mask = decode_mask(found[1]["segmentation"], height=64, width=64).astype(bool)
    assert np.array_equal(mask, expected)
    assert found[2]["area"] == 0  # nothing of it is in the box
    assert 3 not in found  # it has no expression


@given(data=st.data())
def test_a_fitted_mask_has_the_shape_that_it_had(data) -> None:
    """Of whole multiples in size each pixel's middle ones have its value; of the same size nothing changes."""
    rows, columns = (data.draw(st.integers(1, 9)) for _ in range(2))
    shape = np.array(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    shape = shape.reshape(rows, columns)
    shape[data.draw(st.integers(0, rows - 1))] = shape[:, data.draw(st.integers(0, columns - 1))] = True
    around = np.pad(shape, [(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))) for _ in range(2)])
    assert np.array_equal(label.fitted(around, height=rows, width=columns), shape)
    times = 3
    larger = label.fitted(around, height=times * rows, width=times * columns)
    assert np.array_equal(larger[times // 2 :: times, times // 2 :: times], shape)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_a_fitted_rectangle_is_the_box(rows: int, columns: int, height: int, width: int) -> None:
    """Of a size that says something of its shape; what is far larger or smaller is not fitted."""
    found = label.fitted(np.pad(np.ones((rows, columns), dtype=bool), 3), height=height, width=width)
    times = max(rows / height, height / rows, columns / width, width / columns)
    assert (found is None) == (times > label.STRETCH)
    assert found is None or found.all()


@pytest.mark.parametrize(
    ("predicted", "box"),
    [
        (rectangle(30, 30, 31, 31), [10, 10, 40, 40]),  # a single pixel, as of a network that has learned nothing
        (rectangle(12, 20, 14, 40), [10, 10, 40, 40]),  # a sliver
        (rectangle(0, 0, 64, 64), [10, 10, 9, 9]),
        (rectangle(0, 0, 12, 12) & ~rectangle(1, 1, 11, 11), [0, 0, 3, 3]),  # nothing would be left of these lines
    ],
)
def test_what_says_nothing_of_a_shape_in_its_box_is_cut_instead(
    place, compose, view, monkeypatch, predicted: np.ndarray, box: list[int]
) -> None:
    image = view["images"][0]
    one = {"id": 1, "image_id": image["id"], "category_id": 1, "bbox": [*map(float, box)], "expressions": ["it"]}
    predicting(monkeypatch, {("it",): predicted})
    found = labels_of(place, compose, {**view, "images": [image], "annotations": [one]})
    x, y, w, h = box
    mask = decode_mask(found[1]["segmentation"], height=64, width=64).astype(bool)
    assert np.array_equal(mask, predicted & rectangle(x, y, x + w, y + h))


def test_labels_do_not_depend_on_how_many_expressions_are_asked_at_a_time(place, compose, view) -> None:
    found = []
    for config in (changed(compose), changed(compose, "testing.batch=1")):
        trained = load(place.checkpoint, config, CPU)
        labels = label.labeler(trained, config)(view, place.folder / "images")
        found.append({identity: each["segmentation"] for identity, each in labels.items()})
    assert found[0] == found[1]


def test_boxes_lie_in_the_image(place, compose, view) -> None:
    trained = load(place.checkpoint, changed(compose), CPU)
    asked = label.asked_of(view)[:6]
    for (x, y, w, h), each in zip(locate(trained, asked, Shown(place.folder / "images", 32)), asked, strict=True):
        assert 0 <= x <= x + w <= each.entry["width"]
        assert 0 <= y <= y + h <= each.entry["height"]
        assert min(w, h) >= 0


def test_expressions_are_asked_image_by_image(view) -> None:
    asked = label.asked_of(view)
    assert len(asked) == sum(len(a["expressions"]) for a in view["annotations"])
    assert [each.entry["id"] for each in asked] == sorted(each.entry["id"] for each in asked)
    less = label.asked_of({**view, "unreadable_images": [1]})
    assert {each.entry["id"] for each in asked} - {each.entry["id"] for each in less} == {1}


def test_the_command_gives_every_object_a_mask_inside_its_box(place, view, tmp_path, capsys) -> None:
    view["annotations"][0]["expressions"] = []
    view["annotations"][1] |= {"expressions": ["the purple thing", *view["annotations"][1]["expressions"]], "note": 5}
    write(tmp_path / "own.json", view)
    assert main(place.arguments(tmp_path / "out.json", expressions=tmp_path / "own.json")) == 0
    said = capsys.readouterr()
    assert "2 words are new to this labeler, and read as unknown: purple, thing" in said.err
    assert "1 object has no expression: the filled box is its mask, flagged" in said.err
    out = read(tmp_path / "out.json", masks=True)
    assert [a["id"] for a in out["annotations"]] == [a["id"] for a in view["annotations"]]
    first, second = out["annotations"][:2]
    assert first["flag_reason"] == "it has no expression"
    assert second["note"] == 5
    assert second["expressions"] == view["annotations"][1]["expressions"]
    for annotation in out["annotations"]:
        mask = decode_mask(annotation["segmentation"], height=64, width=64).astype(bool)
        left, top, right, bottom = pixel_edges(annotation["bbox"], height=64, width=64)
        inside = np.zeros_like(mask)
        inside[top:bottom, left:right] = True
        assert mask.any()
        assert not (mask & ~inside).any()


def test_the_commands_masks_are_the_networks(place, compose, view, tmp_path) -> None:
    assert main(place.arguments(tmp_path / "out.json")) == 0
    out = {a["id"]: a for a in read(tmp_path / "out.json", masks=True)["annotations"]}
    trained = load(place.checkpoint, changed(compose), CPU)
    entries = {image["id"]: image for image in view["images"]}
    compared = 0
    for annotation in view["annotations"]:
        if len(annotation["expressions"]) > 1 or out[annotation["id"]].get("flagged"):
            continue
        asked = Asked(entries[annotation["image_id"]], annotation["id"], tuple(words(annotation["expressions"][0])))
        (found,) = find(trained, [asked], Shown(place.folder / "images", 32))
        left, top, right, bottom = pixel_edges(annotation["bbox"], height=64, width=64)
        expected = np.zeros_like(found.mask)
        expected[top:bottom, left:right] = found.mask[top:bottom, left:right]
        got = decode_mask(out[annotation["id"]]["segmentation"], height=64, width=64).astype(bool)
        assert np.array_equal(got, expected)
        compared += 1
    assert compared or all(len(a["expressions"]) > 1 or out[a["id"]].get("flagged") for a in view["annotations"])


def test_an_object_of_an_unreadable_image_says_that_and_another_that_it_has_no_expression(place, view, tmp_path):
    images = shutil.copytree(place.folder / "images", tmp_path / "images")
    first, bad = view["images"][:2]
    (images / bad["file_name"]).write_bytes(b"none")
    for annotation in view["annotations"]:
        if annotation["image_id"] == first["id"]:
            annotation["expressions"] = []
    write(tmp_path / "own.json", view)
    arguments = place.arguments(tmp_path / "out.json", images=images, expressions=tmp_path / "own.json")
    assert main([*arguments, "--on-bad-image", "skip"]) == 0
    found = {first["id"]: set(), bad["id"]: set()}
    for annotation in read(tmp_path / "out.json", masks=True)["annotations"]:
        if annotation["image_id"] in found:
            found[annotation["image_id"]].add(annotation["flag_reason"])
    assert found == {first["id"]: {"it has no expression"}, bad["id"]: {"its image cannot be read"}}


def test_a_list_that_was_not_converted_is_told_how(place, tmp_path, capsys) -> None:
    (tmp_path / "own.json").write_text('[{"image": "a.png", "text": "a", "box": [1, 2, 3, 4]}]')
    assert main(place.arguments(tmp_path / "out.json", expressions=tmp_path / "own.json")) == 1
    assert f"python -m mal.expressions json {tmp_path / 'own.json'} --images" in capsys.readouterr().err


def test_a_preview_says_how_many_examples_it_has(place, view, tmp_path, capsys, monkeypatch) -> None:
    kept = [{**a, "bbox": [2.0, 2.0, 40.0, 40.0]} for a in view["annotations"][:3]]
    kept[2]["expressions"] = []
    write(tmp_path / "own.json", {**view, "annotations": kept})
    monkeypatch.setattr(
        label, "find", lambda _, some, __: [Found(np.zeros((0, 2)), rectangle(4, 4, 30, 30)) for _ in some]
    )

    def arguments(out: str, count: int) -> list[str]:
        return place.arguments(tmp_path / out, "--preview", count, expressions=tmp_path / "own.json")

    assert main(arguments("out.json", 12)) == 0
    assert "out_preview.png (2 of 12 examples: others are flagged, crowds or tiny)" in capsys.readouterr().out
    assert main(arguments("other.json", 2)) == 0
    assert "other_preview.png\n" in capsys.readouterr().out


def test_a_file_without_expressions_is_refused(place, view, tmp_path, capsys) -> None:
    for annotation in view["annotations"]:
        annotation["expressions"] = []
    write(tmp_path / "own.json", view)
    assert main(place.arguments(tmp_path / "out.json", expressions=tmp_path / "own.json")) == 1
    assert 'has an expression; give each its own, as "expressions"' in capsys.readouterr().err


def test_expressions_of_strange_words_alone_are_refused(place, view, tmp_path, capsys) -> None:
    for annotation in view["annotations"]:
        annotation["expressions"] = ["das rote Haus"]
    write(tmp_path / "own.json", view)
    assert main(place.arguments(tmp_path / "out.json", expressions=tmp_path / "own.json")) == 1
    assert (
        "this labeler knows no word of any expression's first 8 (das, haus, rote); it knows" in capsys.readouterr().err
    )


def test_the_labeler_of_boxes_alone_is_refused(place, tmp_path, capsys) -> None:
    state = load_checkpoint(place.checkpoint) | {"task": "box"}
    save_checkpoint(tmp_path / "rec.pt", state)
    assert main(place.arguments(tmp_path / "out.json", checkpoint=tmp_path / "rec.pt")) == 1
    assert "learned boxes and no masks; give the labeler.pt of a train_res stage" in capsys.readouterr().err


def test_boxes_without_expressions_are_not_what_it_reads(place, tmp_path, capsys) -> None:
    arguments = [it if it != "--expressions" else "--boxes" for it in place.arguments(tmp_path / "out.json")]
    assert main(arguments) == 1
    assert "makes masks from expressions, not from boxes" in capsys.readouterr().err


def test_an_interrupted_call_goes_on(place, tmp_path, monkeypatch) -> None:
    whole, parted = tmp_path / "whole.json", tmp_path / "parted.json"
    assert main(place.arguments(whole)) == 0
    real, calls = label.find, []

    def breaking(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(label, "find", breaking)
    assert main(place.arguments(parted)) == 130
    monkeypatch.setattr(label, "find", real)
    assert main(place.arguments(parted)) == 0
    assert json.loads(whole.read_text()) == json.loads(parted.read_text())
    shutil.rmtree(tmp_path)
