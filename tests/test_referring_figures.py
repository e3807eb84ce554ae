"""Figures of Partial-RES: which runs and expressions they show, and the numbers in their captions."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet
from referring_store import (
    ANGLES,
    COUNT,
    FULL,
    HEIGHT,
    WIDTH,
    add,
    contour,
    inside,
    uncompressed,
    write_images,
    write_run,
)
from test_figure_numbers import record

from analysis.figures import draw_all
from analysis.figures.drawn import Sketch, styled
from analysis.figures.referring_attention import attention
from analysis.figures.referring_contours import contours
from analysis.figures.referring_fractions import fractions
from analysis.figures.referring_looks import gap_variation, mass
from analysis.figures.referring_sheet import answered, expressions, shrunk
from analysis.figures.results import Results
from analysis.records import finished

KINDS = ["partialres_fig1", "partialres_fig2", "partialres_fig3", "expressions"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Naive networks and such with all parts, on drawn images."""
    root = tmp_path / "runs"
    write_images(root)
    write_run(root, "full", 0.5, **FULL)
    write_run(root, "naive", 0.4)
    return root


def drawn(store: Path, draw: Callable[[Results], Iterable[Sketch]], *, redistributable: bool = False) -> Sketch:
    with styled():
        (sketch,) = draw(Results.of(store, finished(store), redistributable=redistributable))
    return sketch


def titles(sketch: Sketch) -> list[str]:
    assert sketch.figure is not None, sketch.left_out
    return [text for axes in sketch.figure.axes if (text := axes.get_title())]


def headings(sketch: Sketch) -> list[str]:
    """Of the parts of a figure, in their order on the page."""
    assert sketch.figure is not None, sketch.left_out
    return [part.get_suptitle() for part in sketch.figure.subfigs]


def labels(sketch: Sketch) -> list[str]:
    assert sketch.figure is not None, sketch.left_out
    return [axes.get_ylabel() for axes in sketch.figure.axes if axes.get_ylabel()]


