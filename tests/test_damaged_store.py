"""Results that are not what was written: computed again, or a sentence with a way out. And stores one cannot write."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.engine.files import read_json, write_json
from mal.engine.graph import Result, Stage, execute
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.engine.store import Store
from mal.engine.store.records import check_record
from mal.errors import DamagedFileError, MalError

CPU = torch.device("cpu")
PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


def counting(calls: list[str]) -> Stage:
    def work(place) -> Result:
        calls.append("computed")
        write_json(place.folder / "labels.json", {"annotations": [1, 2, 3]})
        (place.folder / "images").mkdir(exist_ok=True)
        (place.folder / "images/1.png").write_bytes(b"1")
        return Result({"labels": 3.0})

    return Stage("label_val", 1, {}, work)


@pytest.fixture
def done(tmp_path: Path) -> tuple[Store, Stage, Path, list[str]]:
    """A finished stage, its folder, and how often it was computed."""
    calls: list[str] = []
    store, stage = Store(tmp_path), counting(calls)
    execute(stage, store, device=CPU)
    return store, stage, store.folder(stage.name, stage.key), calls


def test_a_record_names_the_files_of_its_result_with_their_sizes(done) -> None:
    store, stage, folder, _ = done
    assert store.read(stage.name, stage.key)["files"] == {"images/": 1, "labels.json": 26}
    for name in ("sheet.png", "mlflow.json", "queued.json"):  # what comes later does not matter
        (folder / name).write_text("x")
    assert store.is_done(stage.name, stage.key)
    assert not execute(stage, store, device=CPU)


def test_what_others_keep_in_a_folder_meanwhile_is_no_part_of_its_result(tmp_path: Path) -> None:
    def work(place) -> Result:
        for name in ("labels.json", "mlflow.lock", ".nfs0001", "images/.DS_Store"):
            (place.folder / name).parent.mkdir(exist_ok=True)
            (place.folder / name).touch()
        return Result()

    store, stage = Store(tmp_path), Stage("label_val", 1, {}, work)
    execute(stage, store, device=CPU)
    folder = store.folder(stage.name, stage.key)
    assert store.read(stage.name, stage.key)["files"] == {"images/": 0, "labels.json": 0}
    for name in ("mlflow.lock", ".nfs0001", "images/.DS_Store"):  # a copy of the store may lack them
        (folder / name).unlink()
    assert store.is_done(stage.name, stage.key)
    record = store.read(stage.name, stage.key)
    write_json(folder / "run.json", {**record, "files": {**record["files"], "mlflow.lock": 0}})
    assert store.is_done(stage.name, stage.key)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "longer", "image gone"])
def test_a_result_whose_files_are_not_those_of_its_record_is_computed_again(done, damage: str, capsys) -> None:
    store, stage, folder, calls = done
    path = folder / "labels.json"
    if damage == "image gone":
        (folder / "images/1.png").unlink()
    elif damage == "gone":
        path.unlink()
    else:
        path.write_text({"cut": '{"annot', "empty": "", "longer": json.dumps({"annotations": [1, 2, 3, 4]})}[damage])
    assert not store.is_done(stage.name, stage.key)
    assert store.is_recorded(stage.name, stage.key)
    before = path.read_text() if path.exists() else None
    assert execute(stage, store, device=CPU)
    assert calls == ["computed"] * 2
    assert json.loads(path.read_text()) == {"annotations": [1, 2, 3]}
    said = capsys.readouterr().err
    assert "is computed again: " in said
    assert ("images/ has 0 files, 1 were written" if damage == "image gone" else "labels.json") in said
    if damage not in ("gone", "image gone"):
        assert (folder / "labels.json.damaged").read_text() == before, "it may be somebody's corrections"
    assert store.is_done(stage.name, stage.key)


def test_a_record_of_an_earlier_version_is_believed(done) -> None:
    store, stage, folder, calls = done
    record = store.read(stage.name, stage.key)
    del record["files"]
    write_json(folder / "run.json", record)
    (folder / "labels.json").unlink()
    assert store.is_done(stage.name, stage.key)
    assert not execute(stage, store, device=CPU)
    assert calls == ["computed"]


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\xff", '{"a": ' * 200_000])
def test_a_file_of_ours_that_is_no_json_is_a_sentence_that_says_what_to_delete(tmp_path: Path, text: str) -> None:
    path = tmp_path / "label_val" / "0123" / "labels.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DamagedFileError, match=rf"labels\.json is damaged \(.*delete its folder {path.parent}, "):
        read_json(path)
    with pytest.raises(ValueError, match="damaged"):  # for those who go on without
        read_json(path)


@pytest.mark.parametrize(
    "record",
    [
        [], "done", 3, None, {"metrics": []}, {"status": "done", "metrics": {"iou": 0.5}}, {"inputs": ["a/b"]},
        {"inputs": {"boxes": 3}}, {"inputs": {"boxes": "no address"}}, {"columns": "x"}, {"seconds": "long"},
        {"files": [1]}, {"status": True}, {"version": True},
    ],
)  # fmt: skip
def test_a_record_of_another_shape_is_a_sentence(tmp_path: Path, record: Any) -> None:
    write_json(tmp_path / "train/k/run.json", record)
    for attempt in (Store(tmp_path).is_done, Store(tmp_path).read):
        with pytest.raises(MalError, match=r"train/k/run\.json does not hold a record \(.*delete it to have the stage"):
            attempt("train", "k")


def test_a_record_nested_beyond_reason_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "train/k").mkdir(parents=True)
    (tmp_path / "train/k/run.json").write_text('{"config": ' * 200_000)
    with pytest.raises(MalError, match="delete it to have the stage computed again"):
        Store(tmp_path).is_done("train", "k")


def test_every_published_record_is_one() -> None:
    records = list(PUBLISHED.glob("*/*/run.json"))
    assert records
    assert [path for path in records if check_record(json.loads(path.read_text())) is not None] == []


@pytest.mark.parametrize("damage", ["cut", "zeros", "bits", "other", "parts"])
def test_a_damaged_checkpoint_in_the_store_says_what_to_delete(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train_labeler" / "0123" / "labeler.pt"
    path.parent.mkdir(parents=True)
    (path.parent / "run.json").write_text("{}")
    save_checkpoint(path, {"student": {"w": torch.arange(5000.0)}, "teacher": {}})
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut": data[:-4000],
            "zeros": bytes(len(data)),
            "bits": data[:middle] + bytes(200) + data[middle + 200 :],
            "other": b"[1, 2]",
            "parts": data,
        }[damage]
    )
    parts = ("student", "teacher", "config") if damage == "parts" else ("student", "teacher")
    with pytest.raises(MalError, match=rf"{path} is .*delete ({path.parent}, a stage's folder .*|it, )and"):
        load_checkpoint(path, parts=parts)


# Stores that cannot be written

READER = """
import sys
from mal.engine.store import Fingerprints, Store
from mal.engine.store.command import main
store = Store(sys.argv[1])
with store.claim(*sys.argv[2:4]) as ours:
    print(ours)
