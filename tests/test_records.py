"""Where the files and images of a result are found again."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.images import Pictures, pictures
from analysis.records import UnreadableRecordError, by_address, finished


def record(stage: str, key: str, inputs: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "key": key, "status": "done", "inputs": inputs or {}, "sources": {}} | more


def test_procedural_images_are_those_of_the_records_own_split(tmp_path: Path) -> None:
    known = by_address(
        [
            record("shapes_train", "t"),
            record("shapes_val", "v"),
            record("boxes_train", "bt", {"data": "shapes_train/t"}),
            record("boxes_val", "bv", {"data": "shapes_val/v"}),
            record("train_labeler", "l", {"boxes": "boxes_train/bt"}),
            record("label_val", "lv", {"boxes": "boxes_val/bv", "labeler": "train_labeler/l"}),
            record("label_train", "lt", {"boxes": "boxes_train/bt", "labeler": "train_labeler/l"}),
            record("train_segmenter", "s", {"labels": "label_train/lt", "data": "shapes_train/t"}),
            record("detect_val", "d", {"segmenter": "train_segmenter/s", "data": "shapes_val/v"}),
        ]
    )
    for name in ("shapes_train/t", "shapes_val/v"):
        (tmp_path / name).mkdir(parents=True)
    of = {"label_val/lv": "shapes_val/v", "label_train/lt": "shapes_train/t", "detect_val/d": "shapes_val/v"}
    for name, drawn in of.items():
        folder = tmp_path / drawn
        assert pictures(known[name], known, tmp_path) == Pictures(
            folder / "annotations.json", folder / "images", drawn=True
        )


def test_a_users_images_are_where_they_lay_when_their_boxes_were_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").touch()
    sources = {"annotations": "a", "images": "i"}
    places = {"annotations": str(tmp_path / "val.json"), "images": str(tmp_path / "images")}
    known = by_address(
        [
            record("boxes_train", "t", sources={"annotations": "b", "images": "i"}, places={**places, "images": "/no"}),
            record("boxes_val", "v", sources=sources, places=places),
        ]
    )
    labels = record("label_val", "l", {"boxes": "boxes_val/v"}, sources={**sources, "labels": "given"})
    assert pictures(labels, known, tmp_path) == Pictures(tmp_path / "val.json", tmp_path / "images", drawn=False)
    (tmp_path / "val.json").unlink()
    assert pictures(labels, known, tmp_path) is None


def test_a_record_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "label_val" / "k").mkdir(parents=True)
    (tmp_path / "label_val" / "k" / "run.json").write_text(json.dumps(record("label_val", "k"))[:-5])
    with pytest.raises(UnreadableRecordError, match=r"label_val/k/run\.json cannot be read"):
        finished(tmp_path)