def box(image: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the pixels of a human mask: x, y."""
    rows, columns = inside(image).nonzero()
    return np.array([columns.min(), columns.max() + 1]), np.array([rows.min(), rows.max() + 1])


# --- Figure 1 --------------------------------------------------------------------------------------------------------


def test_iou_stands_over_the_share_of_the_masks_and_over_the_trainings_at_its_ends(tmp_path: Path) -> None:
    for percent, gain in ((1.0, 0.0), (10.0, 0.1), (100.0, 0.2)):
        for seed in (0, 1):
            write_run(tmp_path, f"n{percent:g}{seed}", 0.4 + gain + 0.02 * seed, percent=percent, seed=seed)
        write_run(tmp_path, f"q{percent:g}", 0.2 + 2 * gain, model="query", start="none", percent=percent)
        write_run(tmp_path, f"p{percent:g}", 0.9, percent=percent, **{**FULL, "pseudo": "ellipse"})
    sketch = drawn(tmp_path, fractions)
    courses = ["in training with 1 % of the masks", "in training with 100 % of the masks"]
    assert titles(sketch) == ["after training", *courses]
    lines = {line.get_label(): line.get_xydata() for line in sketch.figure.axes[0].lines}
    assert [*lines] == ["contour points, from boxes", "query and pixel mask, from scratch"]
    np.testing.assert_allclose(lines["contour points, from boxes"], [[1, 0.41], [10, 0.51], [100, 0.61]])
    np.testing.assert_allclose(lines["query and pixel mask, from scratch"], [[1, 0.2], [10, 0.4], [100, 0.6]])
    assert [len(axes.lines) for axes in sketch.figure.axes[1:]] == [2, 2]
    first, _ = sketch.figure.axes[1].lines
    np.testing.assert_allclose(first.get_xydata(), [[25, 0.1025], [50, 0.205], [75, 0.3075], [100, 0.41]])
    assert "the range of the seeds, of one seed the 95 % bootstrap interval" in sketch.caption
    (tmp_path / "course_val" / "q100" / "run.json").unlink()
    less = drawn(tmp_path, fractions)
    assert "res_val/q100: no networks were kept during its training" in less.left_out[0]
    assert [len(axes.lines) for axes in less.figure.axes[1:]] == [2, 1]
    for path in tmp_path.glob("course_val/*/run.json"):
        path.unlink()
    assert titles(drawn(tmp_path, fractions)) == ["after training"]


def test_the_whole_method_is_a_line_of_one_threshold(tmp_path: Path) -> None:
    for percent in (1.0, 100.0):
        write_run(tmp_path, f"n{percent:g}", 0.3, percent=percent)
    for key, percent, threshold in (("a", 1.0, 0.2), ("b", 10.0, 0.2), ("c", 10.0, 0.1)):
        write_run(tmp_path, key, 0.4 + threshold, percent=percent, **{**FULL, "threshold": threshold}, snapshots=0)
    sketch = drawn(tmp_path, fractions)
    lines = {line.get_label(): line.get_xydata() for line in sketch.figure.axes[0].lines}
    np.testing.assert_allclose(lines["contour points, all of Partial-RES"], [[1, 0.6], [10, 0.6]])
    assert "All of Partial-RES: with all three, pseudo masks being its own predictions of d < 0.2" in sketch.caption
    assert "1 result of other lengths or settings" in sketch.left_out


def test_one_share_without_a_course_is_nothing_to_plot_over(tmp_path: Path) -> None:
    write_run(tmp_path, "naive", 0.4, snapshots=0)
    assert drawn(tmp_path, fractions).left_out[0].startswith("results with 5 % of the masks alone")


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_a_result_with_and_without_its_course_the_former_is_shown(tmp_path: Path, order: str) -> None:
    for percent in (1.0, 100.0):
        for key, snapshots in zip(order, (0, 4), strict=True):
            write_run(tmp_path, f"{key}{percent:g}", 0.4, percent=percent, snapshots=snapshots)
    sketch = drawn(tmp_path, fractions)
    assert [len(line.get_xdata()) for line in sketch.figure.axes[0].lines] == [2]
    assert [len(axes.lines) for axes in sketch.figure.axes[1:]] == [1, 1]
    assert sketch.left_out == ()


def test_only_results_that_differ_in_share_model_and_start_are_lines(tmp_path: Path) -> None:
    """Those of another experiment, which learned longer or with other points, are no further lines."""
    for percent in (1.0, 100.0):
        write_run(tmp_path, f"n{percent:g}", 0.3, percent=percent)
        write_run(tmp_path, f"q{percent:g}", 0.2, percent=percent, model="query", contour_points=18)
    write_run(tmp_path, "long", 0.16, start="none", steps=500)
    write_run(tmp_path, "points", 0.16, percent=100.0, contour_points=12)
    sketch = drawn(tmp_path, fractions)
    assert [(line.get_label(), len(line.get_xdata())) for line in sketch.figure.axes[0].lines] == [
        ("contour points, from boxes", 2), ("query and pixel mask, from boxes", 2),
    ]  # fmt: skip
    assert sketch.left_out == ("2 results of other lengths or settings",)


# --- Figure 2 --------------------------------------------------------------------------------------------------------


def test_attention_of_naive_stands_above_that_of_all_parts(store: Path) -> None:
    sketch = drawn(store, attention)
    assert labels(sketch) == ["naive", "full"] * 3
    assert headings(sketch)[0].startswith("the red ellipse number 1 of")
    shares = [inside(image).mean() for image in (1, 4, 7)]
    assert f"spread evenly it is {np.mean(shares):.3f}" in sketch.caption
    assert f"naive {np.mean(shares):.3f}, full 0." in sketch.caption  # its attention is spread evenly over the image
    shown = [axes.images[0].get_array() for axes in sketch.figure.axes if axes.images]
    maps = [np.asarray(values) for values in shown if values.ndim == 2]
    assert len(maps) == 3 * 2 * 4
    outlined = [axes for axes in sketch.figure.axes if axes.images]
    assert len(outlined) == 3 * 2 * 5
    assert all(any(isinstance(it, ContourSet) for it in axes.collections) for axes in outlined)
    assert {axes.get_xlim() for axes in outlined} == {(0, WIDTH)}
    human = outlined[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(
        [human.min(axis=0), human.max(axis=0)], [[edge.min() for edge in box(1)], [edge.max() for edge in box(1)]]
    )
    assert maps[4].max() == 1  # full's first: all on one cell
    assert maps[0].max() == pytest.approx(1 / 48)


def test_only_networks_of_one_seed_and_share_stand_side_by_side(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_run(tmp_path, "naive", 0.4)
    write_run(tmp_path, "other", 0.5, **FULL | {"percent": 1.0})
    sketch = drawn(tmp_path, attention)
    assert sketch.figure is None
    assert "no naive network stands beside one with CCTF and PMCA" in sketch.left_out[0]
    write_run(tmp_path, "less", 0.3, percent=1.0)
    assert "1 % of the masks" in drawn(tmp_path, attention).caption


def test_the_mass_in_a_mask_counts_cells_by_what_of_them_it_takes() -> None:
    truth = np.zeros((8, 8), dtype=bool)
    truth[:4, 3:6] = True  # of the cells of 4 × 4: a quarter of the first column's, a half of the second's
    cells = np.array([[0.5, 0.3], [0.2, 0.0]])
    assert mass(cells, truth, np.array([8, 8])) == pytest.approx(0.5 * 0.25 + 0.3 * 0.5)
    assert mass(cells, truth, np.array([6, 4])) == pytest.approx(0.5 * 0.25 + 0.3 * 1.0)  # padding is no part of a cell
    rng = np.random.default_rng(0)
    truth = rng.random((12, 12)) < 0.4
    even = np.zeros((3, 3))
    even[:2] = 1 / 6
    assert mass(even, truth, np.array([12, 8])) == pytest.approx(truth[:8].mean())


# --- Figure 3 --------------------------------------------------------------------------------------------------------


def test_contours_are_as_predicted_sampled_again_and_of_the_human_mask(store: Path) -> None:
    sketch = drawn(store, contours)
    assert labels(sketch) == ["prediction", "sampled again", "human mask's"]
    assert sketch.left_out == ("1 other networks on this data",)
    assert "the first 3 with predicted points. " in sketch.caption
    rows = np.array(sketch.figure.axes).reshape(3, 3)
    drawn_points = [axes.collections[0].get_offsets() for axes in rows[:, 2]]
    assert [len(points) for points in drawn_points] == [6, 9, 9]  # closed; the prediction ends after five points
    np.testing.assert_allclose(drawn_points[2][:-1], contour(7), atol=1e-5)
    assert [len(axes.patches) for axes in rows[:, 0]] == [1, 0, 0]
    even = np.mean([gap_variation(contour(image)) for image in (1, 4, 7)])
    assert f"{even:.2f} of the human masks'" in sketch.caption


def test_a_caption_says_how_many_expressions_have_no_points(store: Path) -> None:
    for path in store.glob("looks_val/*/looks.npz"):
        held = dict(np.load(path))
        held["points"][0] = np.nan
        np.savez(path, **held)
    assert "the first 2 with predicted points (1 has none). " in drawn(store, contours).caption
    assert (
        "the first 2 with predicted points of both (1 lacks points of one or both). " in drawn(store, attention).caption
    )


def test_numbers_are_of_all_expressions_also_of_those_whose_images_are_not_at_hand(store: Path) -> None:
    whole = {draw: drawn(store, draw).caption for draw in (attention, contours)}
    file = store / "shapes_val" / "s" / "annotations.json"
    split = json.loads(file.read_text())
    (file.parent / "images" / "4.png").unlink()
    split["images"] = [entry for entry in split["images"] if entry["id"] != 4]
    split["annotations"] = [a for a in split["annotations"] if a["image_id"] != 4]
    file.write_text(json.dumps(split))
    for draw, caption in whole.items():
        less = drawn(store, draw).caption
        number, _, rule = less.partition("Rule: ")
        assert number == caption.partition("Rule: ")[0]
        assert rule.startswith("of 3 expressions at equal steps of the file's order the first 2 with predicted points")
        assert "(1 has an image that cannot be shown). " in rule
        assert "3 expressions" in rule.rpartition("Profile")[2]
    assert "of the 9 of 10 validation expressions whose images can be shown" in drawn(store, expressions).caption


def test_the_variation_of_gaps_is_that_of_a_loop() -> None:
    circle = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    assert gap_variation(circle) == pytest.approx(0, abs=1e-12)
    square = np.array([[0, 0], [1, 0], [2, 0], [2, 2], [0, 2], [np.nan, np.nan]])
    gaps = np.array([1, 1, 2, 2, 2])
    assert gap_variation(square) == pytest.approx(gaps.std() / gaps.mean())
    assert np.isnan(gap_variation(square[:2]))


# --- the sheet -------------------------------------------------------------------------------------------------------


def test_expressions_stand_from_the_best_to_the_worst(store: Path) -> None:
    sketch = drawn(store, expressions)
    found = [*headings(sketch)[::2], *headings(sketch)[1::2]]  # down the left column, then the right one
    assert len(found) == COUNT
    values = [float(title.rpartition(" ")[2]) for title in found]
    assert values == sorted(values, reverse=True)
    assert found[0] == "“the red ellipse number 10”, IoU 0.60"
    assert all("…”" in title for title in found if "number 10" not in title and int(title.split()[4].strip("”,")) % 2)
    assert "of 10 validation expressions those at 10 equal steps" in sketch.caption
    assert titles(sketch) == ["image", "contour points", "mask", "human mask"] * 2


def test_a_rival_without_points_shows_its_mask(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_run(tmp_path, "q", 0.3, model="query")
    assert len(headings(drawn(tmp_path, expressions))) == COUNT


def test_answers_that_are_not_those_measured_are_left_out(store: Path) -> None:
    for file in store.glob("refer_val/*/refer.json"):
        file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    assert "is not of the expressions of refer_val/" in drawn(store, expressions).left_out[0]


def test_an_answers_mask_is_what_its_points_enclose() -> None:
    entry = {"height": 6, "width": 8}
    corners = [[2.5, 1.5], [5.5, 1.5], [5.5, 3.5], [2.5, 3.5]]  # in the corners of pixels 2 … 5 and 1 … 3
    wanted = np.zeros((6, 8), dtype=bool)
    wanted[1:4, 2:6] = True
    np.testing.assert_array_equal(answered({"points": corners}, entry, fill="contour"), wanted)
    np.testing.assert_array_equal(answered({"segmentation": uncompressed(wanted)}, entry, fill="coco"), wanted)
    assert not answered({"points": corners[:2]}, entry, fill="contour").any()
    line = answered({"points": [[1.5, 2.5], [6.5, 2.5], [4.5, 2.5]]}, entry, fill="contour")
    assert line.sum() == 6  # as it was scored: the contour belongs to the mask
    entry = {"height": HEIGHT, "width": WIDTH}
    many = answered({"points": contour(3, angles=np.linspace(0, 2 * np.pi, 200)).tolist()}, entry, fill="contour")
    assert (many & inside(3)).sum() / (many | inside(3)).sum() > 0.93


def test_a_mask_of_one_pixel_is_not_lost_in_a_small_picture(store: Path) -> None:
    for place in ((0, 0), (500, 399), (301, 202)):
        mask = np.zeros((501, 400), dtype=bool)
        mask[place] = True
        assert shrunk(mask, 50).sum() == 1
    for file in store.glob("refer_val/*/refer.json"):
        answers = json.loads(file.read_text())
        file.write_text(json.dumps([{**it, "points": [[9.5, 9.5], [9.6, 9.6], [9.5, 9.6]]} for it in answers]))
    for axes in drawn(store, expressions).figure.axes[2::4]:
        (ring,) = (it for it in axes.collections if isinstance(it, PathCollection))
        np.testing.assert_allclose(ring.get_offsets(), [[9, 9]])


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_figures_are_written(store: Path, tmp_path: Path) -> None:
    figures = draw_all(store, tmp_path, KINDS)
    assert [one.png and one.png.name for one in figures] == [f"{kind}_scenes_smoke.png" for kind in KINDS]


def test_what_is_missing_is_named(store: Path, tmp_path: Path) -> None:
    (store / "looks_val" / "naive" / "looks.npz").unlink()
    second = drawn(store, attention)
    assert second.figure is None
    assert "looks_val/naive: looks.npz cannot be read" in second.left_out[0]
    other = tmp_path / "other"
    add(other, record("train_res", "x"))
    reasons = [one.reason for one in draw_all(other, tmp_path, KINDS)]
    assert [reason.partition("run.py ")[2] for reason in reasons] == [
        "-m experiment=partialres/fig1", "-m experiment=partialres/fig2", "-m experiment=partialres/fig3",
        "labeler=partialres",
    ]  # fmt: skip


def test_photographs_without_a_licence_stay_out_of_what_is_passed_on(store: Path) -> None:
    shapes = store / "shapes_val" / "s"
    files: dict[str, Any] = {"annotations": f"{shapes / 'annotations.json'}", "images": f"{shapes / 'images'}"}
    for path in store.glob("*/*/run.json"):
        one = json.loads(path.read_text())
        one["inputs"] = {name: found for name, found in one["inputs"].items() if not found.startswith("shapes_val")}
        path.write_text(json.dumps({**one, "sources": {"images": "1"}, "places": files}))
    for draw in (attention, contours, expressions):
        assert drawn(store, draw).figure is not None
        hidden = drawn(store, draw, redistributable=True)
        assert hidden.left_out == (f"none of the {COUNT} photographs states a licence to pass it on",)
