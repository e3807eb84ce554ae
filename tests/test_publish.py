"""What is published is enough for the tables and figures, and nothing that should not be seen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.images import pictures
from analysis.publish.__main__ import IMAGES, PublishError, ancestors, is_procedural, main, named, publish
from analysis.publish.sanitise import clean, clean_record, leaks
from analysis.records import by_address, came_from, finished

DRAWN, TAKEN = "d" * 16, "e" * 16  # keys of procedural results, and of those of photographs


def add(
    store: Path, stage: str, key: str, *, inputs: Mapping[str, str] | None = None, files: Mapping[str, Any], **more: Any
) -> None:
    folder = store / stage / key
    folder.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, dict) and name.endswith(".npz"):
            np.savez_compressed(folder / name, **content)
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    record = {
        "stage": stage, "key": key, "version": 1, "status": "done",
        "columns": {"profile": "demo", "data": "shapes" if key == DRAWN else "cars"},
        "config": {"encoder": {"checkpoint": "/home/anna/weights/net.safetensors", "timm": "hf_hub:timm/net"}},
        "inputs": inputs or {}, "sources": {}, "metrics": {},
        "provenance": {"commit": "c0ffee", "host": "node7", "packages": {"opencv": "5.0.0.93"},
                       "hardware": {"cpu": "Xeon", "cores": 2, "platform": "Linux-6.1-node7"}},
        "command": "python /home/anna/run.py", **more,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record, indent=1))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Every kind of stage, once of procedural images and once of photographs."""
    root = tmp_path / "runs"
    names = [f"{number:06d}.png" for number in range(1, IMAGES + 7)]
    images = [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names, start=1)]
    add(root, "shapes_val", DRAWN, files={"annotations.json": {"images": images[::-1], "annotations": []}})
    (root / "shapes_val" / DRAWN / "images").mkdir()
    for place, name in enumerate(names):
        Image.new("RGB", (8, 8), (place, 0, 0)).save(root / "shapes_val" / DRAWN / "images" / name)
    sources = {"annotations": "ab", "images": "cd"}
    places = {"annotations": "/data/cars/val.json", "images": "/data/cars/val"}
    for key in (DRAWN, TAKEN):
        data = {"data": f"shapes_val/{DRAWN}"} if key == DRAWN else {}
        more = {} if key == DRAWN else {"sources": sources}
        scores = [{"image_id": 1, "score": score} for score in (0.9, 0.3, 0.29)]
        scores += [{"image_id": 2, "score": score} for score in (0.1, 0.2, 0.05)]
        numbers = {"matches_segm.npz": {"det_score": np.array([0.5])}}
        looked = {"pixels": np.zeros((1, 8, 8, 3), dtype=np.uint8), "maps": np.zeros(3)}
        labels = {"info": {"made_by": "/home/anna/label.py"}, "images": images, "annotations": [{"id": 1}]}
        boxes = {**more, "places": places} if more else {}
        add(root, "boxes_val", key, inputs=data, files={"boxes.json": {"secret": 1}}, **boxes)
        data = {**data, "boxes": f"boxes_val/{key}"}
        add(root, "train_labeler", key, inputs=data, files={"curves.jsonl": '{"step": 1}\n', "labeler.pt": "w"}, **more)
        data = {**data, "labeler": f"train_labeler/{key}"}
        add(root, "label_val", key, inputs=data, files={"labels.json": labels, "sheet.png": "drawn"}, **more)
        add(root, "quality_val", key, inputs={**data, "labels": f"label_val/{key}"}, **more,
            files={"instances.csv": "annotation_id,image_id,iou\n1,1,0.5\n"})  # fmt: skip
        add(root, "detect_val", key, inputs=data, files={"predictions.json": scores}, **more)
        add(root, "ap_val", key, inputs={"predictions": f"detect_val/{key}"}, files=numbers, **more)
        add(root, "attention_val", key, inputs=data, files={"attention.npz": looked, "attention.png": "drawn"}, **more)
        add(root, "detect_attentionshift", key, inputs=data, files={"predictions.json": scores}, **more)
        maps = {"classes": ["a", "b"], "images": [{**it, "map": f"maps/{it['file_name']}"} for it in images[::-1]]}
        for stage in ("semantic_val", "segment_val"):
            add(root, stage, key, inputs=data, files={"semantic.json": maps}, **more)
            (root / stage / key / "maps").mkdir()
            for name in names:
                Image.new("L", (8, 8), 1).save(root / stage / key / "maps" / name)
        counts = {"tp": np.ones((2, 2), dtype=np.int64), "image_ids": np.arange(2)}
        add(root, "miou_val", key, inputs={"maps": f"segment_val/{key}"}, **more,
            files={"iou.npz": counts, "classes.json": {"a": 1}})  # fmt: skip
        add(root, "parts_val", key, inputs=data, files={"parts.npz": {"mask": np.zeros((1, 8, 8), dtype=bool)}}, **more)
    return root