print(store.is_claimed("train", "k"), store.is_done("train", "k"))
print(len(Fingerprints(store.root).file(__import__("mal").__file__)))
sys.exit(main(["--store", sys.argv[1], "list"]))
"""


@pytest.fixture
def sealed() -> Iterator[Callable[[Path], Path]]:
    """Makes a folder read-only, be it for root."""
    mounted: list[Path] = []

    def seal(folder: Path) -> Path:
        for options in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
            if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
                pytest.skip("a folder becomes read-only for root by mounting it so, which is not allowed here")
            mounted.append(folder)
        return folder

    yield seal
    for folder in mounted[:1]:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_a_store_that_cannot_be_written_is_read(tmp_path: Path, sealed: Callable[[Path], Path]) -> None:
    root = tmp_path / "runs"
    stage = Stage("label_val", 1, {}, lambda _: Result())
    execute(stage, Store(root), device=CPU)
    write_json(root / "train/k/claim-1.json", {"pid": 1, "machine": "elsewhere"})
    command = [sys.executable, "-c", READER, sealed(root), stage.name, stage.key]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[:3] == ["False", "True False", "64"]
    assert "2 folders" in found.stdout


def test_work_in_a_store_that_cannot_be_written_is_a_sentence(tmp_path: Path, sealed: Callable[[Path], Path]) -> None:
    sealed_root = tmp_path / "runs"
    sealed_root.mkdir()
    with pytest.raises(MalError, match=r"cannot write .*: the file system is read-only; name another place"):
        execute(Stage("label_val", 1, {}, lambda _: Result()), Store(sealed(sealed_root)), device=CPU)
