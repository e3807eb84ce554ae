"""The numbers behind the figures: bins and their bands, overlap of boxes, sweeps, names, selection rules."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.drawing import even_places
from analysis.figures.detections import matched, shown, to_show
from analysis.figures.drawn import legend, sheet, styled
from analysis.figures.overlap import covered_shares, overlap_bins
from analysis.figures.photographs import fit
from analysis.figures.quality import readable
from analysis.figures.results import LeftOut, Results
from analysis.figures.series import bin_interval, bin_means, names, over_seeds_or_images
from analysis.figures.sweeps import sweeps
from analysis.records import address


def record(stage: str, key: str, *, inputs: list[str] = (), config: Any = None, **columns: Any) -> dict[str, Any]:
    columns = {"profile": "demo", "data": "shapes", **columns}
    return {
        "stage": stage,
        "key": key,
        "status": "done",
        "columns": columns,
        "config": config or {},
        "inputs": {name.partition("/")[0].partition("_")[0] + str(n): name for n, name in enumerate(inputs)},
        "sources": {},
        "metrics": {},
        "provenance": {"commit": "0123456789", "diff": None},
    }


def labelled(key: str, *, seed: int = 0, zeta: float = 0.5, omega: float = 2.0, **more: Any) -> list[dict[str, Any]]:
    """A labeler, its masks and their quality."""
    columns = {"seed": seed, "labeler": "mal", "recipe": "paper", "encoder": "vit_nano", "decoder": "attention"} | more
    config = {"seed": seed, "crf": {"zeta": zeta, "omega": omega}}
    return [
        record("train_labeler", key, config=config, **columns),
        record("label_val", key, inputs=[f"train_labeler/{key}"], **columns),
        record("quality_val", key, inputs=[f"label_val/{key}"], **columns),
    ]


def results(*records: dict[str, Any], store: Path = Path()) -> Results:
    return Results.of(store, records)


def test_a_long_legend_makes_the_figure_higher_and_not_its_axes_lower():
    heights = []
    for count in (3, 9):
        with styled():
            figure = sheet(3.3, 2.3)
            axes = figure.subplots()
            for number in range(count):
                axes.plot([0, 1], [0, number], label=f"a labeler of a rather long name {number}")
            legend(figure, axes)
            figure.draw_without_rendering()
        heights.append(axes.get_window_extent().height)
    assert heights[1] > 0.95 * heights[0]


@pytest.mark.parametrize("width", [3.3, 6.9])
def test_a_name_that_is_wider_than_the_figure_is_broken_and_no_letter_of_it_lost(width: float):
    name = "MAL, best crf.dilation=3 label.antialias=true label.network=teacher roi.size=160 " + "x" * 120
    with styled():
        figure = sheet(width, 2.3)
        axes = figure.subplots()
        for number in range(4):
            axes.plot([0, 1], [0, number], label=f"{name} {number}")
        legend(figure, axes)
        figure.draw_without_rendering()
    (shown,) = figure.legends
    assert shown.get_window_extent().x1 <= figure.bbox.x1
    assert shown.get_window_extent().y1 <= figure.bbox.y1
    assert axes.get_window_extent().height > 0.4 * 2.3 * figure.dpi
    written = ["".join(text.get_text().split()) for text in shown.get_texts()]
    assert written == [f"{name} {number}".replace(" ", "") for number in range(4)]


# --- bins and bands ------------------------------------------------------------------------------------------------


def test_a_bins_mean_is_that_of_its_values_and_of_no_values_none():
    found = bin_means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(found, [2.0, np.nan, 5.0])


def test_the_interval_of_a_bins_mean_resamples_whole_images():
    """Two values an image that are equal say no more than one: the interval is that of the images' means."""
    draw = np.random.default_rng(1)
    of_images = draw.normal(size=400)
    once = bin_interval(of_images, np.zeros(400, int), 1, np.arange(400))
    twice = bin_interval(np.repeat(of_images, 2), np.zeros(800, int), 1, np.repeat(np.arange(400), 2))
    np.testing.assert_allclose(once, twice)
    expected = of_images.mean() + np.array([-1.96, 1.96]) * of_images.std() / 20
    np.testing.assert_allclose(np.ravel(once), expected, atol=0.015)


def test_a_bin_without_values_has_no_interval_and_disturbs_no_other():
    low, high = bin_interval(np.array([1.0, 1.0]), np.array([0, 0]), 2, np.array([7, 8]))
    np.testing.assert_array_equal([low, high], [[1.0, np.nan], [1.0, np.nan]])


def test_a_band_of_several_seeds_is_their_range():
    bins, images = np.zeros(2, int), np.arange(2)
    tables = [(np.array(values), bins, images) for values in ([0.2, 0.4], [0.5, 0.7], [0.1, 0.1])]
    mean, low, high = over_seeds_or_images(tables, 1)
    np.testing.assert_allclose([mean[0], low[0], high[0]], [1 / 3, 0.1, 0.6])


