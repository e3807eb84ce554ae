"""Images as part of a key: by content, cheaply, wherever they lie and whatever lies beside them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from mal.data.config import DataConfig, SplitConfig
from mal.data.sources import files_split
from mal.engine.files import sha256
from mal.engine.graph import in_order
from mal.engine.store import Fingerprints, Store, fingerprints
from mal.errors import AnnotationError, ImageError
from mal.request import Graph

NAMES = [f"{number}.png" for number in range(5)]


@pytest.fixture(autouse=True)
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read through; times of files written this moment are trusted."""
    seen: list[str] = []

    def counted(path: str) -> str:
        seen.append(Path(path).name)
        return sha256(path)

    monkeypatch.setattr(fingerprints, "SETTLED_NS", -1)
    monkeypatch.setattr(fingerprints, "sha256", counted)
    return seen


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate([*NAMES, "more/0.png"]):
        (folder / name).write_bytes(bytes([number]) * 100)
    return folder


def prints(tmp_path: Path) -> Fingerprints:
    """As a later command has them."""
    return Fingerprints(tmp_path / "runs")


def test_unchanged_images_are_read_once(tmp_path: Path, photos: Path, reads: list[str]) -> None:
    first = prints(tmp_path).images(photos, NAMES)
    assert sorted(reads) == NAMES
    assert prints(tmp_path).images(photos, list(reversed(NAMES))) == first
    assert prints(tmp_path).images(photos, NAMES * 2) == first
    assert len(reads) == 5


def test_only_the_images_that_changed_are_read_again(tmp_path: Path, photos: Path, reads: list[str]) -> None:
    first = prints(tmp_path).images(photos, NAMES)
    reads.clear()
    (photos / "3.png").write_bytes(b"another picture" * 10)
    second = prints(tmp_path).images(photos, NAMES)
    assert reads == ["3.png"]
    assert second != first
    (photos / "3.png").write_bytes(bytes([3]) * 100)
    assert prints(tmp_path).images(photos, NAMES) == first, "what was there before is known by its content"


