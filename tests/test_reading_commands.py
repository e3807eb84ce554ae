"""What people feed it, through whole runs: read alike by every stage, or refused before anything is computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import read
from mal.engine import notes
from mal.errors import MalError
from mal.run import run

Compose = Callable[..., Config]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    notes._known[:] = bytes(notes._PLACES)
    shapes.generate(tmp_path / "data", images=4, size=96, seed=3, split="val")
    return tmp_path / "data"


def fed(folder: Path, coco: Any, encoding: str = "utf-8") -> list[str]:
    """Both splits are this file and the drawn images: the settings that say so."""
    (folder / "user.json").write_bytes(json.dumps(coco).encode(encoding))
    splits = [f"data.{split}.{part}" for split in ("train", "val") for part in ("annotations", "images")]
    paths = [folder / "user.json", folder / "images"] * 2
    return [f"{name}={path}" for name, path in zip(splits, paths, strict=True)]


def settings(tmp_path: Path, *more: str) -> list[str]:
    common = ["profile=smoke", "data=coco", "tracking=none", "labeler=box", "compare=[]", "device=cpu"]
    return [*common, f"store={tmp_path / 'runs'}", *more]


def metrics(tmp_path: Path, stage: str) -> dict[str, float]:
    (path,) = (tmp_path / "runs").glob(f"{stage}/*/run.json")
    return json.loads(path.read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_run_reads_a_windows_file_to_its_end(tmp_path: Path, drawn: Path, compose: Compose, encoding: str) -> None:
    coco = read(drawn / "annotations.json", masks=True)
    more = ("segmenter=none", "data.on_bad_image=skip")
    run(compose(*settings(tmp_path, *more, *fed(drawn, coco, encoding))))
    assert metrics(tmp_path, "label_val")["labels"]["value"] == len(coco["annotations"])
    assert list((tmp_path / "runs").glob("**/sheet.png"))


@pytest.mark.slow
@pytest.mark.parametrize("labeler", ["box", "gt"])
def test_left_over_annotations_count_nowhere(
    tmp_path: Path, drawn: Path, compose: Compose, labeler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = read(drawn / "annotations.json", masks=True)
    more = ("segmenter=none", f"labeler={labeler}")
    run(compose(*settings(tmp_path / "plain", *more, *fed(drawn, coco))))
    left = {"image_id": coco["images"][0]["id"], "category_id": 1, "bbox": [0, 0, 0, 0], "segmentation": [], "area": 0}
    coco["annotations"] += [{**left, "id": 900}, {**left, "id": 901}]
    coco["images"][0] |= {"width": 96.0, "height": 96.0}
    run(compose(*settings(tmp_path / "odd", *more, *fed(drawn, coco))))
    assert metrics(tmp_path / "plain", "quality_val") == metrics(tmp_path / "odd", "quality_val")
    said = capsys.readouterr().out
    assert said.count(f"2 of {len(coco['annotations'])} annotations have a box without area and no mask") == 2  # splits
    assert "no wider or no higher" not in said


@pytest.mark.parametrize(
    ("labeler", "side"), [("box", 3_000), ("gt", 3_000), ("box", 50_000), ("gt", 50_000), ("ellipse", 1_000_000)]
)
def test_a_claimed_size_is_refused_by_every_labeler(
    tmp_path: Path, drawn: Path, compose: Compose, labeler: str, side: int
) -> None:
    coco = read(drawn / "annotations.json", masks=True)
    image = coco["images"][2]
    image |= {"width": side, "height": side}
    for annotation in coco["annotations"]:
        if annotation["image_id"] == image["id"]:
            annotation["segmentation"] = {"size": [side, side], "counts": [side * side - 9, 9]}
    config = compose(*settings(tmp_path, "segmenter=none", f"labeler={labeler}", *fed(drawn, coco)))
    with pytest.raises(MalError, match=rf"(?s)image {image['id']}.*{side}.*; "):
        run(config)


def test_names_and_folders_are_refused_before_anything_is_computed(
    tmp_path: Path, drawn: Path, compose: Compose
) -> None:
    coco = read(drawn / "annotations.json", masks=True)
    coco["images"][1]["file_name"] = "https://host.example/" + coco["images"][1]["file_name"] + "?sig=" + "a" * 300
    with pytest.raises(MalError, match=r"1 of 4 images are not in .*address of .*write that into file_name"):
        run(compose(*settings(tmp_path, "segmenter=none", *fed(drawn, coco))))
    plain = fed(drawn, read(drawn / "annotations.json", masks=True))
    for images, words in ((drawn / "user.json", "is a file, not an image folder"), ("https://host/x", "is an address")):
        with pytest.raises(MalError, match=rf"data\.val\.images=.*{words}"):
            run(compose(*settings(tmp_path, "segmenter=none", *plain, f"data.val.images={images}")))


@pytest.mark.slow
def test_deep_images_are_labelled_and_drawn(tmp_path: Path, drawn: Path, compose: Compose) -> None:
    coco = read(drawn / "annotations.json", masks=True)
    for image in coco["images"]:
        pixels = np.asarray(Image.open(drawn / "images" / image["file_name"]).convert("L"))
        image["file_name"] = str(Path(image["file_name"]).with_suffix(".tif"))
        Image.fromarray(pixels.astype(np.uint16) * 16).save(drawn / "images" / image["file_name"])
    run(compose(*settings(tmp_path, "segmenter=none", "labeler=grabcut", *fed(drawn, coco))))
    (sheet,) = {path.read_bytes() for path in (tmp_path / "runs").glob("**/sheet.png")}
    assert sheet
