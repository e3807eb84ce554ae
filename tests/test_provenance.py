"""What a record says of the code: the commit, and all that was not committed."""

import subprocess
from pathlib import Path

import pytest
import torch

from mal.engine import runtime
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workdir, execute
from mal.engine.store import Store


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mal").mkdir()
    (tmp_path / "mal" / "old.py").write_text("a = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    return tmp_path


def test_a_clean_checkout_has_a_commit_and_no_difference(checkout: Path) -> None:
    assert runtime.uncommitted() == b""
    found = runtime.provenance()
    assert (found["commit"], found["diff"]) == (git(checkout, "rev-parse", "HEAD").strip(), None)


def test_the_patch_brings_back_changed_and_new_files_and_the_users_index_stays_as_it_is(checkout: Path) -> None:
    (checkout / "mal" / "old.py").write_text("a = 2\n")
    before = runtime.code_state()[1]
    (checkout / "mal" / "new.py").write_text("b = 3\n")
    assert runtime.code_state()[1] not in (before, None), "a new file is code too"
    patch = runtime.uncommitted()
    assert git(checkout, "status", "--short").split("\n")[:2] == [" M mal/old.py", "?? mal/new.py"]
    git(checkout, "checkout", "mal/old.py")
    (checkout / "mal" / "new.py").unlink()
    subprocess.run(["git", "apply"], cwd=checkout, input=patch, check=True)
    assert (checkout / "mal" / "old.py").read_text() == "a = 2\n"
    assert (checkout / "mal" / "new.py").read_text() == "b = 3\n"


def test_what_is_staged_or_taken_from_the_index_counts_as_it_lies_in_the_folder(checkout: Path) -> None:
    (checkout / "mal" / "new.py").write_text("b = 3\n")
    unstaged = runtime.uncommitted()
    git(checkout, "add", "mal/new.py")
    assert runtime.uncommitted() == unstaged
    git(checkout, "rm", "--quiet", "--cached", "mal/old.py", "mal/new.py")
    assert runtime.uncommitted() == unstaged, "both still lie there"
    (checkout / ".git" / "index").unlink()
    assert runtime.uncommitted() == unstaged


def test_a_record_tells_of_the_code_at_the_start_of_its_stage(checkout: Path, tmp_path: Path) -> None:
    def work(_: Workdir) -> Result:
        (checkout / "mal" / "old.py").write_text("a = 2\n")
        return Result()

    store, cpu = Store(tmp_path / "store"), torch.device("cpu")
    for name in ("first", "second"):
        stage = Stage(name, 1, {}, work)
        execute(stage, store, device=cpu)
        record = read_json(store.folder(name, stage.key) / "run.json")
        assert (record["provenance"]["diff"] is None) == (name == "first")


def test_outside_a_checkout_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = runtime.provenance()
    assert (found["commit"], found["diff"]) == (None, None)
