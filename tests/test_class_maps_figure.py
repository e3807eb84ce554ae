"""Figures of class maps: which runs and images they show, in which colours, and what may not be shown."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_figure_numbers import record

from analysis.figures import draw_all
from analysis.figures.class_maps import BASE, NOVEL, method_name, one_run, palette, retrained, shrunk
from analysis.figures.drawn import Sketch, styled
from analysis.figures.results import Results
from analysis.records import finished
from mal.data.semantic import FILE, MappedImage, SemanticFile, write_map, write_semantic

SIDE, GREY, COUNT = 8, 100, 14
CLASSES = ("wheel", "door", "ground")
PLACE = {"data": "shapes12", "profile": "smoke"}
RUN = {
    **PLACE, "seed": 0, "labeler": "simformer", "encoder": "mobilenetv2", "split": "P1", "novel": 1, "pairs": "cross",
    "points": 50, "complement": True, "student": "across", "supervision": "weak", "pseudo": "none",
}  # fmt: skip
RUNS = {"plain": {}, "own": {"pseudo": "own"}, "cam": {"pseudo": "cam", "pairs": "none"}}


def truth(image: int) -> np.ndarray:
    """A column of each class and one unlabelled; novel (class 1) in every other image alone."""
    values = np.full((SIDE, SIDE), 2, dtype=np.uint8)
    values[:, :2], values[:, 6:] = 0, 255
    values[:, 2:4] = 1 if image % 2 == 0 else 2
    return values


def write_maps(folder: Path, maps: Iterable[np.ndarray]) -> None:
    images = []
    for place, values in enumerate(maps):
        images.append(MappedImage(place + 1, f"{place + 1}.png", SIDE, SIDE, f"maps/{place + 1:06}.png"))
        write_map(folder / images[-1].map, values)
    write_semantic(folder / FILE, SemanticFile(CLASSES, tuple(images), folder=folder))


def write_run(root: Path, key: str, value: int, **columns: Any) -> None:
    """A run that predicts one class everywhere, and its novel mIoU."""
    columns = RUN | columns
    made = [
        record("train_simformer", key, inputs=["semantic_train/t"], **columns),
        record("segment_val", key, inputs=[f"train_simformer/{key}", "semantic_val/v"], **columns),
        record("miou_val", key, inputs=[f"segment_val/{key}", "semantic_val/v"], config={"novel": [1]}, **columns),
    ]
    made[-1]["metrics"] = {"novel_miou": {"value": 0.125, "n": COUNT}}
    for one in made:
        add(root, one)
    write_maps(root / "segment_val" / key, [np.full((SIDE, SIDE), value, dtype=np.uint8)] * COUNT)


def add(root: Path, one: dict[str, Any]) -> None:
    folder = root / one["stage"] / one["key"]
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(one))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Drawn images, of which 2, 4, … have no novel pixels, and three runs on them."""
    root = tmp_path / "runs"
    add(root, record("shapes_val", "s", **PLACE))
    add(root, record("semantic_val", "v", inputs=["shapes_val/s"], **PLACE))
    images = root / "shapes_val" / "s" / "images"
    images.mkdir()
    for place in range(COUNT):
        Image.fromarray(np.full((SIDE, SIDE, 3), GREY, dtype=np.uint8)).save(images / f"{place + 1}.png")
    entries = [{"id": i + 1, "file_name": f"{i + 1}.png", "width": SIDE, "height": SIDE} for i in range(COUNT)]
    (images.parent / "annotations.json").write_text(
        json.dumps({"images": entries, "annotations": [], "categories": []})
    )
    write_maps(root / "semantic_val" / "v", map(truth, range(COUNT)))
    for value, (key, columns) in enumerate(RUNS.items()):
        write_run(root, key, value, **columns)
    return root


def drawn(store: Path, draw, *, redistributable: bool = False) -> Sketch:
    with styled():
        (sketch,) = draw(Results.of(store, finished(store), redistributable=redistributable))
    return sketch


def pictures(sketch: Sketch) -> list[list[np.ndarray]]:
    """Rows of what a figure shows."""
    assert sketch.figure is not None, sketch.left_out
    columns = len([axes for axes in sketch.figure.axes if axes.get_title()])
    shown = [np.asarray(axes.images[0].get_array()) for axes in sketch.figure.axes]
    return [shown[start : start + columns] for start in range(0, len(shown), columns)]


def titles(sketch: Sketch) -> list[str]:
    assert sketch.figure is not None, sketch.left_out
    return [axes.get_title() for axes in sketch.figure.axes if axes.get_title()]


