"""The figure of single changes: which results it shows, and where it puts them."""

from pathlib import Path

import numpy as np
import pandas as pd
from test_figure_numbers import labelled, results

from analysis.figures.ablations import changes
from analysis.figures.results import Results
from analysis.figures.sensitivity import sensitivity

IMAGES = 6


def scored(store: Path, ious: dict[str, float], first: int = 0) -> None:
    """instances.csv of some results: two instances an image around a mean IoU."""
    for key, iou in ious.items():
        folder = store / "quality_val" / key
        folder.mkdir(parents=True)
        places = np.arange(2 * IMAGES)
        table = pd.DataFrame(
            {"annotation_id": places + first, "image_id": places // 2, "area": 100.0, "size": "S",
             "iou": iou + np.resize([0.05, -0.05], len(places)), "boundary_iou": 0.5, "flagged": False}
        )  # fmt: skip
        table.to_csv(folder / "instances.csv", index=False)


def store_of_changes(tmp_path: Path) -> Results:
    scored(tmp_path, {"a0": 0.6, "a1": 0.7, "z0": 0.8, "z1": 0.8, "w0": 0.5, "lone": 0.9, "both": 0.9})
    scored(tmp_path, {"other": 0.1}, first=50)
    return results(
        *labelled("a0"), *labelled("a1", seed=1), *labelled("z0", zeta=1.0), *labelled("z1", zeta=1.0, seed=1),
        *labelled("w0", omega=4.0), *labelled("lone", omega=8.0, seed=7), *labelled("both", zeta=2.0, omega=4.0),
        *labelled("other", zeta=9.0), store=tmp_path,
    )  # fmt: skip


def test_a_change_stands_at_its_mean_difference_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    (sketch,) = changes(store_of_changes(tmp_path))
    (axes,) = sketch.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["crf.zeta=1", "crf.omega=4"]
    means = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, [[0.15, 0], [-0.1, 1]], atol=1e-12)
    (strokes,) = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(strokes, [0.2, 0.1], atol=1e-12)
    assert "nothing changed it is 0.650" in axes.get_xlabel()
    assert sketch.left_out == ("1 of the results: scored on other instances than most",)


def test_figure_7_has_a_panel_for_each_constant_that_was_varied(tmp_path: Path) -> None:
    scored(tmp_path, {"a0": 0.6, "z0": 0.8})
    (sketch,) = sensitivity(results(*labelled("a0"), *labelled("z0", zeta=1.0), store=tmp_path))
    assert [axes.get_xlabel() for axes in sketch.figure.axes] == ["ζ"]


def test_without_a_change_there_is_nothing_to_draw(tmp_path: Path) -> None:
    scored(tmp_path, {"a0": 0.6, "a1": 0.7})
    assert not list(changes(results(*labelled("a0"), *labelled("a1", seed=1), store=tmp_path)))


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    scored(tmp_path, {"a0": 0.6, "z0": 0.8})
    found = results(*labelled("a0"), *labelled("z0", zeta=1.0), *labelled("w0", omega=4.0), store=tmp_path)
    (sketch,) = changes(found)
    assert len(sketch.figure.axes[0].get_yticklabels()) == 1
    assert sketch.left_out == ("quality_val/w0: instances.csv cannot be read (FileNotFoundError)",)