@pytest.mark.parametrize("same_size", [True, False])
def test_an_image_replaced_behind_its_times_is_noticed(tmp_path: Path, photos: Path, same_size: bool) -> None:
    first, path = prints(tmp_path).images(photos, NAMES), photos / "2.png"
    times = path.stat()
    time.sleep(0.02)
    (photos / "new").write_bytes(b"x" * (100 if same_size else 101))
    os.utime(photos / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(photos / "new", path)
    assert prints(tmp_path).images(photos, NAMES) != first


def test_touched_copied_and_moved_images_have_the_digest_they_had(tmp_path: Path, photos: Path) -> None:
    first = prints(tmp_path).images(photos, NAMES)
    for name in NAMES:
        os.utime(photos / name, (1, 1))
    assert prints(tmp_path).images(photos, NAMES) == first
    shutil.copytree(photos, tmp_path / "copy")
    assert prints(tmp_path).images(tmp_path / "copy", NAMES) == first
    photos.rename(tmp_path / "elsewhere")
    assert Fingerprints(tmp_path / "another store").images(tmp_path / "elsewhere", NAMES) == first


def test_names_and_contents_both_count(tmp_path: Path, photos: Path) -> None:
    of = lambda *names: prints(tmp_path).images(photos, names)  # noqa: E731
    assert len({of("0.png"), of("1.png"), of("0.png", "1.png"), of("more/0.png"), of()}) == 5
    before = of("0.png", "1.png")
    (photos / "0.png").rename(photos / "x")
    (photos / "1.png").rename(photos / "0.png")
    (photos / "x").rename(photos / "1.png")
    assert of("0.png", "1.png") != before


def test_two_lists_of_one_folder_do_not_displace_each_other(tmp_path: Path, photos: Path, reads: list[str]) -> None:
    lists = (NAMES[:3], NAMES[2:])
    first = [prints(tmp_path).images(photos, names) for names in lists]
    reads.clear()
    assert [prints(tmp_path).images(photos, names) for names in lists] == first
    assert reads == []


def test_whole_paths_are_names_too(tmp_path: Path, photos: Path) -> None:
    first = prints(tmp_path).images(photos, [str(photos / "0.png")])
    (photos / "0.png").write_bytes(b"another")
    assert prints(tmp_path).images(photos, [str(photos / "0.png")]) != first


def test_a_missing_image_is_named(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no image at .*photos/9\.png"):
        prints(tmp_path).images(photos, [*NAMES, "9.png"])


@pytest.mark.parametrize("name", ["\ud800.png", "x" * 300 + ".png", "a\0b"])
def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path: Path, photos: Path, name: str) -> None:
    with pytest.raises(ImageError, match="cannot open the image"):
        prints(tmp_path).images(photos, [name])


def test_what_the_system_does_not_let_us_read_is_an_error_or_skipped(tmp_path: Path, photos: Path) -> None:
    (photos / "9.png").mkdir()  # root may read any file
    with pytest.raises(ImageError, match=r"cannot open the image .*9\.png \(Is a directory\)"):
        prints(tmp_path).images(photos, [*NAMES, "9.png"])
    first = prints(tmp_path).images(photos, [*NAMES, "9.png"], skip_unreadable=True)
    (photos / "9.png").rmdir()
    (photos / "9.png").write_bytes(b"mended")
    assert prints(tmp_path).images(photos, [*NAMES, "9.png"], skip_unreadable=True) != first


def test_an_interrupted_reading_goes_on_where_it_was(
    tmp_path: Path, photos: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: str) -> str:
        if path.endswith("3.png"):
            raise KeyboardInterrupt
        return sha256(path)

    monkeypatch.setattr(fingerprints, "BATCH", 1)
    counted = fingerprints.sha256
    monkeypatch.setattr(fingerprints, "sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prints(tmp_path).images(photos, NAMES)
    monkeypatch.setattr(fingerprints, "sha256", counted)
    prints(tmp_path).images(photos, NAMES)
    assert sorted(reads) == ["3.png", "4.png"]


@pytest.mark.parametrize("text", ["", "[" * 200_000, "[1]", '{"0.png": 3, "states": 1, "content": 2}', "\0\xff"])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, photos: Path, text: str) -> None:
    one = prints(tmp_path)
    (tmp_path / "file").write_text("x")
    first = one.images(photos, NAMES), one.file(tmp_path / "file"), one.derived("what", "a" * 64, lambda: 7)
    for path in [one.cache, *one.folder.iterdir()]:
        path.write_text(text)
    again = prints(tmp_path)
    assert (
        again.images(photos, NAMES),
        again.file(tmp_path / "file"),
        again.derived("what", "a" * 64, lambda: 7),
    ) == first


def test_a_store_that_cannot_be_written_still_tells_the_digest(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the store should be")
    assert Fingerprints(tmp_path / "blocked").images(photos, NAMES) == prints(tmp_path).images(photos, NAMES)


def test_progress_is_shown_when_much_is_read(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prints(tmp_path).images(photos, NAMES[:1])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fingerprints, "SHOWN_FROM", 300)
    prints(tmp_path).images(photos, NAMES)
    assert "4/4 images" in capsys.readouterr().err


def test_what_follows_from_a_content_is_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []
    compute = lambda: calls.append(1) or {"masks": [1, 2]}  # noqa: E731
    for content in ("a" * 64, "a" * 64, "b" * 64):
        assert prints(tmp_path).derived("census", content, compute) == {"masks": [1, 2]}
    assert len(calls) == 2


@pytest.mark.slow
def test_118000_unchanged_images_cost_about_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"{number:012}.jpg" for number in range(118_000)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    first = prints(tmp_path).images(folder, names)
    started = time.process_time()
    assert prints(tmp_path).images(folder, names) == first
    assert time.process_time() - started < 4  # 1 on a quiet core
    assert len(list((tmp_path / "runs/fingerprints").iterdir())) == 2


# A split


def data_set(root: Path, *, colour: str = "orange") -> DataConfig:
    """Discs on green, and a file of their boxes; drawn anew where they are already."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in (1, 2, 3):
        picture = Image.new("RGB", (64, 48), (80, 100, 80))
        picture.paste(colour, (10 * number, 10, 10 * number + 20, 30))
        picture.save(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        box = [10 * number, 10, 20, 20]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    categories = [{"id": 1, "name": "disc"}]
    if not (root / "boxes.json").exists():
        (root / "boxes.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return DataConfig(format="coco", train=SplitConfig(str(root / "boxes.json"), str(root / "images")))


def sources(data: DataConfig, tmp_path: Path) -> dict[str, str]:
    split = files_split("train", data, prints(tmp_path))
    assert split is not None
    return dict(split.sources)


def test_images_replaced_under_their_names_give_every_stage_another_key(compose, tmp_path: Path) -> None:
    def keys() -> list[str]:
        root = tmp_path / "data"
        options = [f"data.train.annotations={root}/boxes.json", f"data.train.images={root}/images"]
        config = compose("profile=smoke", "data=coco", "segmenter=none", *options, f"store={tmp_path / 'runs'}")
        stages = in_order(Graph(config, Store(tmp_path / "runs"), torch.device("cpu")).targets())
        return [stage.address for stage in stages]

    data_set(tmp_path / "data", colour="black")
    first = keys()
    assert keys() == first
    data_set(tmp_path / "data", colour="orange")
    assert not set(keys()) & set(first)
    data_set(tmp_path / "data", colour="black")
    assert keys() == first, "the old results are there for the old images"


def test_what_the_annotation_file_does_not_name_does_not_count(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    before = sources(data, tmp_path)
    for name in ("notes.txt", "another.jpg", "boxes.json"):
        (tmp_path / "data/images" / name).write_text("{}")
    assert sources(data, tmp_path) == before


def test_a_moved_data_set_has_the_sources_it_had(tmp_path: Path) -> None:
    before = sources(data_set(tmp_path / "data"), tmp_path)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert sources(data_set(tmp_path / "moved"), tmp_path) == before


def test_missing_images_are_counted_before_anything_is_computed(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    for number in (1, 3):
        (tmp_path / f"data/images/{number}.png").unlink()
    with pytest.raises(ImageError, match=r"2 of 3 images are not in .*images: 1\.png, 3\.png"):
        sources(data, tmp_path)


def test_a_broken_annotation_file_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    (tmp_path / "data/boxes.json").write_text('{"images": [')
    with pytest.raises(AnnotationError, match=r"boxes\.json ends in the middle"):
        sources(data, tmp_path)