def published(store: Path, into: Path) -> Path:
    everything = finished(store)
    publish(everything, everything, store, into)
    return into


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_photographs_only_numbers_are_published(store: Path, tmp_path: Path) -> None:
    found = files(published(store, tmp_path / "out"))
    of_photographs = {name for name in found if TAKEN in name and not name.endswith("run.json")}
    assert of_photographs == {
        f"quality_val/{TAKEN}/instances.csv",
        f"ap_val/{TAKEN}/matches_segm.npz",
        f"train_labeler/{TAKEN}/curves.jsonl",
        f"miou_val/{TAKEN}/iou.npz",
    }
    record = json.loads(found[f"label_val/{TAKEN}/run.json"])
    assert record["published"] == {"left_out": "images, masks and predictions: they are not of procedural data"}


def test_of_procedural_data_labels_predictions_attention_and_some_images_are_published(
    store: Path, tmp_path: Path
) -> None:
    found = files(published(store, tmp_path / "out"))
    others = {name for name in found if DRAWN in name and not name.endswith("run.json") and not name.endswith(".png")}
    assert {name.replace(f"/{DRAWN}", "") for name in others} == {
        "quality_val/instances.csv", "ap_val/matches_segm.npz", "train_labeler/curves.jsonl", "label_val/labels.json",
        "detect_val/predictions.json", "attention_val/attention.npz", "shapes_val/annotations.json",
        "detect_attentionshift/predictions.json", "parts_val/parts.npz", "miou_val/iou.npz",
        "semantic_val/semantic.json", "segment_val/semantic.json",
    }  # fmt: skip
    images = sorted(name for name in found if "/images/" in name)
    assert images == [f"shapes_val/{DRAWN}/images/{number:06d}.png" for number in range(1, IMAGES + 1)]
    maps = [name for name in found if "/maps/" in name]
    assert len(maps) == 2 * IMAGES
    assert all(found[name] == (store / name).read_bytes() for name in [*images, *maps])
    listed = json.loads(found[f"segment_val/{DRAWN}/semantic.json"])["images"]
    assert [it["id"] for it in listed] == list(range(1, IMAGES + 1))


def test_what_was_left_out_stands_in_the_record(store: Path, tmp_path: Path) -> None:
    found = files(published(store, tmp_path / "out"))
    said = {
        stage: json.loads(found[f"{stage}/{DRAWN}/run.json"]).get("published") for stage in ("shapes_val", "ap_val")
    }
    assert said == {"shapes_val": {"images": f"the first {IMAGES} of {IMAGES + 6} by id"}, "ap_val": None}
    predictions = json.loads(found[f"detect_val/{DRAWN}/predictions.json"])
    assert [it["score"] for it in predictions] == [0.9, 0.3, 0.2]
    told = json.loads(found[f"detect_val/{DRAWN}/run.json"])["published"]
    assert told == {"predictions": "score >= 0.3, or the best of an image", "predictions_kept": "3 of 6"}


def test_the_same_store_gives_the_same_bytes_and_a_second_time_replaces_the_first(store: Path, tmp_path: Path) -> None:
    first = files(published(store, tmp_path / "out"))
    (tmp_path / "out/label_val" / TAKEN / "labels.json").write_text("{}")  # left by something else
    assert files(published(store, tmp_path / "out")) == first
    assert files(published(store, tmp_path / "other")) == first


