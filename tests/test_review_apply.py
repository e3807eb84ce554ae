"""Choices are carried out: rejected masks go, boxes replace masks, the rest stays, and nothing is taken on trust."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal.data.annotations import decode_mask, encode_mask
from mal.engine.files import sha256
from mal.review import BY_HAND, main
from tests.review_files import write_labels


def write_choices(labels: Path, choices: dict[str, Any], **more: Any) -> Path:
    path = labels.with_name("choices.json")
    path.write_text(json.dumps({"labels_sha256": sha256(labels), "choices": choices} | more))
    return path


def apply(labels: Path, choices: Path, *more: str) -> tuple[int, Path]:
    out = labels.with_name("reviewed.json")
    return main(["apply", str(labels), str(choices), "--out", str(out), *more]), out


def test_rejected_masks_go_boxes_are_filled_and_the_rest_stays(tmp_path, capsys):
    labels = write_labels(tmp_path, attributes=lambda place: {"counts": place})
    coco = json.loads(labels.read_text())
    code, out = apply(labels, write_choices(labels, {"10": "keep", "11": "reject", "12": "box"}))
    assert code == 0
    assert "1 kept, 1 rejected, 1 filled boxes, 3 not decided" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert {key: value for key, value in found.items() if key != "annotations"} == {
        key: value for key, value in coco.items() if key != "annotations"
    }
    by_id = {annotation["id"]: annotation for annotation in found["annotations"]}
    assert list(by_id) == [10, 12, 13, 14, 15]
    before = {annotation["id"]: annotation for annotation in coco["annotations"]}
    assert all(by_id[number] == before[number] for number in (10, 13, 14, 15))
    box = by_id[12]
    mask = np.zeros((60, 80), dtype=bool)
    x, y, w, h = box["bbox"]
    mask[y : y + h, x : x + w] = True
    assert np.array_equal(decode_mask(box["segmentation"], height=60, width=80), mask)
    assert (box["area"], box["flagged"], box["flag_reason"]) == (w * h, True, BY_HAND)
    assert box["attributes"] == {"counts": 2}
    assert "quality" not in box  # it was that of another mask
    assert "score" not in box


@pytest.mark.parametrize(
    ("bbox", "rows", "columns"),
    [
        ([3.4, 5.6, 10.2, 7.1], (5, 13), (3, 14)),
        ([-4.0, -4.0, 200.0, 200.0], (0, 60), (0, 80)),
        ([10.0, 0.0, 5.0, 60.0], (0, 60), (10, 15)),
        ([79.5, 59.5, 0.2, 0.2], (59, 60), (79, 80)),
        ([70.0, 20.0, 10.0, 0.0], (20, 21), (70, 80)),
    ],
)
def test_a_filled_box_covers_the_pixels_it_touches_in_its_image(tmp_path, bbox, rows, columns):
    from mal.review import reviewed

    labels = write_labels(tmp_path, images=1, each=1, bbox=lambda _: bbox)
    coco = json.loads(labels.read_text())
    mask = np.zeros((60, 80), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    (filled,) = reviewed(coco, {10: "box"})["annotations"]
    assert filled["segmentation"] == encode_mask(mask)
    assert filled["area"] == mask.sum()
    coco["annotations"][0]["segmentation"] = [[3, 3, 9, 3, 9, 9]]
    (polygon,) = reviewed(coco, {10: "box"})["annotations"]
    assert np.array_equal(decode_mask(polygon["segmentation"], height=60, width=80), mask)


def test_a_reviewed_file_can_be_reviewed_again(tmp_path):
    labels = write_labels(tmp_path)
    _, out = apply(labels, write_choices(labels, {"12": "box"}))
    page = tmp_path / "again.html"
    assert main(["page", str(out), "--images", str(tmp_path / "images"), "--out", str(page)]) == 0
    assert BY_HAND in page.read_text(encoding="utf-8")


def test_nothing_that_exists_is_replaced_without_being_asked_to(tmp_path, capsys):
    labels = write_labels(tmp_path)
    choices = write_choices(labels, {"10": "reject"})
    out = tmp_path / "reviewed.json"
    out.write_text("mine")
    assert apply(labels, choices)[0] == 1
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert apply(labels, choices, "--overwrite")[0] == 0
    assert len(json.loads(out.read_text())["annotations"]) == 5
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert main(["page", str(labels), "--images", str(tmp_path / "images"), "--out", str(page)]) == 1
    assert page.read_text() == "mine"


@pytest.mark.parametrize("name", ["masks.json", "choices.json"])
def test_an_input_is_never_the_output(tmp_path, name, capsys):
    labels = write_labels(tmp_path)
    choices = write_choices(labels, {"10": "reject"})
    before = (tmp_path / name).read_bytes()
    assert main(["apply", str(labels), str(choices), "--out", str(tmp_path / name), "--overwrite"]) == 1
    assert "also an input" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def test_choices_for_another_file_are_refused(tmp_path, capsys):
    labels = write_labels(tmp_path)
    choices = write_choices(labels, {"10": "reject"})
    labels.write_text(labels.read_text() + "\n")
    assert apply(labels, choices)[0] == 1
    assert "page of another file" in capsys.readouterr().err
    assert not (tmp_path / "reviewed.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no choices and labels_sha256"),
        (b'{"choices": {"10": "keep"}}', "no choices and labels_sha256"),
        (b'{"choices": ["keep"], "labels_sha256": "0"}', "no choices and labels_sha256"),
    ],
)
def test_a_file_that_no_page_exported_is_refused(tmp_path, capsys, content, words):
    labels = write_labels(tmp_path)
    (tmp_path / "choices.json").write_bytes(content)
    assert apply(labels, tmp_path / "choices.json")[0] == 1
    assert words in capsys.readouterr().err


def test_choices_absent_unknown_and_of_annotations_that_are_not_there_are_refused(tmp_path, capsys):
    labels = write_labels(tmp_path)
    assert apply(labels, tmp_path / "nothing.json")[0] == 1
    assert "there is no file" in capsys.readouterr().err
    for choices, words in (
        ({"10": "keep", "11": "burn", "12": ["box"]}, "2 choices are none of keep, reject, box"),
        ({"10": "keep", "99": "keep"}, "1 of 2 choices are for annotations"),
    ):
        assert apply(labels, write_choices(labels, choices))[0] == 1
        assert words in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    labels = write_labels(tmp_path)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "page.html"
    assert main(["page", str(labels), "--images", str(tmp_path / "images"), "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"error: cannot write {out}")


def test_choices_of_huge_ids_find_their_annotations(tmp_path):
    labels = write_labels(tmp_path, id=lambda place: 2**60 + place)
    _, out = apply(labels, write_choices(labels, {str(2**60 + 1): "reject"}))
    left = {annotation["id"] for annotation in json.loads(out.read_text())["annotations"]}
    assert left == {2**60 + place for place in (0, 2, 3, 4, 5)}