# --- overlap -------------------------------------------------------------------------------------------------------


def test_the_covered_share_is_what_counting_pixels_gives():
    draw = np.random.default_rng(0)
    for _ in range(50):
        corner, size = draw.integers(0, 30, (7, 2)), draw.integers(1, 20, (7, 2))
        boxes = np.concatenate([corner, size], axis=1)
        crowd = draw.random(7) < 0.2
        found = covered_shares(
            [{"id": i, "image_id": 1, "bbox": box.tolist(), "iscrowd": int(c)} for i, (box, c) in
             enumerate(zip(boxes, crowd, strict=True))]
        )  # fmt: skip
        for place, (x, y, width, height) in enumerate(boxes):
            covered = np.zeros((60, 60), bool)
            for other, (a, b, w, h) in enumerate(boxes):
                if other != place and not crowd[other]:
                    covered[b : b + h, a : a + w] = True
            assert found[place] == pytest.approx(covered[y : y + height, x : x + width].mean())


def test_boxes_of_other_images_cover_nothing():
    boxes = [{"id": n, "image_id": n, "bbox": [0, 0, 10, 10]} for n in (1, 2)]
    assert covered_shares(boxes) == {1: 0.0, 2: 0.0}
    assert covered_shares([{**box, "image_id": 1} for box in boxes]) == {1: 1.0, 2: 1.0}


def test_a_box_that_nothing_covers_has_a_bin_of_its_own():
    assert overlap_bins(np.array([0, 0.01, 0.1, 0.11, 0.25, 0.6, 1.0])).tolist() == [0, 1, 1, 2, 2, 4, 5]


# --- groups, names, sweeps -----------------------------------------------------------------------------------------