def test_what_is_published_may_stay_and_what_comes_of_other_bits_says_so(store: Path, tmp_path: Path) -> None:
    """The same key ends elsewhere on another machine: its segmenter learned from masks that are not those published."""
    into = tmp_path / "out"
    everything = finished(store)
    publish([r for r in everything if r["stage"] == "label_val"], everything, store, into)
    before = files(into)
    for stage in ("train_labeler", "label_val"):
        path = store / stage / DRAWN / "run.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "metrics": {"iou": {"value": 0.5, "n": 1}}}))
    everything = finished(store)
    written = publish(everything, everything, store, into, keep=True)
    after = files(into)
    assert {name: after[name] for name in before} == before
    assert {path.relative_to(into).as_posix() for path in written} == {
        name.removesuffix("/run.json") for name in after.keys() - before.keys() if name.endswith("run.json")
    }
    for key, others in ((DRAWN, [f"train_labeler/{DRAWN}"]), (TAKEN, [])):
        for stage in ("quality_val", "detect_val", "ap_val"):
            assert came_from(json.loads(after[f"{stage}/{key}/run.json"])) == others, (stage, key)
    publish(everything, everything, store, into)
    assert not any(came_from(record) for record in finished(into)), "all is of one store again"


def test_nothing_published_names_a_path_a_user_or_a_host(store: Path, tmp_path: Path) -> None:
    everything = b"\n".join(
        data for name, data in files(published(store, tmp_path / "out")).items() if "png" not in name
    )
    for word in (b"/home", b"anna", b"node7", b"/data", b"places", b"Linux"):
        assert word not in everything
    assert b'"checkpoint": "net.safetensors"' in everything
    assert b"hf_hub:timm/net" in everything  # a name, not a path
    assert b'"opencv": "5.0.0.93"' in everything


def test_the_published_folder_reads_like_a_store(store: Path, tmp_path: Path) -> None:
    into = published(store, tmp_path / "out")
    known = by_address(finished(into))
    assert known.keys() == by_address(finished(store)).keys()
    where = pictures(known[f"label_val/{DRAWN}"], known, into)
    assert where is not None
    assert where.images == into / "shapes_val" / DRAWN / "images"
    assert pictures(known[f"label_val/{TAKEN}"], known, into) is None


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('{"a": "/scratch/me/x.pt"}', True),
        ('{"a": "see /home/anna for more"}', True),
        ('{"a": "C:\\\\data\\\\x"}', True),
        ('{"a": "../shared/x"}', True),
        ('{"a": "http://node7:5000/x"}', True),
        ('{"a": "10.0.0.7:5000"}', True),
        ('{"a": "5.0.0.93", "b": "1/2", "c": "hf_hub:timm/x", "d": "and/or"}', False),
        ('{"segmentation": {"counts": "h:1\\\\0oYZ`_^]\\\\[;<=>?@QAOA"}}', False),
        ('{"segmentation": {"counts": "k:\\\\2d51O0001"}, "size": [5, 5]}', False),
        ('{"counts":"k:\\\\2d51O0001"}', False),
        ('{"counts": "C:\\\\Users"}', True),
        ('{"counts": "/home/nobody"}', True),
    ],
)
def test_a_search_finds_paths_and_addresses_and_nothing_else(tmp_path: Path, text: str, seen: bool) -> None:
    (tmp_path / "x.json").write_text(text)
    assert bool(leaks(tmp_path)) == seen


def test_a_search_finds_the_machines_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    (tmp_path / "x.csv").write_text("a\nnode7\n")
    (tmp_path / "y.csv").write_text("a\nnode70\n")
    assert leaks(tmp_path) == ["x.csv holds the name of this machine or its user"]


