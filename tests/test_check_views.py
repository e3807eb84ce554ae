"""mal.check on files of points and of expressions."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_files import WIDTH, coco_file, each, edit

from mal.check import main


def checked(file: Path, view: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main([str(file), "--images", str(file.parent / "images"), f"--{view}"])
    said = capsys.readouterr()
    assert said.err == ""
    return code, [line.removeprefix(f"{file}: ") for line in said.out.splitlines()]


def first(count: int, **values: Any) -> Any:
    def change(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"][:count]:
            annotation.update(values)

    return change


def without(*keys: str) -> Any:
    def change(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            for key in keys:
                annotation.pop(key, None)

    return change


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return coco_file(tmp_path, "train")


def test_points_need_neither_boxes_nor_masks(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(file, each(points=[[WIDTH - 1, 20], [31, 21]]))
    edit(file, without("bbox", "segmentation", "area"))
    code, said = checked(file, "points", capsys)
    assert code == 0
    assert said[0].startswith(
        "8 objects with a point, 8 of them with more than one; 8 objects of points alone on 4 images"
    )
    assert "note: 4 of 8 objects have the point of another one on the same image" in said[1]


def test_points_are_drawn_from_masks_where_a_file_has_none(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(file, "points", capsys)
    assert (code, said[0]) == (0, "8 objects with a point; 8 boxes on 4 images, 8 with a human mask")
    edit(file, first(3, point=[30, 20]))
    assert any("5 of 8 objects have no point of their own" in line for line in checked(file, "points", capsys)[1])


@pytest.mark.parametrize(
    ("change", "level", "says"),
    [
        (each(point=[0.5, 0.25]), "stops a run", "as shares of the image (0 to 1) do"),
        (each(point=[-5, 3]), "stops a run", "(8 annotations have this fault"),
        (each(point="here"), "stops a run", "(8 annotations have this fault"),
        (without("segmentation"), "stops a run", "has neither a point nor a mask to draw one from"),
    ],
)
def test_points_that_stop_a_run_are_said(
    file: Path, change: Any, level: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(file, change)
    code, said = checked(file, "points", capsys)
    assert code == 1
    assert any(level in line and says in line for line in said), said


def test_images_of_points_are_looked_for_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(file, each(point=[30, 20]))
    (file.parent / "images" / "train_1.png").unlink()
    code, said = checked(file, "points", capsys)
    assert code == 1
    assert any("1 of 4 images are not in" in line for line in said)


def test_expressions_are_counted_and_those_of_several_objects_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(file, first(2, expressions=["the red star", "a star"]))
    code, said = checked(file, "expressions", capsys)
    assert code == 0
    assert said[0] == "4 expressions of 2 objects; 8 boxes on 4 images, 8 with a human mask"
    assert "  note: 6 objects have no expression: nothing is learned from them" in said
    ids = [annotation["id"] for annotation in json.loads(file.read_text())["annotations"]]
    shown = f"'the red star' of {ids[0]}, {ids[1]}, 'a star' of {ids[0]}, {ids[1]}"
    expected = f"2 expressions are said of several objects of one image ({shown}): nothing tells which of them is meant"
    assert f"  note: {expected}" in said
    edit(file, each(expressions=[]))
    edit(file, first(1, expressions=["The RED star!"]))
    assert not any("several objects" in line for line in checked(file, "expressions", capsys)[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (each(expressions=[]), "no object has an expression; write"),
        (each(expressions="a star"), "it must be a list of texts"),
        (each(expressions=["..."]), "of which no word is left"),
        (without("bbox"), "bbox is None"),
    ],
)
def test_expressions_that_stop_a_run_are_said(
    file: Path, change: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(file, change)
    code, said = checked(file, "expressions", capsys)
    assert code == 1
    assert any("stops a run" in line and says in line for line in said), said


def test_a_list_of_expressions_is_sent_to_the_command_that_converts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps([{"image": "a.png", "text": "a star", "box": [0, 0, 2, 2]}]))
    code, said = checked(file, "expressions", capsys)
    assert code == 1
    assert "python -m mal.expressions json" in said[1]


@pytest.mark.parametrize(("text", "misleads"), [("a mauve sphere", True), ("a mauve star", False), (None, False)])
def test_two_files_of_expressions_without_a_word_in_common_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, misleads: bool
) -> None:
    train, val = coco_file(tmp_path, "train"), coco_file(tmp_path, "val", first=11)
    edit(train, each(expressions=["the red star"]))
    edit(val, each(expressions=[] if text is None else [text]))
    images = str(tmp_path / "images")
    main([str(train), "--images", images, "--val", str(val), "--expressions"])
    sentence = "no expression of the second (a, mauve, sphere) has a word that the first's have (red, star, the)"
    assert (sentence in capsys.readouterr().out) == misleads


def test_wrong_expressions_of_two_files_are_findings_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, val = coco_file(tmp_path, "train"), coco_file(tmp_path, "val", first=11)
    edit(train, each(expressions=["the red star"]))
    edit(val, each(expressions=[5, "the red star"]))
    images = str(tmp_path / "images")
    assert main([str(train), "--images", images, "--val", str(val), "--expressions"]) == 1
    said = capsys.readouterr()
    assert "has the expression 5" in said.out
    assert said.err == ""
