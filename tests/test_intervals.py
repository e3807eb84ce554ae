"""The interval of each number of a run: that of a bootstrap done by hand on its arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis.intervals import RESAMPLES, interval
from analysis.stats import image_weights
from analysis.tables import paper_tables
from mal.errors import MalError
from mal.metrics.bootstrap import ap_from_matches
from mal.metrics.matches import MatchArrays

IMAGES = 12


def record(stage: str, **metrics: float) -> dict[str, Any]:
    columns = {"profile": "demo", "data": "shapes", "seed": 0, "segmenter": "solov2_tiny", "supervision": "human"}
    return {
        "stage": stage, "key": "k", "inputs": {}, "config": {}, "columns": columns,
        "metrics": {name: {"value": value, "n": IMAGES} for name, value in metrics.items()},
    }  # fmt: skip


def matches(path: Path) -> None:
    """Of each image two objects; three detections, of which some are true, some false and some ignored."""
    rng = np.random.default_rng(0)
    states = rng.choice([1, 1, 0, -1], size=(4, 10, 3 * IMAGES)).astype(np.int8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, image_ids=np.arange(IMAGES), category_ids=np.array([1]), thresholds=np.linspace(0.5, 0.95, 10),
        det_image=np.repeat(np.arange(IMAGES), 3), det_category=np.zeros(3 * IMAGES, dtype=np.int64),
        det_score=rng.random(3 * IMAGES), det_state=states, gt_image=np.repeat(np.arange(IMAGES), 2),
        gt_category=np.zeros(2 * IMAGES, dtype=np.int64), gt_counted=np.ones((4, 2 * IMAGES), dtype=bool),
    )  # fmt: skip


@pytest.mark.parametrize(("metric", "file", "name"), [("mask_ap", "segm", "ap"), ("box_ap50", "bbox", "ap50")])
def test_an_aps_interval_is_that_of_resampled_aps_moved_by_twice_their_shift(tmp_path, metric, file, name):
    path = tmp_path / f"ap_val/k/matches_{file}.npz"
    matches(path)
    loaded = MatchArrays.load(path)
    found = interval(record("ap_val", **{metric: 0.4}), metric, tmp_path)
    one_by_one = [ap_from_matches(loaded, w, metric=name) for w in image_weights(IMAGES, RESAMPLES)]
    shift = norm.ppf(np.mean(np.array(one_by_one) < 0.4))  # Efron (1981)
    levels = norm.cdf([2 * shift - 1.959964, 2 * shift + 1.959964])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.4, *np.quantile(one_by_one, levels)), abs=1e-3)


def test_a_clustering_score_is_a_mean_over_tokens_and_is_resampled_as_one(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"image_id": np.arange(30) % IMAGES, "score": rng.random(30), "tokens": rng.integers(1, 50, 30)}
    )
    path = tmp_path / "clustering_val/k/instances.csv"
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    drawn = image_weights(IMAGES, RESAMPLES)[:, frame["image_id"]] * frame["tokens"].to_numpy()
    values = (drawn * frame["score"].to_numpy()).sum(1) / drawn.sum(1)
    found = interval(record("clustering_val", clustering=0.5), "clustering", tmp_path)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_what_has_no_arrays_has_no_interval(tmp_path):
    score = record("ap_val", mask_ap=0.4, mask_ap_r=0.1)
    assert interval(score, "mask_ap", tmp_path) is None
    matches(tmp_path / "ap_val/k/matches_segm.npz")
    assert interval(score, "mask_ap_r", tmp_path) is None  # of LVIS's rare categories alone
    assert interval(score, "box_ap", tmp_path) is None
    assert interval(score, "retention", tmp_path) is None


@pytest.mark.parametrize(("stage", "metric", "file"), [
    ("ap_val", "mask_ap", "matches_segm.npz"), ("quality_val", "iou", "instances.csv"),
])  # fmt: skip
def test_broken_arrays_are_a_sentence(tmp_path, stage, metric, file):
    (tmp_path / stage / "k").mkdir(parents=True)
    (tmp_path / stage / "k" / file).write_text("half a file")
    with pytest.raises(MalError, match=f"{file} .* again"):
        interval(record(stage, **{metric: 0.4}), metric, tmp_path)


def test_the_papers_tables_show_it(tmp_path):
    matches(tmp_path / "ap_val/k/matches_segm.npz")
    score = record("ap_val", mask_ap=0.412) | {"provenance": {}}
    (table,) = [t for t in paper_tables([score], tmp_path) if t.name == "tab1_coco"]
    row = dict(zip(table.header, table.rows[-1], strict=True))
    found = interval(score, "mask_ap", tmp_path)
    assert found is not None
    assert row["mask AP val, ours"] == "41.2"
    assert row["mask AP val, 95 % interval"] == f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
