"""`python -m mal.store`: what is held, what can go, why keys differ."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.engine.files import write_json
from mal.engine.graph import Result, Stage, execute
from mal.engine.leftovers import prefix_and_suffix
from mal.engine.store import QUEUED, Store
from mal.engine.store.cleaning import half_done, held, leftovers
from mal.engine.store.command import differences, main

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
    return [one.address for one in half_done(list(held(Store(root))), **options)]


def answer(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setattr("builtins.input", lambda question: print(question) or word)


def test_every_finished_stage_is_a_result_whatever_its_name(root: Path) -> None:
    """A user's run ends at a labeler, or at labels: nothing depends on them, and they are all that was wanted."""
    assert names(root, days=0) == []
    assert main(["--store", str(root), "gc", "--days", "0", "--yes"]) == 0
    assert {one.key for one in held(Store(root))} == {"b0", "t1", "l1", "q1", "t2", "l2"}


def test_old_half_done_folders_go_unless_queued(root: Path) -> None:
    keep(root, "train_segmenter", "s1", done=False, age_s=60)
    keep(root, "train_segmenter", "s2", done=False)
    assert names(root, days=7) == ["train_segmenter/s2"]
    note = root / "train_segmenter/s2" / QUEUED
    write_json(note, {"job": "7", "inputs": {"labels": "label_val/l2"}})
    os.utime(note, (time.time() - OLD,) * 2)
    assert names(root, days=7) == []
    assert [one.state for one in held(Store(root)) if one.key == "s2"] == ["queued"]
    note.unlink()
    assert names(root, days=7) == ["train_segmenter/s2"]


def test_what_is_being_computed_stays(root: Path) -> None:
    keep(root, "train_segmenter", "s2", done=False)
    with Store(root).claim("train_segmenter", "s2") as ours:
        assert ours
        assert names(root, days=0) == []
        assert not Store(root).remove("train_segmenter", "s2")
        assert (root / "train_segmenter/s2/data.bin").is_file()


def test_what_is_finished_while_gc_asks_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(root, "train_segmenter", "s2", done=False)

    def finish_first(_: str) -> str:
        with Store(root).claim("train_segmenter", "s2") as ours:
            assert ours
            Store(root).finish("train_segmenter", "s2", {"stage": "train_segmenter", "key": "s2", "status": "done"})
        return "y"

    monkeypatch.setattr("builtins.input", finish_first)
    assert main(["--store", str(root), "gc"]) == 0
    assert "train_segmenter/s2 stays: it was finished meanwhile" in capsys.readouterr().err
    assert Store(root).is_done("train_segmenter", "s2")
    assert not list((root / "train_segmenter/s2").glob("claim-*"))
    assert main(["--store", str(root), "remove", "s2", "--yes"]) == 0
    assert not (root / "train_segmenter/s2").exists()


def test_half_done_work_that_a_queued_stage_waits_for_stays(root: Path) -> None:
    keep(root, "train_segmenter", "s2", done=False)
    keep(root, "detect_val", "d2", done=False, inputs={"segmenter": "train_segmenter/s2"})
    assert names(root, days=7) == ["detect_val/d2", "train_segmenter/s2"]
    write_json(root / "detect_val/d2" / QUEUED, {"job": "7"})
    assert names(root, days=7) == []


def test_what_a_stage_starts_from_is_known_while_it_is_computed(root: Path) -> None:
    seen: list[list[str]] = []
    labels = Stage("label_val", 1, {}, lambda _: Result())
    execute(labels, Store(root), device=torch.device("cpu"))
    work = lambda _: seen.extend(one.inputs for one in held(Store(root)) if one.state == "being computed") or Result()  # noqa: E731
    execute(Stage("train_segmenter", 1, {}, work, {"labels": labels}), Store(root), device=torch.device("cpu"))
    assert seen == [[labels.address]]


def left(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path, _ in leftovers(Store(root), days=7)}


