"""Figure 1 of AttentionShift's supplement, from records."""

import json
from pathlib import Path

import numpy as np
from test_figure_numbers import record

from analysis.figures.drawn import styled
from analysis.figures.features import over_training
from analysis.figures.results import Results
from analysis.figures.series import over_course
from analysis.records import finished

COLUMNS = {
    "labeler": "attentionshift", "recipe": "paper", "encoder": "vit_nano16", "key_points": "shift", "data": "parts",
}  # fmt: skip


def add(root: Path, key: str, *, seed: int, taught_by: str, **metrics: float) -> None:
    columns = {**COLUMNS, "seed": seed, "taught_by": taught_by}
    config = {"attentionshift": {"steps": {"mask_points": {"source": taught_by.partition(" ")[0]}}}, "seed": seed}
    made = [
        record("train_attentionshift", key, config=config, **columns),
        record("course_val", key, inputs=[f"train_attentionshift/{key}"], **columns),
    ]
    made[1]["metrics"] = {name: {"value": value, "n": 40} for name, value in metrics.items()}
    for one in made:
        folder = root / one["stage"] / key
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(one))


def test_each_kind_of_pairs_has_a_panel_and_each_way_to_teach_a_line(tmp_path: Path) -> None:
    for seed in (0, 1):
        values = {f"{name}_{part}": 0.1 * part + 0.2 * seed for name in ("background", "within") for part in (1, 2)}
        add(tmp_path, f"a{seed}", seed=seed, taught_by="attention points", **values)
        add(tmp_path, f"p{seed}", seed=seed, taught_by="parts points", **values | {"background_2": 0.5})
    add(tmp_path, "other", seed=0, taught_by="parts mask", mean_iou_1=0.5)  # of another method: no cosine
    with styled():
        (sketch,) = over_training(Results.of(tmp_path, finished(tmp_path)))
    panels = sketch.figure.axes
    assert [axes.get_title() for axes in panels] == ["instance and background", "instances of one class"]
    lines = {line.get_label(): line.get_xydata() for line in panels[0].lines}
    np.testing.assert_allclose(lines["baseline: points of the attention map (2 seeds)"], [[50, 0.2], [100, 0.3]])
    np.testing.assert_allclose(lines["AttentionShift: key-points of parts (2 seeds)"], [[50, 0.2], [100, 0.5]])
    assert "Bands: the range of the seeds." in sketch.caption
    assert "40 objects; seeds 0, 1" in sketch.caption


def test_results_without_a_common_kind_are_left_out(tmp_path: Path) -> None:
    add(tmp_path, "a", seed=0, taught_by="attention points", background_1=0.5)
    add(tmp_path, "p", seed=0, taught_by="parts points", within_1=0.5)
    with styled():
        (sketch,) = over_training(Results.of(tmp_path, finished(tmp_path)))
    assert sketch.figure is None
    assert sketch.left_out == ("no kind of cosine is in all results",)


def test_a_course_is_read_in_its_order() -> None:
    metrics = {f"within_{part}": {"value": part / 20, "n": 4} for part in range(12, 0, -1)}
    found = over_course({"stage": "s", "key": "k", "metrics": metrics}, "within")
    assert found == [part / 20 for part in range(1, 13)]