def test_starred_runs_stand_beside_the_truth_in_the_colours_of_their_classes(store: Path) -> None:
    sketch = drawn(store, retrained(ade=False))
    score = "novel mIoU 12.5 %"
    assert titles(sketch) == ["image", "truth", "base and novel", f"cam*\n{score}", f"SimFormer*\n{score}"]
    colours, rows = palette(3), pictures(sketch)
    assert len(rows) == 6
    for photo, true, kinds, cam, own in rows:
        np.testing.assert_allclose(photo, GREY / 255)
        for value, kind in enumerate((BASE, NOVEL, BASE)):
            place = slice(2 * value, 2 * value + 2)
            np.testing.assert_allclose(true[:, place], np.broadcast_to(colours[value], (SIDE, 2, 3)))
            np.testing.assert_allclose(kinds[:, place], np.broadcast_to(kind, (SIDE, 2, 3)))
        for unlabelled in (true[:, 6:], kinds[:, 6:]):
            assert (unlabelled == 0).all()
        np.testing.assert_allclose(cam, np.broadcast_to(colours[2], cam.shape))  # the class that each predicts
        np.testing.assert_allclose(own, np.broadcast_to(colours[1], own.shape))
    assert [patch.get_text() for patch in sketch.figure.legends[0].get_texts()] == ["wheel", "door (novel)", "ground"]
    assert sketch.left_out == ("complement*: not in the store for split P1, seed 0",)


def test_the_sheet_shows_images_with_novel_pixels_of_all_stretches_of_the_file(store: Path) -> None:
    maps = [truth(place) for place in range(COUNT)]
    for place, shade in enumerate(range(10, 10 + COUNT)):  # each image has a grey of its own
        path = store / "shapes_val" / "s" / "images" / f"{place + 1}.png"
        Image.fromarray(np.full((SIDE, SIDE, 3), shade, dtype=np.uint8)).save(path)
    sketch = drawn(store, one_run)
    places = [round(row[0].flat[0] * 255) - 10 for row in pictures(sketch)]
    assert places == [0, 4, 6, 8, 10, 12]  # stretches begin at 0, 3, 6, 8, 10, 12
    assert all((maps[place] == 1).any() for place in places)
    assert titles(sketch)[3:] == ["SimFormer*\nnovel mIoU 12.5 %"]
    assert sketch.left_out == ("2 other runs on this data",)
    assert "J = 50, CompLoss on, student across" in sketch.caption


def test_runs_beside_each_other_are_of_one_split_and_seed(store: Path) -> None:
    for key, columns in {"a": {"pseudo": "complement"}, "b": {"pseudo": "cam"}, "c": {"pseudo": "own"}}.items():
        write_run(store, key, 0, **columns, split="P2")
    write_run(store, "d", 0, pseudo="complement", seed=1)
    sketch = drawn(store, retrained(ade=False))
    assert [title.partition("\n")[0] for title in titles(sketch)[3:]] == ["cam*", "complement*", "SimFormer*"]
    assert "split P2" in sketch.caption
    assert sketch.left_out == ()


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({}, "SimFormer"),
        ({"pseudo": "own"}, "SimFormer*"),
        ({"pseudo": "complement", "pairs": "none"}, "complement*"),
        ({"supervision": "oracle", "pairs": "none"}, "all masks"),
    ],
)
def test_a_run_is_called_by_what_it_learned_from(columns: dict[str, Any], name: str) -> None:
    assert method_name(record("miou_val", "x", **(RUN | columns))) == name


def test_photographs_without_a_licence_stay_out_of_what_is_passed_on(store: Path, tmp_path: Path) -> None:
    """Class maps in a folder state no licences at all."""
    photos = store / "shapes_val" / "s" / "images"
    given = tmp_path / "given"
    write_maps(given, map(truth, range(COUNT)))
    one = record("semantic_val", "v", **PLACE)
    one |= {"sources": {"annotations": "1"}, "places": {"annotations": f"{given / FILE}", "images": f"{photos}"}}
    (store / "semantic_val" / "v" / "run.json").write_text(json.dumps(one))
    assert len(pictures(drawn(store, one_run))) == 6
    hidden = drawn(store, one_run, redistributable=True)
    assert hidden.figure is None
    assert hidden.left_out == (f"none of the {COUNT} photographs states a licence to pass it on",)


def test_figures_are_written_and_what_is_missing_is_named(store: Path, tmp_path: Path) -> None:
    first, second, sheet = draw_all(store, tmp_path, ["simformer_fig1", "simformer_fig2", "class_maps"])
    assert [one.png and one.png.name for one in (first, second, sheet)] == [
        "simformer_fig1_shapes12_smoke.png", None, "class_maps_shapes12_smoke.png",
    ]  # fmt: skip
    assert "experiment=simformer/fig2 profile=paper" in second.reason
    (store / "segment_val" / "own" / FILE).unlink()
    (one,) = draw_all(store, tmp_path, ["simformer_fig1"])
    assert one.png is None
    assert "segment_val/own" in one.reason


def test_colours_of_classes_differ_and_a_small_map_keeps_its_values() -> None:
    for classes in (12, 19, 171):
        found = palette(classes)
        assert len({tuple(colour) for colour in found[:classes].round(3).tolist()}) == classes
        assert (found[classes:] == 0).all()
        assert (found[:classes].max(axis=1) > 0.5).all()  # none is black
    values = np.zeros((700, 900), dtype=np.uint8)
    values[:, 450:] = 255
    small = shrunk(values)
    assert (small.shape, set(np.unique(small))) == ((249, 320), {0, 255})
    assert (small[:, 160:] == 255).all()
