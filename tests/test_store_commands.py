"""`python -m mal.store`: what is held, what can go, why keys differ."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.files import write_json
from mal.graph import Result, Stage, execute
from mal.store import QUEUED, Store
from mal.store.__main__ import differences, held, main, unneeded

OLD = 30 * 86400


def keep(root: Path, stage: str, key: str, *, done: bool = True, age_s: float = OLD, **record: Any) -> None:
    """A folder of the store as a run leaves it."""
    folder = root / stage / key
    whole = {"stage": stage, "key": key, "status": "done", "version": 1, "config": {}, "inputs": {}, "sources": {}}
    write_json(folder / ("run.json" if done else "stage.json"), {**whole, **record})
    (folder / "data.bin").write_bytes(bytes(1500))
    for path in folder.iterdir():
        os.utime(path, (time.time() - age_s,) * 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two labelers: masks of the first were scored; of the second, given up, only the labels were made."""
    keep(tmp_path, "boxes_train", "b0", config={"skip": False})
    for number, score in (("1", True), ("2", False)):
        keep(
            tmp_path, "train_labeler", f"t{number}", inputs={"boxes": "boxes_train/b0"},
            config={"seed": int(number), "crf": {"zeta": 0.3}}, columns={"encoder": "vit_nano", "seed": int(number)},
        )  # fmt: skip
        keep(tmp_path, "label_val", f"l{number}", inputs={"labeler": f"train_labeler/t{number}"})
        if score:
            keep(tmp_path, "quality_val", f"q{number}", inputs={"labels": f"label_val/l{number}"})
    return tmp_path


def names(root: Path, **options: Any) -> list[str]:
    return [one.address for one in unneeded(list(held(Store(root))), **options)]


def test_what_a_result_was_computed_from_stays(root: Path) -> None:
    assert names(root, days=7) == ["label_val/l2", "train_labeler/t2"]


def test_what_a_queued_stage_waits_for_stays_until_it_is_taken_back(root: Path) -> None:
    note = root / "quality_val/q2" / QUEUED
    write_json(note, {"job": "7", "inputs": {"labels": "label_val/l2"}})
    os.utime(note, (time.time() - OLD,) * 2)
    assert names(root, days=7) == []
    assert [one.state for one in held(Store(root)) if one.key == "q2"] == ["queued"]
    note.unlink()
    assert names(root, days=7) == ["label_val/l2", "train_labeler/t2"]


def test_what_is_young_or_being_computed_stays(root: Path) -> None:
    keep(root, "train_segmenter", "s1", done=False, age_s=60)
    keep(root, "train_segmenter", "s2", done=False)
    assert "train_segmenter/s1" not in names(root, days=7)
    assert "train_segmenter/s2" in names(root, days=7)
    with Store(root).claim("train_segmenter", "s2") as ours:
        assert ours
        assert "train_segmenter/s2" not in names(root, days=0)


def test_what_a_stage_that_is_being_computed_starts_from_stays(root: Path) -> None:
    seen = []
    labels = Stage("label_val", 1, {}, lambda _: Result())
    execute(labels, Store(root), device=torch.device("cpu"))
    work = lambda _: seen.extend(names(root, days=0)) or Result()  # noqa: E731
    assert labels.address in names(root, days=0)
    execute(Stage("train_segmenter", 1, {}, work, {"labels": labels}), Store(root), device=torch.device("cpu"))
    assert seen
    assert labels.address not in seen


def test_gc_asks_first(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("builtins.input", lambda question: print(question) or "n")
    assert main(["--store", str(root), "gc"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"remove these 2 folders, \d kB\? \[y/N\]", said)
    assert (root / "train_labeler" / "t2").is_dir()
    monkeypatch.setattr("builtins.input", lambda _question: "y")
    assert main(["--store", str(root), "gc"]) == 0
    assert not (root / "train_labeler" / "t2").exists()
    assert (root / "train_labeler" / "t1").is_dir()
    assert main(["--store", str(root), "gc", "--yes"]) == 0
    assert "every folder" in capsys.readouterr().out


def test_a_closed_terminal_is_a_no(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert main(["--store", str(root), "gc"]) == 1
    assert (root / "train_labeler" / "t2").is_dir()


def test_why_names_the_setting_and_follows_the_inputs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(root), "why", "t1", "t2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train_labeler/t1 and train_labeler/t2 differ in:", "seed: 1 ≠ 2",
    ]  # fmt: skip
    assert main(["--store", str(root), "why", "label_val/l1"]) == 0
    assert "input labeler (train_labeler): seed: 1 ≠ 2" in capsys.readouterr().out


def test_why_tells_versions_sources_and_inputs_that_one_alone_has(root: Path) -> None:
    keep(root, "train_labeler", "t3", version=2, sources={"encoder": "abc"}, config={"seed": 1, "crf": {"zeta": 0.5}})
    by = {one.key: one for one in held(Store(root))}
    assert differences(Store(root), by["t1"], by["t3"]) == [
        "crf.zeta: 0.3 ≠ 0.5", "source encoder: absent ≠ abc", "version of the stage: 1 ≠ 2",
        "input boxes: boxes_train/b0 ≠ none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["why", "zz"], "zz names 0 results"),
        (["why", "t"], "t names 2 results (train_labeler/t1, train_labeler/t2)"),
        (["why", "t1", "l1"], "are results of different stages"),
        (["why", "b0"], "boxes_train has no other result to compare with"),
    ],
)
def test_what_cannot_be_compared_is_said(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["--store", str(root), *arguments]) == 1
    assert says in capsys.readouterr().err


def test_list_shows_state_size_and_what_it_is_of(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(root, "train_segmenter", "s1", done=False)
    assert main(["--store", str(root), "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("train_labeler") and "t1" in line).split()[1:] == [
        "t1", "done", "2", "kB", "encoder=vit_nano", "seed=1",
    ]  # fmt: skip
    assert any("s1  half done" in line for line in lines)
    assert re.fullmatch(rf"7 folders, \d+ kB in {root}", lines[-1])
    assert main(["--store", str(root), "list", "boxes_train"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 folders")