def test_runs_that_differ_in_more_than_the_seed_are_series_of_their_own_and_named_by_it():
    found = results(
        *labelled("a", seed=0), *labelled("b", seed=1), *labelled("c", zeta=1.0), *labelled("d", encoder="mae_b")
    )
    groups = found.groups("quality_val")["shapes", "demo"]
    assert [[r["key"] for r in group] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert names(groups, found) == [
        "MAL, vit_nano, crf.zeta=0.5 (2 seeds)",
        "MAL, vit_nano, crf.zeta=1",
        "MAL, mae_b",
    ]


def test_single_changes_of_the_same_settings_are_named_by_the_change_alone():
    found = results(*labelled("a"), *labelled("b", zeta=1.0), *labelled("c", omega=3.0), *labelled("d", omega=7.0))
    assert names(found.groups("quality_val")["shapes", "demo"], found) == [
        "MAL",
        "MAL, crf.zeta=1",
        "MAL, crf.omega=3",
        "MAL, crf.omega=7",
    ]


def test_the_labeler_that_most_results_are_built_on_comes_first():
    more = [record("train_segmenter", f"s{n}", inputs=["label_val/z"], seed=n) for n in range(3)]
    found = results(*labelled("a"), *labelled("z", zeta=1.0), *more)
    assert [group[0]["key"] for group in found.groups("quality_val")["shapes", "demo"]] == ["z", "a"]


def test_profiles_and_data_are_never_in_one_group():
    found = results(*labelled("a"), *labelled("b", seed=1, profile="mini"), *labelled("c", seed=2, data="coco"))
    assert sorted(found.groups("quality_val")) == [("coco", "demo"), ("shapes", "demo"), ("shapes", "mini")]


def test_a_sweep_joins_what_differs_in_its_value_alone():
    found = results(
        *labelled("a", zeta=0.25), *labelled("b", zeta=0.5), *labelled("B", zeta=0.5, seed=1),
        *labelled("c", zeta=1.0, omega=3.0), *labelled("d", zeta=0.5, omega=3.0), *labelled("e", zeta=9, omega=7.0),
        *labelled("x", zeta=2.0, seed=1),
    )  # fmt: skip

    def swept(name: str) -> list[list[tuple[float, list[str]]]]:
        several = sweeps(found, "quality_val", at="train_labeler", path=("crf", name))["shapes", "demo"]
        return [[(v, [r["key"] for r in g]) for v, g in zip(s.values, s.groups, strict=True)] for s in several]

    zeta = swept("zeta")  # B and x are of another seed than most
    assert sorted(zeta, key=str) == [[(0.25, ["a"]), (0.5, ["b"])], [(0.5, ["d"]), (1.0, ["c"])]]
    assert swept("omega") == [[(2.0, ["b"]), (3.0, ["d"])]]  # a, c and e have no partner


def test_a_setting_that_no_result_has_is_no_sweep():
    assert sweeps(results(*labelled("a")), "quality_val", at="train_labeler", path=("loss", "mil_weight")) == {}


def test_records_without_their_parts_are_named_and_left_out():
    broken = {"stage": "quality_val", "key": "x", "status": "done", "columns": {"profile": "demo"}}
    found = results(broken, *labelled("a"))
    assert [address(r) for r in found.records] == ["train_labeler/a", "label_val/a", "quality_val/a"]
    assert found.unusable == ["quality_val/x: run.json lacks config, inputs, metrics, sources, columns.data"]


def test_results_of_other_instances_are_not_drawn_together():
    """A sweep's many values on some images do not displace the labelers that were compared on others."""
    sweep = [one for n in range(3) for one in labelled(f"a{n}", zeta=1.0 + n)]
    found = results(*sweep, *labelled("b", encoder="mae_b"), *labelled("c", labeler="box"))

    def read(one: dict[str, Any]) -> pd.DataFrame:
        return pd.DataFrame({"annotation_id": [1, 2] if one["key"] in ("b", "c") else [1, 3]})

    tables, left_out = readable(found.groups("quality_val")["shapes", "demo"], read, found)
    assert [group[0]["key"] for group, _ in tables] == ["b", "c"]
    assert left_out == ["3 labelers scored on other instances than those shown"]


# --- selection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "wanted"), [(100, 15), (3, 15), (1, 5), (0, 5), (16, 15)])
def test_even_places_hold_the_first_and_the_last_and_none_twice(count, wanted):
    found = even_places(count, wanted)
    assert len(found) == len(set(found)) == min(count, wanted)
    if count:
        assert (found[0], found[-1]) == (0, count - 1)
        assert np.ptp(np.diff(found)) <= 1 if len(found) > 1 else True


def test_detections_of_a_low_score_are_hidden_but_for_the_best_of_an_image():
    def detection(image: int, score: float) -> dict[str, Any]:
        return {"image_id": image, "score": score, "segmentation": {}}

    found = shown(
        [detection(1, 0.4), detection(1, 0.5), detection(1, 0.9), detection(2, 0.1), detection(2, 0.2)], [1, 2, 3]
    )
    assert {image: [d["score"] for d in ones] for image, ones in found.items()} == {1: [0.9, 0.5], 2: [0.2], 3: []}
    with pytest.raises(LeftOut, match="no masks"):
        shown([{"image_id": 1, "score": 1.0}], [1])


def test_a_detection_takes_the_colour_of_the_object_it_covers():
    def square(x: int, side: int) -> dict[str, Any]:
        return {"segmentation": [[x, 0, x + side, 0, x + side, side, x, side]]}

    size = {"height": 20, "width": 40}
    assert matched([square(20, 10), square(0, 9), square(8, 10)], [square(0, 10), square(20, 10)], size) == [1, 0, None]
    assert matched([square(0, 5)], [], size) == [None]


def test_pictures_shrink_and_never_grow():
    assert fit(np.zeros((30, 60, 3)), 20).shape == (10, 20, 3)
    assert fit(np.ones((30, 60), bool), 20).dtype == bool
    assert fit(np.zeros((3, 6, 3)), 20).shape == (3, 6, 3)


def test_of_a_sweeps_members_the_general_figures_show_the_one_that_most_is_built_on():
    more = record("train_segmenter", "s", inputs=["label_val/b"], seed=0)
    found = results(*labelled("a", zeta=0.25), *labelled("b"), more, *labelled("c", encoder="mae_b"))
    table = pd.DataFrame({"annotation_id": [1]})
    tables, left_out = readable(found.groups("quality_val")["shapes", "demo"], lambda _: table, found)
    assert [group[0]["key"] for group, _ in tables] == ["b", "c"]
    assert left_out == ["1 labelers that fewer results are built on, or not as their recipe is today"]


def test_what_was_made_as_its_recipe_is_today_is_shown_though_more_is_built_on_another(monkeypatch):
    more = record("train_segmenter", "s", inputs=["label_val/b"], seed=0)
    found = results(*labelled("a", zeta=0.25), *labelled("b"), more)
    monkeypatch.setattr("analysis.figures.quality.departures", lambda one, _: {"b": {"zeta": 1}}.get(one["key"], {}))
    table = pd.DataFrame({"annotation_id": [1]})
    tables, _ = readable(found.groups("quality_val")["shapes", "demo"], lambda _: table, found)
    assert [group[0]["key"] for group, _ in tables] == ["a"]


# --- which segmenter is shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aps", "shown"),
    [
        ({"mask2former_tiny": 0.25, "cascade_tiny": 0.3}, "mask2former_tiny"),  # the paper's
        ({"mask2former_tiny": 0.15, "cascade_tiny": 0.3, "solov2_tiny": 0.22}, "cascade_tiny"),  # it is too weak here
        ({"solov2_tiny": 0.1, "mask_rcnn_tiny": 0.12}, "mask_rcnn_tiny"),  # it is absent
    ],
)
def test_figure_8_shows_the_papers_segmenter_unless_another_is_worth_more_looks(aps, shown):
    known = {name: {"metrics": {"mask_ap": {"value": ap}}} for name, ap in aps.items()}
    groups = [[{"columns": {"segmenter": name, "data": "shapes"}, "inputs": {"human": name}}] for name in aps]
    assert to_show(groups, known)["columns"]["segmenter"] == shown
