"""`python -m mal.label`: anyone's boxes in, masks out, in the format asked for."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from analysis import drawing
from analysis.sheet import CELL, GAP, HEADER
from mal import label
from mal.data import export
from mal.data.annotations import decode_mask, read, write
from mal.data.boxes import SIZE_NAMES, size_class
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.label import main
from mal.methods.baselines import box
from mal.methods.mal import label as labels
from tests.label_calls import Place

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
GIVEN = {"id": 3, "image_id": 1, "category_id": 1, "bbox": [10, 12, 40, 30]}  # all that an annotation must have


def masks(coco: dict) -> dict[int, np.ndarray]:
    sizes = {image["id"]: {"height": image["height"], "width": image["width"]} for image in coco["images"]}
    return {a["id"]: decode_mask(a["segmentation"], **sizes[a["image_id"]]) for a in coco["annotations"]}


def assert_same_masks(first: dict, second: dict) -> None:
    assert [a["segmentation"] for a in first["annotations"]] == [a["segmentation"] for a in second["annotations"]]


def test_every_annotation_comes_back_in_order_with_its_other_fields_and_a_mask_inside_its_box(place, tmp_path, capsys):
    coco = read(place.boxes, masks=False)
    coco["licenses"] = [{"id": 1, "name": "mine"}]
    coco["annotations"].reverse()
    for number, annotation in enumerate(coco["annotations"]):
        annotation |= {"attributes": {"occluded": True}, "number": number}
    write(tmp_path / "boxes.json", coco)
    labelled = place.label(tmp_path / "out" / "labels.json", boxes=tmp_path / "boxes.json")
    assert {k: v for k, v in labelled.items() if k != "annotations"} == {
        k: v for k, v in coco.items() if k != "annotations"
    }
    assert [{k: a[k] for k in b} for a, b in zip(labelled["annotations"], coco["annotations"], strict=True)] == coco[
        "annotations"
    ]
    for annotation in labelled["annotations"]:
        image = next(i for i in coco["images"] if i["id"] == annotation["image_id"])
        mask = decode_mask(annotation["segmentation"], height=image["height"], width=image["width"])
        assert annotation["area"] == mask.sum() > 0
        assert 0 <= annotation.get("score", 0) <= 1
        x, y, w, h = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        assert x - 1 < columns.min()
        assert columns.max() <= x + w
        assert y - 1 < rows.min()
        assert rows.max() <= y + h
    assert f"{len(coco['annotations'])} masks: {tmp_path / 'out' / 'labels.json'}" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"labels.json", ".written.labels.json"}  # no shards


def test_masks_in_the_boxes_file_are_neither_needed_nor_looked_at(place, tmp_path):
    alone = place.label(tmp_path / "a.json")
    with_masks = place.label(tmp_path / "b.json", boxes=place.folder / "annotations.json")
    assert alone == with_masks
    coco = read(place.boxes, masks=False)
    coco["annotations"] = [{k: a[k] for k in GIVEN} for a in coco["annotations"]]
    write(tmp_path / "boxes.json", coco)
    assert_same_masks(place.label(tmp_path / "c.json", boxes=tmp_path / "boxes.json"), alone)


@pytest.mark.parametrize("kind", ["rle", "polygon", "png", "yolo"])
def test_every_format_holds_every_annotation(place, tmp_path, kind):
    coco = read(place.boxes, masks=False)
    out = tmp_path / "labels"
    assert main(place.arguments(out, "--format", kind)) == 0
    ids = [a["id"] for a in coco["annotations"]]
    if kind == "png":
        assert [a["id"] for a in json.loads((out / "instances.json").read_text())["annotations"]] == ids
        assert len(list(out.glob("*.png"))) == len(coco["images"])
    elif kind == "yolo":
        lines = {path.stem: path.read_text().splitlines() for path in out.glob("*.txt")}
        assert len(lines.pop("classes")) == len(coco["categories"])
        assert len(lines) == len(coco["images"])
        assert sum(map(len, lines.values())) == len(ids)
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            ready = COCO(str(out))
        assert ready.getAnnIds() == ids
        assert {type(a["segmentation"]) for a in ready.anns.values()} == {dict if kind == "rle" else list}


def test_thresholds_are_one_for_all_or_one_for_each_size(place, tmp_path):
    by_threshold = {t: place.label(tmp_path / f"{t}.json", "--threshold", t) for t in (0.35, 0.5, 0.6)}
    areas = [sum(a["area"] for a in c["annotations"] if "flagged" not in a) for c in by_threshold.values()]
    assert areas[0] > areas[1] > areas[2]
    found = masks(place.label(tmp_path / "three.json", "--threshold", *by_threshold))
    each = [masks(coco) for coco in by_threshold.values()]
    for annotation in read(place.boxes, masks=False)["annotations"]:
        size = SIZE_NAMES.index(size_class(annotation["bbox"][2] * annotation["bbox"][3]))
        np.testing.assert_array_equal(found[annotation["id"]], each[size][annotation["id"]])


def test_masks_under_other_names_come_back_with_the_labels(place, tmp_path):
    coco = read(place.boxes, masks=False)
    other = {"size": [128, 128], "counts": [0, 128 * 128]}
    parts = [{"name": "wing", "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}]
    coco["annotations"][0] |= {"first_draft": other, "parts": parts}
    write(tmp_path / "boxes.json", coco)
    labelled = place.label(tmp_path / "out.json", boxes=tmp_path / "boxes.json")["annotations"]
    assert (labelled[0]["first_draft"], labelled[0]["parts"]) == (other, parts)
    assert_same_masks({"annotations": labelled}, place.label(tmp_path / "plain.json"))


def test_a_threshold_nothing_passes_leaves_boxes_and_says_so(place, tmp_path, capsys):
    assert main(place.arguments(tmp_path / "out.json", "--threshold", 0.999999)) == 1
    coco = read(tmp_path / "out.json", masks=True)
    assert all(a["flagged"] and a["flag_reason"] == "the mask is empty" for a in coco["annotations"])
    count = len(coco["annotations"])
    said = f"none of the {count} boxes got a mask: all are filled and flagged ({count} because the mask is empty)"
    assert said in capsys.readouterr().err


def test_boxes_as_shares_of_the_image_are_refused_before_anything_is_labelled(place, tmp_path, capsys):
    coco = read(place.boxes, masks=False)
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        scale = (*sizes[annotation["image_id"]], *sizes[annotation["image_id"]])
        annotation["bbox"] = [value / side for value, side in zip(annotation["bbox"], scale, strict=True)]
    write(tmp_path / "shares.json", coco)
    assert main(place.arguments(tmp_path / "out.json", boxes=tmp_path / "shares.json")) == 1
    assert "they seem to be shares of the image (0 to 1); multiply" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_network_chooses_student_teacher_or_their_mean(place, tmp_path):
    state = load_checkpoint(place.checkpoint)
    swapped = tmp_path / "swapped.pt"
    save_checkpoint(swapped, {**state, "student": state["teacher"], "teacher": state["student"]})
    student, teacher, both = (
        place.label(tmp_path / f"{n}.json", "--network", n) for n in ("student", "teacher", "both")
    )
    assert_same_masks(student, place.label(tmp_path / "default.json"))  # the recipe's own
    assert_same_masks(teacher, place.label(tmp_path / "swapped.json", checkpoint=swapped))
    different = [sum(x["area"] for x in coco["annotations"]) for coco in (student, teacher, both)]
    assert len(set(different)) == 3


@pytest.mark.parametrize(("option", "flip"), [("--flip", True), ("--no-flip", False), (None, True)])
def test_flip_averages_with_the_mirrored_crop(place, tmp_path, monkeypatch, option, flip):
    seen = []
    original = labels.predict
    monkeypatch.setattr(labels, "predict", lambda *a, **k: seen.append(k["flip"]) or original(*a, **k))
    place.label(tmp_path / "out.json", *([option] if option else []))
    assert set(seen) == {flip}


def test_a_mask_does_not_depend_on_the_batch_it_is_found_in(place, tmp_path):
    few, many = (masks(place.label(tmp_path / f"{n}.json", "--batch", n)) for n in (3, 1000))
    for key, mask in few.items():
        assert (mask != many[key]).sum() <= 1  # sums in another order may move a pixel at the threshold


def test_an_interrupted_call_goes_on_where_it_was(place, tmp_path, monkeypatch, capsys):
    whole = place.label(tmp_path / "whole.json")
    original, calls = labels.predict, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:  # in the second of three shards, or the third
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(labels, "predict", interrupted)
    out = tmp_path / "out.json"
    assert main(place.arguments(out)) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not out.exists()
    finished = sorted(tmp_path.glob(".out.json.*/shards/*.json"))
    assert finished
    done = {int(key) for path in finished for key in json.loads(path.read_text())["labels"]}
    resumed: list[int] = []

    def watched(networks, rois, **options):
        resumed.extend(rois.ids.tolist())
        return original(networks, rois, **options)

    monkeypatch.setattr(labels, "predict", watched)
    assert place.label(out) == whole
    assert not list(tmp_path.glob(".out.json.*"))
    assert done.isdisjoint(resumed)
    assert resumed


def test_shards_of_another_call_are_not_reused(place, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mal.own.label_outputs.FORMATS", {"rle": stopped})  # every shard is done, nothing is written
    state, coco = load_checkpoint(place.checkpoint), read(place.boxes, masks=False)
    save_checkpoint(tmp_path / "other.pt", {**state, "student": state["teacher"]})
    coco["annotations"][0]["bbox"][2] /= 2
    write(tmp_path / "boxes.json", coco)
    images = shutil.copytree(place.images, tmp_path / "images")
    inputs = [{}, {"images": images}, {"checkpoint": tmp_path / "other.pt"}, {"boxes": tmp_path / "boxes.json"}]
    calls = [((), each) for each in inputs] + [
        (("--threshold", 0.3), {}),
        (("--network", "teacher"), {}),
        (("--no-flip",), {}),
    ]
    for count, (more, instead) in enumerate(calls, start=1):
        assert main(place.arguments(tmp_path / "out.json", *more, **instead)) == 130
        assert len(list(tmp_path.glob(".out.json.*"))) == count
    main(place.arguments(tmp_path / "out.json"))
    assert len(list(tmp_path.glob(".out.json.*"))) == len(calls)
    picture = next(path for path in images.iterdir() if path.is_file())
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)  # replaced in place
    main(place.arguments(tmp_path / "out.json", images=images))
    assert len(list(tmp_path.glob(".out.json.*"))) == len(calls) + 1


def sheet_pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["rle", "png"])
def test_preview_draws_image_box_and_mask_of_n_examples(place, tmp_path, capsys, kind):
    out = tmp_path / "labels.out"
    assert main(place.arguments(out, "--preview", 3, "--format", kind)) == 0
    path = tmp_path / "labels_preview.png"
    assert f"preview: {path}" in capsys.readouterr().out
    pixels = sheet_pixels(path)
    assert pixels.shape[0] <= HEADER + GAP + 3 * (CELL + GAP)
    assert pixels.shape[1] == GAP + 3 * (CELL + GAP)
    for row, column in np.ndindex(3, 3):  # no cell is blank
        height, width = pixels.shape[0] // 3, pixels.shape[1] // 3
        cell = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (cell.min(axis=2) < 250).mean() > 0.3
    lime = (pixels == [0, 255, 0]).all(axis=2).nonzero()[1]
    assert len(lime) > 100
    assert lime.min() >= pixels.shape[1] / 3  # boxes in the second column only
    assert lime.max() <= pixels.shape[1] * 2 / 3


def test_a_preview_of_nothing_says_why(place, tmp_path):
    assert main(place.arguments(tmp_path / "out.json", "--preview", 2, "--threshold", 0.999999)) == 1
    assert all(a["flagged"] for a in read(tmp_path / "out.json", masks=True)["annotations"])
    pixels = sheet_pixels(tmp_path / "out_preview.png")
    assert 0 < (pixels < 128).all(axis=2).mean() < 0.1  # a line of text


def test_lvis_files_name_images_by_address_and_keep_their_fields(place, tmp_path):
    coco = read(place.boxes, masks=False)
    folder = tmp_path / "images"
    for image in coco["images"]:
        split = "train2017" if image["id"] % 2 else "val2017"
        name = Path(image.pop("file_name")).name
        image |= {"coco_url": f"http://images.cocodataset.org/{split}/{name}", "neg_category_ids": [1]}
        image["not_exhaustive_category_ids"] = []
        (folder / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(place.images / name, folder / split)
    for category in coco["categories"]:
        category |= {"frequency": "r", "synset": "x.n.01"}
    write(tmp_path / "lvis.json", coco)
    labelled = place.label(tmp_path / "out.json", "--preview", 2, boxes=tmp_path / "lvis.json", images=folder)
    assert labelled["images"] == coco["images"]
    assert labelled["categories"] == coco["categories"]
    assert_same_masks(labelled, place.label(tmp_path / "plain.json"))
    assert (tmp_path / "out_preview.png").is_file()


def test_a_photograph_turned_by_its_exif_tag_is_previewed_as_it_was_labelled(place, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright: 60 wide and 90 high
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 90}
    coco = {"images": [image], "annotations": [GIVEN], "categories": [{"id": 1, "name": "cat"}]}
    write(tmp_path / "boxes.json", coco)
    place.label(tmp_path / "out.json", "--preview", 1, boxes=tmp_path / "boxes.json", images=tmp_path)
    np.testing.assert_array_equal(drawing.load_pixels(image, tmp_path), np.rot90(pixels, -1) / 255)


def test_what_misleads_is_said_and_labelled(place, tmp_path, capsys):
    coco = read(place.boxes, masks=False)
    coco["annotations"][0]["rotation"] = 30
    write(tmp_path / "boxes.json", coco)
    place.label(tmp_path / "out.json", boxes=tmp_path / "boxes.json")
    assert f"boxes is turned (rotation of annotations {coco['annotations'][0]['id']}: 30°)" in capsys.readouterr().err


def test_a_skipped_image_s_boxes_are_filled_and_flagged(place, tmp_path, capsys):
    folder = shutil.copytree(place.images, tmp_path / "images")
    coco = read(place.boxes, masks=False)
    bad = next(i for i in coco["images"] if i["id"] == coco["annotations"][0]["image_id"])
    (folder / bad["file_name"]).write_bytes(b"not an image")
    out = tmp_path / "out.json"
    assert main(place.arguments(out, images=folder)) == 1
    assert bad["file_name"] in capsys.readouterr().err
    labelled = place.label(out, "--on-bad-image", "skip", images=folder)
    assert bad["file_name"] in capsys.readouterr().err
    assert "unreadable_images" not in labelled
    pixels = np.zeros((bad["height"], bad["width"], 3), np.uint8)
    for annotation in labelled["annotations"]:
        if annotation["image_id"] == bad["id"]:
            filled = box.masks(pixels, np.array([annotation["bbox"]]))[0].pasted(*pixels.shape[:2])
            mask = masks({**labelled, "annotations": [annotation]})[annotation["id"]]
            assert annotation["flagged"]
            assert (mask & filled).sum() / (mask | filled).sum() > 0.85  # within a pixel's rounding


def other_inputs(place: Place, tmp_path: Path) -> dict[str, Path]:
    """Files that are not what they should be."""
    names = ("weights.pt", "list.pt", "old.pt", "noise.pt", "cut.pt", "nan.pt", "boxes.json")
    files = {name: tmp_path / name for name in names}
    save_checkpoint(files["weights.pt"], {"conv.weight": torch.zeros(3)})
    torch.save([1, 2], files["list.pt"])
    save_checkpoint(files["old.pt"], {"student": {}, "teacher": {}, "config": "encoder: {gone: 1}"})
    files["noise.pt"].write_bytes(b"noise")
    save_checkpoint(files["cut.pt"], load_checkpoint(place.checkpoint) | {"student": {}})
    student = load_checkpoint(place.checkpoint)["student"]
    lost = {
        name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for name, value in student.items()
    }
    save_checkpoint(files["nan.pt"], load_checkpoint(place.checkpoint) | {"student": lost})
    files["boxes.json"].write_text("{}")
    return files | {"absent": tmp_path / "absent"}


@pytest.mark.parametrize(
    ("option", "name", "sentence"),
    [
        ("checkpoint", "weights.pt", "is not a labeler; give the labeler.pt"),
        ("checkpoint", "list.pt", "is not a labeler; give the labeler.pt"),
        ("checkpoint", "old.pt", "another version of this program: Key 'gone' not in 'EncoderConfig'"),
        ("checkpoint", "noise.pt", "is not a readable checkpoint"),
        ("checkpoint", "cut.pt", "do not fit the network that it describes"),
        ("checkpoint", "nan.pt", "are NaN or infinite; copy the labeler.pt again"),
        ("checkpoint", "absent", "there is no checkpoint at"),
        ("boxes", "boxes.json", "has no images"),
        ("boxes", "absent", "there is no annotation file"),
        ("images", "absent", "there is no image folder"),
    ],
)
def test_an_input_that_cannot_be_used_is_a_sentence_and_exit_code_1(place, tmp_path, capsys, option, name, sentence):
    wrong = other_inputs(place, tmp_path)[name]
    assert main(place.arguments(tmp_path / "out.json", **{option: wrong})) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert str(wrong) in said.err
    assert sentence in said.err
    assert not list(tmp_path.glob("*out.json*"))


def test_a_missing_image_is_named_before_any_work(place, tmp_path, capsys):
    folder = shutil.copytree(place.images, tmp_path / "images")
    name = read(place.boxes, masks=False)["images"][-1]["file_name"]
    (folder / name).unlink()
    assert main(place.arguments(tmp_path / "out.json", images=folder)) == 1
    assert f"1 of 7 images are not in {folder}: {name}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize(
    ("kind", "out", "sentence"),
    [
        ("rle", "boxes.json", "is also --boxes, which would be overwritten"),
        ("rle", "images", "is a folder, and --format rle writes a file"),
        ("png", "images", "is also --images, which would be overwritten"),
        ("yolo", "boxes.json", "is a file, and --format yolo writes a folder"),
    ],
)
def test_nothing_of_the_users_is_overwritten(place, tmp_path, capsys, kind, out, sentence):
    folder = shutil.copytree(place.folder, tmp_path / "mine")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    arguments = place.arguments(folder / out, "--format", kind, images=folder / "images", boxes=folder / "boxes.json")
    assert main(arguments) == 1
    assert sentence in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--threshold", 1.5), "--threshold [1.5, 1.5, 1.5]"),
        (("--threshold", 0.1, 0.2), "--threshold [0.1, 0.2]"),
        (("--batch", 0), "--batch 0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(place, tmp_path, capsys, options, sentence):
    assert main(place.arguments(tmp_path / "out.json", *options)) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "many", "1.5"])
def test_a_preview_is_a_whole_number_of_examples(place, tmp_path, capsys, number):
    with pytest.raises(SystemExit) as left:
        main(place.arguments(tmp_path / "out.json", "--preview", number))
    assert left.value.code == 2
    assert f"{number} is no number of examples" in capsys.readouterr().err


def test_an_export_of_a_users_own_is_labelled_as_it_is(place, car_parts, tmp_path):
    """car_parts: a `_background_` category, bare file names, fields of the tool that wrote it."""
    coco = read(car_parts / "test" / "annotations.json", masks=False)
    coco["images"] = coco["images"][:2]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    write(tmp_path / "boxes.json", coco)
    inputs = {"images": car_parts / "test" / "JPEGImages", "boxes": tmp_path / "boxes.json"}
    labelled = place.label(tmp_path / "out.json", "--preview", 4, **inputs)
    assert "_background_" in [category["name"] for category in labelled["categories"]]
    assert {k: labelled[k] for k in coco if k != "annotations"} == {k: coco[k] for k in coco if k != "annotations"}
    for given, annotation in zip(coco["annotations"], labelled["annotations"], strict=True):
        changed = {k for k in given if given[k] != annotation[k]}
        assert changed <= {"segmentation", "area"}
    assert main(place.arguments(tmp_path / "yolo", "--format", "yolo", **inputs)) == 0
    names = [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]
    assert (tmp_path / "yolo" / "classes.txt").read_text().splitlines() == names
    assert {p.name for p in (tmp_path / "yolo").glob("car*.txt")} == {
        Path(image["file_name"]).with_suffix(".txt").name for image in coco["images"]
    }


@pytest.mark.slow
def test_the_command_line_ends_with_the_exit_code_and_no_traceback(place, tmp_path):
    command = [sys.executable, "-m", "mal.label"]
    arguments = place.arguments(tmp_path / "out.json", "--preview", "1")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=CONF.parents[1])
    assert (done.returncode, done.stdout.count("masks: ")) == (0, 1)
    failed = subprocess.run(
        [*command, *place.arguments(tmp_path / "b.json", checkpoint=place.boxes)],
        capture_output=True,
        text=True,
        cwd=CONF.parents[1],
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr


def test_the_parser_knows_every_format() -> None:
    assert tuple(export.FORMATS) == label.FORMATS