def test_a_search_finds_pictures_pixels_and_text_in_arrays(tmp_path: Path) -> None:
    for name in ("label_val/k/sheet.png", "shapes_val/k/images/000001.png", "shapes_val/k/images/photo.jpg", "a.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    np.savez(tmp_path / "pixels.npz", pixels=np.zeros(3))
    np.savez(tmp_path / "text.npz", names=np.array(["/home/anna"]))
    assert {line.partition(" ")[0] for line in leaks(tmp_path)} == {
        "label_val/k/sheet.png", "shapes_val/k/images/photo.jpg", "a.pt", "pixels.npz", "text.npz",
    }  # fmt: skip


def test_what_leaks_all_the_same_is_not_published_at_all(store: Path, tmp_path: Path) -> None:
    (store / "quality_val" / TAKEN / "instances.csv").write_text("annotation_id,iou\n1,/home/anna/x\n")
    with pytest.raises(PublishError, match=r"nothing was published: quality_val/e+/instances\.csv holds a path"):
        published(store, tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_data_is_procedural_only_where_nothing_else_is_behind_it(store: Path) -> None:
    known = by_address(finished(store))
    assert is_procedural(known[f"attention_val/{DRAWN}"], known)
    assert not is_procedural(known[f"attention_val/{TAKEN}"], known)
    mixed = {**known[f"label_val/{DRAWN}"], "inputs": {"a": f"shapes_val/{DRAWN}", "b": f"train_labeler/{TAKEN}"}}
    assert not is_procedural(mixed, known)
    unknown = {**mixed, "inputs": {"a": f"shapes_val/{DRAWN}", "b": "train_labeler/absent"}}
    assert not is_procedural(unknown, known)


def test_a_result_brings_all_that_it_comes_from(store: Path, tmp_path: Path) -> None:
    everything = finished(store)
    (wanted,) = named(everything, [f"ap_val/{DRAWN}"])
    folders = publish([wanted], everything, store, tmp_path / "out")
    expected = {f"{stage}/{DRAWN}" for stage in ("ap_val", "detect_val", "train_labeler", "boxes_val", "shapes_val")}
    assert {folder.relative_to(tmp_path / "out").as_posix() for folder in folders} == expected
    assert set(ancestors(wanted, by_address(everything))) == expected


def test_cleaning_keeps_a_paths_last_part_and_all_else() -> None:
    value = {"a": ["/x/y.pt", "~/z", "..\\w"], "b": {"c": "s3://host/bucket/k.json"}, "d": 1.5, "e": None, "f": "a/b"}
    assert clean(value) == {"a": ["y.pt", "z", "..\\w"], "b": {"c": "k.json"}, "d": 1.5, "e": None, "f": "a/b"}
    record = {"stage": "s", "key": "k", "provenance": {"hardware": {"cpu": "Xeon", "node": "n7"}}, "unknown": 1}
    assert clean_record(record) == {"stage": "s", "key": "k", "provenance": {"hardware": {"cpu": "Xeon"}}}


def test_the_command_says_what_to_name(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = ["--store", str(store), "--into", str(tmp_path / "out")]
    assert main(into) == 1
    assert "say what to publish" in capsys.readouterr().err
    assert main(["nothing", *into]) == 1
    assert "no finished result is called nothing" in capsys.readouterr().err
    assert main(["--data", "none", *into]) == 1
    assert "no finished result fits" in capsys.readouterr().err
    assert main(["--data", "shapes", *into]) == 0
    assert "stages in" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob(f"*/{TAKEN}"))


def test_a_stage_with_a_missing_file_is_named(store: Path, tmp_path: Path) -> None:
    (store / "label_val" / DRAWN / "labels.json").unlink()
    with pytest.raises(PublishError, match=r"label_val/d+ is not whole"):
        published(store, tmp_path / "out")


def test_a_copy_cut_off_is_not_whole(store: Path, tmp_path: Path) -> None:
    path = store / "ap_val" / DRAWN / "matches_segm.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PublishError, match=r"matches_segm\.npz cannot be read"):
        published(store, tmp_path / "out")


def test_text_in_arrays_is_searched_as_text_is(tmp_path: Path) -> None:
    folder = tmp_path / "looks_val" / ("0" * 16)
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "looks.npz", expressions=np.array(["the red star", "der grüne Mond"]))
    assert leaks(tmp_path) == []
    np.savez_compressed(folder / "looks.npz", expressions=np.array(["the red star", "/home/somebody/red.jpg"]))
    (found,) = leaks(tmp_path)
    assert "looks.npz (expressions) holds a path" in found
    np.savez_compressed(folder / "looks.npz", expressions=np.array([b"bytes"]))
    (found,) = leaks(tmp_path)
    assert "neither numbers nor text in expressions" in found
