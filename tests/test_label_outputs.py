"""What `python -m mal.label` replaces, and what it never does."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mal.data.annotations import read, write
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.label import main
from mal.methods import labelling
from mal.methods.mal import label as labels
from mal.own.label_outputs import write_output
from mal.own.outputs import Output

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("rle", "polygon", "png", "yolo")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the notes of what was written."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".written.")
    }


@pytest.fixture
def unwilling(monkeypatch):
    """No network may be asked: whatever is refused, or done already, is known before the work."""

    def refuse(*_, **__):
        raise AssertionError("labelled although there was no need")

    monkeypatch.setattr(labels, "predict", refuse)


def test_a_corrected_file_is_refused_before_the_work_and_replaced_only_by_the_flag(place, tmp_path, capsys):
    out = tmp_path / "masks.json"
    out.write_text('{"info": "three weeks of corrections"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mal.methods.mal.own_files.load_networks", None)
        assert main(place.arguments(out)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: --out {out} exists, and this command did not write it or it was changed since" in said.err
    assert "give --overwrite to replace" in said.err
    assert contents(tmp_path) == {"masks.json": b'{"info": "three weeks of corrections"}'}
    assert place.label(out, "--overwrite") == place.label(tmp_path / "fresh.json")


def test_a_file_that_comes_while_masks_are_made_is_not_replaced(place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "masks.json"

    def slow(*arguments: object) -> list[str]:
        out.write_text("by hand")
        return write_output(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("mal.own.label_files.write_output", slow)
        assert main(place.arguments(out)) == 1
    assert f"error: --out {out} exists, and this command did not write it" in capsys.readouterr().err
    assert out.read_text() == "by hand"
    place.label(out, "--overwrite")


@pytest.mark.parametrize(("what", "option"), [("draw_sheet", "--preview=2"), ("write_review", "--review")])
def test_a_disk_that_is_full_when_pictures_are_drawn_is_a_sentence(place, tmp_path, capsys, monkeypatch, what, option):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "masks.json"
    with monkeypatch.context() as patch:
        patch.setattr(f"mal.own.label_outputs.{what}", full)
        assert main(place.arguments(out, option)) == 1
    assert f"error: cannot write {out}: the disk is full; free some space" in capsys.readouterr().err
    assert not out.exists()
    place.label(out, option)


@pytest.mark.parametrize(
    ("kind", "present", "named"),
    [
        ("yolo", ["000003.txt", "classes.txt"], r"2 files are there .*\(labels/000003.txt, labels/classes.txt\)"),
        ("yolo", ["of_another_image.txt"], r"1 file is there .*\(labels/of_another_image.txt\)"),
        ("yolo", [f"deep/{n}.txt" for n in "abcde"], r"5 files .*\(labels/deep/a.txt, labels/deep/b.txt, .*c.txt, …\)"),
        ("png", ["000001.png"], r"1 file is there .*\(labels/000001.png\)"),
        ("png", ["instances.json"], r"1 file is there .*\(labels/instances.json\)"),
    ],
)
@pytest.mark.usefixtures("unwilling")
def test_a_folder_with_labels_by_hand_is_refused(place, tmp_path, capsys, kind, present, named):
    folder = tmp_path / "labels"
    for name in present:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("by hand")
    before = contents(tmp_path)
    assert main(place.arguments(folder, "--format", kind)) == 1
    error = capsys.readouterr().err
    assert re.search(named, error), error
    assert "--overwrite" in error
    assert contents(tmp_path) == before


def test_overwrite_leaves_labels_of_other_images_and_says_so(place, tmp_path, capsys):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name in ("classes.txt", "other.txt", "readme.md"):
        (folder / name).write_text("by hand")
    assert main(place.arguments(folder, "--format", "yolo", "--overwrite")) == 0
    assert f"1 other .txt files in {folder} stay as they are: labels/other.txt" in capsys.readouterr().out
    assert (folder / "other.txt").read_text() == (folder / "readme.md").read_text() == "by hand"
    assert (folder / "classes.txt").read_text() != "by hand"


def test_a_folder_with_files_of_other_kinds_is_written_to(place, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "readme.md").write_text("mine")
    assert main(place.arguments(folder, "--format", "yolo")) == 0
    assert (folder / "readme.md").read_text() == "mine"


@pytest.mark.usefixtures("unwilling")
def test_a_preview_by_another_hand_is_refused(place, tmp_path, capsys):
    (tmp_path / "masks_preview.png").write_bytes(b"a drawing")
    assert main(place.arguments(tmp_path / "masks.json", "--preview", 1)) == 1
    assert "(masks_preview.png)" in capsys.readouterr().err
    assert contents(tmp_path) == {"masks_preview.png": b"a drawing"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_again_finds_all_done(place, tmp_path, capsys, monkeypatch, kind):
    command = place.arguments(tmp_path / "out", "--format", kind, "--preview", 1)
    assert main(command) == 0
    first, before = capsys.readouterr().out, contents(tmp_path)
    monkeypatch.setattr(labels, "predict", None)
    assert main(command) == 0
    again = capsys.readouterr().out
    assert again.startswith(first)
    assert "written by the same call and unchanged since" in again
    assert contents(tmp_path) == before


def test_a_result_that_somebody_changed_is_theirs(place, tmp_path, capsys):
    out = tmp_path / "masks.json"
    place.label(out)
    out.write_text(out.read_text().replace('"score"', '"certainty"', 1))
    before = contents(tmp_path)
    assert main(place.arguments(out)) == 1
    assert "was changed since" in capsys.readouterr().err
    assert contents(tmp_path) == before
    folder = tmp_path / "labels"
    assert main(place.arguments(folder, "--format", "yolo")) == 0
    (folder / "classes.txt").write_text("renamed")
    assert main(place.arguments(folder, "--format", "yolo")) == 1
    assert "(labels/classes.txt)" in capsys.readouterr().err


def test_a_file_that_is_gone_is_written_again(place, tmp_path):
    command = place.arguments(tmp_path / "labels", "--format", "yolo", "--preview", 1)
    assert main(command) == 0
    before = contents(tmp_path)
    (tmp_path / "labels" / "classes.txt").unlink()
    assert main(command) == 0
    assert contents(tmp_path) == before


def test_the_result_of_another_call_is_refused_and_what_differs_is_named(place, tmp_path, capsys):
    out = tmp_path / "masks.json"
    place.label(out)
    save_checkpoint(tmp_path / "other.pt", load_checkpoint(place.checkpoint) | {"note": 1})
    images = shutil.copytree(place.images, tmp_path / "images")
    picture = sorted(images.iterdir())[0]
    for more, instead, name in (
        (("--threshold", 0.3), {}, "options"),
        (("--preview", 2), {}, "options"),
        ((), {"checkpoint": tmp_path / "other.pt"}, "checkpoint"),
        ((), {"images": images}, "images"),
    ):
        assert main(place.arguments(out, *more, **instead)) == 1
        assert f"holds the result of a call with other {name};" in capsys.readouterr().err
    place.label(out, "--overwrite", images=images)
    os.utime(picture, ns=(1, 1))  # replaced in place, under the same name
    assert main(place.arguments(out, images=images)) == 1
    assert "a call with other images;" in capsys.readouterr().err


def test_a_call_begun_before_goes_on_although_another_has_finished_meanwhile(place, tmp_path, monkeypatch, capsys):
    """A labeler, interrupted; then another one; then the first again."""
    fresh, state = {}, load_checkpoint(place.checkpoint)
    save_checkpoint(tmp_path / "b.pt", state | {"student": state["teacher"]})
    labelers = {"a": place.checkpoint, "b": tmp_path / "b.pt"}
    for name, checkpoint in labelers.items():
        place.label(tmp_path / f"fresh_{name}.json", checkpoint=checkpoint)
        fresh[name] = (tmp_path / f"fresh_{name}.json").read_bytes()
    out, original, calls = tmp_path / "masks.json", labels.predict, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(labels, "predict", interrupted)
        assert main(place.arguments(out)) == 130
    capsys.readouterr()
    assert main(place.arguments(out, checkpoint=labelers["b"])) == 0
    (left,) = tmp_path.glob(".masks.json.*")
    assert f"unfinished, of 1 calls with other inputs or options: {left}" in capsys.readouterr().out
    assert out.read_bytes() == fresh["b"]
    assert main(place.arguments(out)) == 0
    assert out.read_bytes() == fresh["a"]
    assert not list(tmp_path.glob(".masks.json.*"))


def test_what_an_empty_call_left_is_removed(place, tmp_path):
    (tmp_path / ".out.json.0123456789ab").mkdir()
    (tmp_path / ".out.json.notours").mkdir()
    place.label(tmp_path / "out.json")
    assert [path.name for path in tmp_path.glob(".out.json.*")] == [".out.json.notours"]


@pytest.mark.parametrize("kind", ["rle", "yolo"])
def test_a_call_killed_while_it_moves_its_files_goes_on(place, tmp_path, monkeypatch, kind):
    out = tmp_path / "out"
    command = place.arguments(out, "--format", kind, "--preview", 1)
    original, moved = os.replace, []

    def killed(source, target):
        if "output" in Path(source).parts[-3:]:
            moved.append(target)
            if len(moved) == 2:
                raise KeyboardInterrupt
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("mal.own.outputs.os.replace", killed)
        assert main(command) == 130
    assert main(command) == 0
    assert main(place.arguments(tmp_path / "whole" / "out", "--format", kind, "--preview", 1)) == 0
    whole = contents(tmp_path / "whole")
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("whole")} == whole


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"call": 3}', "not JSON"])
def test_a_note_that_cannot_be_read_is_no_leave_to_overwrite(place, tmp_path, damage):
    out = tmp_path / "out.json"
    place.label(out)
    (tmp_path / ".written.out.json").write_text(damage)
    assert main(place.arguments(out)) == 1


def test_a_damaged_or_empty_shard_is_labelled_again(place, tmp_path, monkeypatch):
    whole = place.label(tmp_path / "whole.json")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mal.own.label_outputs.FORMATS", {"rle": stopped})
        assert main(place.arguments(tmp_path / "out.json")) == 130
    first, second, third = sorted(tmp_path.glob(".out.json.*/shards/*.json"))
    first.write_text("{}")
    second.write_text(second.read_text()[:100])
    third.write_text("[]")
    assert place.label(tmp_path / "out.json") == whole


@pytest.mark.parametrize("name", ["photo.png", "photo.json"])
def test_an_output_that_is_an_image_to_label_is_refused_even_with_the_flag(place, tmp_path, capsys, name):
    images = shutil.copytree(place.images, tmp_path / "images")
    coco = read(place.boxes, masks=False)
    photo = images / ("photo.png" if name == "photo.png" else "photo_preview.png")
    (images / coco["images"][0]["file_name"]).rename(photo)
    coco["images"][0]["file_name"] = photo.name
    write(tmp_path / "boxes.json", coco)
    before = contents(images)
    inputs = {"images": images, "boxes": tmp_path / "boxes.json"}
    assert main(place.arguments(images / name, "--overwrite", "--preview", 1, **inputs)) == 1
    assert f"would overwrite 1 inputs ({photo}); name another place" in capsys.readouterr().err
    assert contents(images) == before


def command(place, out: Path, *more: object) -> list[str]:
    return [sys.executable, "-m", "mal.label", *place.arguments(out, *more)]


def test_another_call_for_the_same_output_is_refused_while_one_is_at_it(place, tmp_path, capsys, holding):
    process = holding(tmp_path / ".out.json.lock", "another")
    assert main(place.arguments(tmp_path / "out.json")) == 1
    error = capsys.readouterr().err
    assert f"--out {tmp_path / 'out.json'} is being written by process {process.pid}" in error
    assert "with other inputs or options; name another place, or wait" in error


def test_an_output_taken_over_meanwhile_is_not_written(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Output, "publish", None)
    label = labelling.label_dataset

    def slept(*arguments, **options):
        (tmp_path / ".out.json.lock" / "claim-2.json").write_text("{}")
        return label(*arguments, **options)

    monkeypatch.setattr("mal.own.label_files.label_dataset", slept)
    assert main(place.arguments(tmp_path / "out.json")) == 1
    assert "another process took over" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_with_the_same_command_end_with_the_same_masks(place, tmp_path, killed):
    whole = place.label(tmp_path / "whole.json")
    out = tmp_path / "out.json"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    first = subprocess.Popen(command(place, out), **options)
    while not (tmp_path / ".out.json.lock" / "call-1.json").is_file() and first.poll() is None:
        time.sleep(0.01)
    if killed:
        first.send_signal(signal.SIGSTOP)
    second = subprocess.Popen(command(place, out), **options)
    if killed:
        time.sleep(6)
        first.kill()
    (said, error), (_, other) = second.communicate(), first.communicate()
    assert "Traceback" not in error + other
    assert second.returncode == 0
    assert first.returncode == (-signal.SIGKILL if killed else 0)
    assert "masks: " in said
    assert json.loads(out.read_text()) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".written.out.json",
        ".written.whole.json",
        "out.json",
        "whole.json",
    ]