def test_what_killed_processes_were_writing_is_found_and_goes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    prefix, suffix = prefix_and_suffix("labeler.pt")
    theirs = f"{prefix}abcd{suffix}".replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    (root / "train_labeler/t1" / theirs).write_bytes(bytes(5000))
    (root / "train_labeler/t1" / f"{prefix}abcd{suffix}").write_bytes(b"of this process, which lives")
    (root / "label_val/l1/shards").mkdir()
    (root / "train_labeler/t2/checkpoint.pt").write_bytes(b"the record is there")
    (root / "train_labeler/.removed-t9-1").mkdir()
    keep(root, "train_segmenter", "s1", done=False, age_s=60)
    (root / "train_segmenter/s1/checkpoint.pt").write_bytes(b"of work that may go on")
    assert left(root) == {
        f"train_labeler/t1/{theirs}", "label_val/l1/shards", "train_labeler/t2/checkpoint.pt",
        "train_labeler/.removed-t9-1",
    }  # fmt: skip
    assert main(["--store", str(root), "gc", "--yes"]) == 0
    assert "removed 0 folders and 4 files" in capsys.readouterr().out
    assert left(root) == set()
    assert (root / "train_segmenter/s1/checkpoint.pt").is_file()


@pytest.mark.parametrize("name", [".labeler.pt.ab12_xyz", ".clock-123-456", ".run.json.zzzzzzzz"])
def test_temporary_files_of_earlier_versions_go_once_they_are_old(root: Path, name: str) -> None:
    path = root / "train_labeler/t1" / name
    path.write_bytes(b"")
    assert left(root) == set()
    os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert left(root) == {f"train_labeler/t1/{name}"}


def test_gc_asks_first(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    keep(root, "train_segmenter", "s2", done=False)
    answer(monkeypatch, "n")
    assert main(["--store", str(root), "gc"]) == 1
    assert re.search(r"remove these 1 folders and 0 files, \d kB\? \[y/N\]", capsys.readouterr().out)
    assert (root / "train_segmenter/s2").is_dir()
    answer(monkeypatch, "y")
    assert main(["--store", str(root), "gc"]) == 0
    assert not (root / "train_segmenter/s2").exists()
    assert main(["--store", str(root), "gc", "--yes"]) == 0
    assert "finished results go by python -m mal.store remove" in capsys.readouterr().out


def test_a_closed_terminal_is_a_no(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    for command in (["gc", "--days", "0"], ["remove", "l2"]):
        keep(root, "train_segmenter", "s2", done=False)
        assert main(["--store", str(root), *command]) == 1
    assert (root / "train_segmenter/s2").is_dir()
    assert (root / "label_val/l2").is_dir()


def test_a_result_that_others_were_computed_from_is_removed_with_them_or_not_at_all(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove = ["--store", str(root), "remove", "--yes"]
    assert main([*remove, "t1"]) == 1
    said = capsys.readouterr().err
    assert "2 results were computed from what you name (label_val/l1, quality_val/q1)" in said
    assert "--with-dependents" in said
    assert main([*remove, "t1", "--with-dependents", "--with-inputs"]) == 0
    assert {one.key for one in held(Store(root))} == {"b0", "t2", "l2"}, "the second labeler needs the boxes too"
    assert main([*remove, "l2", "--with-inputs"]) == 0
    assert list(held(Store(root))) == []


def test_removing_asks_and_a_key_that_is_not_there_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "n")
    assert main(["--store", str(root), "remove", "q1"]) == 1
    assert (root / "quality_val/q1").is_dir()
    assert main(["--store", str(root), "remove", "zz"]) == 1
    assert "zz names 0 results" in capsys.readouterr().err


def test_a_damaged_note_of_a_half_done_stage_stops_no_command(root: Path) -> None:
    for number, text in enumerate(("[" * 200_000, "[]", '{"inputs": 3}', "\0", '{"inputs": {"a": 1}}')):
        keep(root, "train_segmenter", f"s{number}", done=False)
        (root / f"train_segmenter/s{number}/stage.json").write_text(text)
        (root / f"train_segmenter/s{number}/claim-1.json").write_text(text)
    for command in (["list"], ["gc", "--days", "0", "--yes"]):
        assert main(["--store", str(root), *command]) == 0


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
