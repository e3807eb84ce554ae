"""mal.check: one report on files and images, and an exit code that says whether a run would go well."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_files import HEIGHT, WIDTH, coco_file, each, edit, run_lengths_of

from mal.check import main, report
from mal.data.orientations import ORIENTATION

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    coco_file(tmp_path, "train")
    coco_file(tmp_path, "val", first=11)
    return tmp_path


def checked(own: Path, *more: str, capsys: pytest.CaptureFixture[str], boxes: str = "train.json") -> tuple[int, str]:
    code = main([str(own / boxes), "--images", str(own / "images"), *more])
    return code, capsys.readouterr().out


def turned(path: Path, orientation: int, *, size: tuple[int, int] | None = None) -> None:
    """Store an image with an EXIF orientation."""
    with Image.open(path) as image:
        stored = image.convert("RGB").resize(size or image.size)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(path, exif=exif)


def test_sound_files_end_well(own: Path, capsys) -> None:
    code, said = checked(own, "--val", str(own / "val.json"), capsys=capsys)
    assert code == 0
    assert said.splitlines() == [
        f"{own / 'train.json'}: 8 boxes on 4 images, 8 with a human mask",
        f"{own / 'val.json'}: 8 boxes on 4 images, 8 with a human mask",
        "nothing found that would stop or mislead a run",
    ]
    edit(own / "train.json", each(segmentation=[]))
    code, said = checked(own, capsys=capsys)
    assert code == 0
    assert said.startswith(f"{own / 'train.json'}: 8 boxes on 4 images, no human masks\n")


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_images_that_viewers_turn_upside_down_mislead(orientation: int, own: Path, capsys) -> None:
    turned(own / "images" / "train_1.png", orientation)
    code, said = checked(own, capsys=capsys)
    assert code == 1
    assert "misleads: 1 of 4 images looked at are turned or mirrored by their EXIF tag (train_1.png)" in said


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_quarter_turn_that_annotations_do_not_make_misleads_whoever_says_left(
    orientation: int, own: Path, capsys
) -> None:
    edit(own / "train.json", each(expressions=["the left one"]))
    turned(own / "images" / "train_1.png", orientation)
    turned(own / "images" / "train_2.png", orientation, size=(HEIGHT, WIDTH))
    code, said = checked(own, "--expressions", capsys=capsys)
    assert code == 1
    assert "1 of 4 images looked at are annotated as they are stored, and viewers turn them" in said
    assert "(train_1.png): left in a text is then not left in the pixels" in said
    turned(own / "images" / "train_3.png", 3)
    said = checked(own, "--expressions", capsys=capsys)[1]
    assert "turned or mirrored by their EXIF tag (train_3.png)" in said
    assert "(train_1.png): left in a text" in said


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_quarter_turn_misleads_only_where_the_size_cannot_tell(orientation: int, own: Path, capsys) -> None:
    turned(own / "images" / "train_1.png", orientation)  # stored as annotated: taken as stored
    turned(own / "images" / "train_2.png", orientation, size=(HEIGHT, WIDTH))  # turned to what is annotated
    assert checked(own, capsys=capsys)[0] == 0
    turned(own / "images" / "train_0.png", orientation, size=(100, 100))
    shrink = each(bbox=lambda a: [v / 2 for v in a["bbox"]], segmentation=[])
    edit(own / "train.json", lambda coco: [coco["images"][0].update(width=100, height=100), shrink(coco)])
    code, said = checked(own, capsys=capsys)
    assert code == 1
    assert "turned or mirrored by their EXIF tag (train_0.png)" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "images" / "train_1.png").unlink(), "1 of 4 images are not in"),
        (
            lambda f: Image.new("F", (WIDTH, HEIGHT)).save(f / "images" / "train_1.png", "TIFF"),
            "1 of 4 images cannot be opened (train_1.png: its pixels have 32 bits",
        ),
        (lambda f: (f / "images" / "train_1.png").write_bytes(b"none"), "1 of 4 images cannot be opened (train_1.png:"),
        (
            lambda f: Image.fromarray(np.zeros((9, 9), np.uint8)).save(f / "images" / "train_3.png"),
            "1 of 4 images have another size than their annotations say (train_3.png is 9 x 9, annotated 160 x 120)",
        ),
        (lambda f: edit(f / "train.json", each(bbox=[0, 0, 500, 500])), "bbox [0, 0, 500, 500] sticks out"),
        (lambda f: edit(f / "train.json", each(bbox=[0.1, 0.1, 0.5, 0.2], segmentation=[])), "shares of the image"),
        (lambda f: (f / "train.json").write_text("<html>"), "is not JSON"),
        (lambda f: (f / "train.json").unlink(), "there is no annotation file"),
    ],
    ids=["image absent", "32 bits", "no image", "another size", "box outside", "shares", "no JSON", "no file"],
)
def test_what_would_stop_a_run_is_said_and_not_raised(change: Any, says: str, own: Path, capsys) -> None:
    change(own)
    code, said = checked(own, capsys=capsys)
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith("  stops a run: ")]
    assert says in line
    assert report(own / "train.json", own / "images").stops


def test_images_that_are_to_be_skipped_stop_nothing(own: Path) -> None:
    (own / "images" / "train_1.png").write_bytes(b"none")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(own / "images" / "train_3.png")
    assert report(own / "train.json", own / "images").stops
    found = report(own / "train.json", own / "images", skip=True)
    assert (found.stops, found.code) == (False, 0)
    assert sum("they are skipped" in line for line in found.lines) == 2


def test_a_name_that_is_too_long_for_the_disk_is_an_image_that_is_absent(own: Path, capsys) -> None:
    edit(own / "train.json", lambda coco: coco["images"][0].update(file_name="x" * 300 + ".png"))
    code, said = checked(own, capsys=capsys)
    assert code == 1
    assert "1 of 4 images are not in" in said
    assert "cannot be opened" not in said


def test_large_images_raise_no_warning_and_larger_ones_are_named(own: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)  # warnings are errors here
    assert checked(own, capsys=capsys)[0] == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 3)
    assert f"it has more than {2 * (WIDTH * HEIGHT // 3):,} pixels" in checked(own, capsys=capsys)[1]


def test_what_would_mislead_is_told_from_what_would_stop(own: Path, capsys) -> None:
    edit(own / "train.json", each(segmentation=lambda a: run_lengths_of(a["bbox"], text=True), iscrowd=1))
    edit(own / "val.json", lambda coco: coco["categories"][0].update(name="nut"))
    code, said = checked(own, "--val", str(own / "val.json"), "--val-images", str(own / "images"), capsys=capsys)
    assert code == 1
    assert "misleads: 8 of its 8 masks are crowds (iscrowd 1)" in said
    assert "misleads: their categories are numbered differently: id 1 is 'plum' in the first and 'nut'" in said
    assert said.endswith("of what was found, 0 would stop it and 2 would mislead\n")
    found = report(own / "train.json", own / "images")
    assert (found.stops, found.misleads, found.code) == (False, True, 1)


def test_masks_that_are_missing_or_broken_stop_only_what_needs_them(own: Path, capsys) -> None:
    edit(
        own / "train.json", lambda c: [c["annotations"][n].update(segmentation=s) for n, s in enumerate(([], [[1, 2]]))]
    )
    code, said = checked(own, capsys=capsys)
    assert code == 1
    assert "human masks: 1 segmentation cannot be read as a mask: annotation 101" in said
    assert "human masks: 1 of 8 annotations have no mask (annotation 100" in said
    assert not report(own / "train.json", own / "images").stops


def test_lvis_lists_are_asked_for_where_lvis_is_meant(own: Path, capsys) -> None:
    assert checked(own, capsys=capsys)[0] == 0
    code, said = checked(own, "--lvis", capsys=capsys)
    assert code == 1
    assert "4 of 4 images have no list neg_category_ids" in said
    edit(own / "train.json", lambda coco: coco["categories"][0].update(frequency="f"))
    assert checked(own, capsys=capsys)[0] == 1


def test_categories_without_objects_are_a_note(own: Path, capsys) -> None:
    edit(own / "train.json", lambda coco: coco["categories"].append({"id": 0, "name": "fruit"}))
    code, said = checked(own, capsys=capsys)
    assert code == 0
    assert "note: 1 of 3 categories without an annotation (fruit (id 0)): AP does not count them" in said


def test_the_command_starts_without_torch() -> None:
    program = "import sys, mal.check; print(sorted({'torch', 'cv2', 'pandas', 'hydra'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
