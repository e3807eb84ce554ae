"""RefCOCO as refer distributes it: read without running anything, split by split, with its own ids."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mal.data.annotations import read
from mal.data.expressions import expressions_only
from mal.data.refer import read_refs, read_splits
from mal.errors import AnnotationError
from mal.expressions import main
from tests.small_files import coco_file


def ref(identity: int, annotation: int, split: str, *texts: str) -> dict[str, Any]:
    sentences = [
        {"tokens": text.split(), "raw": text.upper(), "sent_id": 10 * identity + place, "sent": text}
        for place, text in enumerate(texts)
    ]
    return {
        "ref_id": identity,
        "ann_id": annotation,
        "image_id": 1 + (annotation - 100) // 2,
        "category_id": 1,
        "file_name": f"COCO_train2014_{annotation}.jpg",
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


REFS = [
    ref(7, 101, "train", "the pear", "right pear"),
    ref(3, 104, "val", "left one"),
    ref(4, 100, "train", "plum"),
    ref(5, 101, "train", "the pear", "purple"),  # RefCOCOg has several references to an object
    ref(9, 106, "testA", "last"),
]


def dataset(folder: Path, refs: Any = REFS, *, by: str = "unc", protocol: int = 2) -> Path:
    """folder/refcoco with refs(by).p and instances.json."""
    place = folder / "refcoco"
    coco_file(place, "instances")
    (place / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=protocol))
    return place


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_splits_have_the_objects_that_are_meant_with_their_ids(tmp_path: Path, protocol: int) -> None:
    found = read_splits(dataset(tmp_path, protocol=protocol), "unc")
    assert [*found] == ["train", "val", "testA"]
    train = found["train"]
    assert [image["id"] for image in train["images"]] == [1]
    assert [annotation["id"] for annotation in train["annotations"]] == [101, 100]
    assert train["annotations"][0]["expressions"] == ["the pear", "right pear", "the pear", "purple"]
    assert train["annotations"][0]["ref_ids"] == [7, 5]
    whole = read(tmp_path / "refcoco" / "instances.json", masks=True)
    by_id = {annotation["id"]: annotation for annotation in whole["annotations"]}
    for coco in found.values():
        assert coco["categories"] == whole["categories"]
        for annotation in coco["annotations"]:
            assert by_id[annotation["id"]].items() <= annotation.items()


class Program:
    """Pickled, it runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_with_a_class_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    for refs in (Program(f"touch {tmp_path / 'ran'}"), [Program(f"touch {tmp_path / 'ran'}")], [REFS[0], Path("a")]):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            folder = dataset(tmp_path, refs, protocol=protocol)
            with pytest.raises(AnnotationError, match=r"refs\(unc\)\.p holds the class .* may run a program"):
                read_splits(folder, "unc")
    assert not (tmp_path / "ran").exists()


def test_a_reference_to_an_object_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(b"Pthere\n.")
    with pytest.raises(AnnotationError, match="holds the reference 'there' to an object outside it"):
        read_refs(tmp_path / "refs(unc).p")


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ({}, r"refs\(unc\)\.p holds \{\}; refer's file is a list of references"),
        ([5], "reference 0 is 5; refer's are dicts"),
        ([{**REFS[0], "ann_id": "101"}], "reference 0 has ann_id='101', which must be a whole number"),
        ([{**REFS[0], "sentences": [{"sent": "?"}]}], "reference 7 has the sentences .* of which no word is left"),
        ([{**REFS[0], "split": "dev"}], "has the splits dev; refer's are train, val, testA, testB, test"),
        ([ref(1, 999, "train", "no")], r"1 reference of 1 mean an annotation that .*instances.json does not have"),
        ([{**REFS[0], "image_id": 4}], r"1 reference of 1 name another image than their annotation does \(ref_id 7\)"),
    ],
)
def test_what_is_wrong_with_references_is_said(tmp_path: Path, refs: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_splits(dataset(tmp_path, refs), "unc")


def test_files_that_are_absent_or_broken_are_said(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    with pytest.raises(AnnotationError, match=r"refs\(google\)\.p cannot be read .*the web archive has copies"):
        read_splits(folder, "google")
    for content in (b"", b"<html>", pickle.dumps(REFS)[:200]):
        (folder / "refs(unc).p").write_bytes(content)
        with pytest.raises(AnnotationError, match=r"refs\(unc\)\.p is not a readable pickle"):
            read_splits(folder, "unc")


def test_a_small_pickle_whose_text_would_be_endless_is_refused_at_once(tmp_path: Path) -> None:
    """Sixty lists, each twice in the next: 182 bytes, and 2^60 brackets."""
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    folder = dataset(tmp_path)
    for content in (nested, [{**REFS[0], "sentences": nested}]):
        (folder / "refs(unc).p").write_bytes(pickle.dumps(content))
        with pytest.raises(AnnotationError, match="refs"):
            read_splits(folder, "unc")


def test_a_sentence_without_a_word_is_left_out_and_the_typed_one_stands_in(tmp_path: Path) -> None:
    sentences = [{"raw": "As Typed"}, {"sent": "?!", "raw": "lost"}, {"sent": "kept"}]
    found = read_splits(dataset(tmp_path, [{**REFS[0], "sentences": sentences}]), "unc")
    assert found["train"]["annotations"][0]["expressions"] == ["As Typed", "kept"]


def test_the_command_writes_each_split_and_says_what_the_whole_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset(tmp_path)
    out = tmp_path / "out"
    call = ["refer", "--root", str(tmp_path), "--dataset", "refcoco", "--by", "unc", "--out", str(out)]
    assert main(call) == 0
    text = capsys.readouterr().out
    assert "train.json: 5 expressions of 2 objects on 1 image\n" in text
    assert "note: the whole train has 42,404 objects with 120,624 expressions; here are 2 with 5" in text
    assert sorted(path.name for path in (out / "annotations").iterdir()) == ["testA.json", "train.json", "val.json"]
    seen = expressions_only(read(out / "annotations" / "train.json", masks=True))
    assert [a["expressions"] for a in seen["annotations"]] == [
        ["the pear", "right pear", "the pear", "purple"],
        ["plum"],
    ]
    itself = [*call[:2], str(tmp_path / "refcoco"), *call[3:]]  # the data set's folder
    assert main(itself) == 1
    assert ".json exists; name another place, or give --overwrite" in capsys.readouterr().err
    assert main([*itself, "--overwrite"]) == 0
    assert "note" not in capsys.readouterr().out.replace("note: the whole", "")
    (out / "annotations" / "test.json").write_text("{}")
    for split in ("train", "val", "testA"):
        (out / "annotations" / f"{split}.json").unlink()
    assert main(itself) == 1  # test.json alone is in the way
    assert main([*itself, "--overwrite"]) == 0
    assert "test.json was there before, and is of another conversion" in capsys.readouterr().out
    assert main([*call[:-1], str(tmp_path / "no" / "such")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    capsys.readouterr()
    assert main([*call[:4], "refcoco+", *call[5:6], "google", *call[7:]]) == 1
    assert "--by google: refcoco+ is not split so; choose --by unc" in capsys.readouterr().err
