"""Expected differences of novel mIoU: between which runs they are taken, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import Runs, of

from analysis.records import UnreadableRecordError
from analysis.weak_shot import EXPECTED, ROWS, WeakShotError, main, report, row_name, verdict
from mal.metrics.bootstrap import Interval

COLUMNS = {
    "profile": "mini", "data": "car_parts", "seed": 0, "labeler": "simformer", "split": "P1", "pairs": "cross",
    "points": 50, "complement": True, "student": "across", "supervision": "weak", "pseudo": "none",
}  # fmt: skip
IMAGES, PIXELS = 40, 100
NOVEL = (1,)


class Store:
    """Results that a store would hold: records and iou.npz."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, Runs()

    def add(self, right: int, *, steps: int = 600, weight: float = 0.1, images: int = IMAGES, **columns: Any) -> None:
        """A run that finds so many of the `PIXELS` novel pixels of each image, some one more; ground is the rest."""
        columns = COLUMNS | columns
        learning = {
            "learning": {"steps": steps},
            "pairs": {"kind": columns["pairs"]},
            "distillation": {"weight": weight},
        }
        config = {"seed": columns["seed"], "simformer": learning}
        trained = self.runs.add("train_simformer", columns, config=config)
        maps = self.runs.add("segment_val", columns, inputs={"network": trained})
        name = self.runs.add("miou_val", columns, config={"novel": list(NOVEL)}, inputs={"maps": maps}, novel_miou=0.1)
        found = right + np.arange(images) % 2
        tp = np.stack([np.full(images, PIXELS), found], axis=1)
        gt = np.full((images, 2), PIXELS)
        pred = np.stack([2 * PIXELS - found, found], axis=1)
        (self.root / name).mkdir(parents=True)
        np.savez(
            self.root / name / "iou.npz", image_ids=np.arange(images), novel=np.array(NOVEL), tp=tp, gt=gt, pred=pred
        )

    def report(self, *where: str, **wanted: list[str]) -> str:
        for record in self.runs.records:
            folder = self.root / record["stage"] / record["key"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_text(json.dumps(record))
        return report(self.root, wanted, where, resamples=100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def cells(text: str, heading: str) -> dict[str, dict[str, str]]:
    """A table of the report: the first cell of a row → header → cell."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    (start,) = [i for i, line in enumerate(lines) if line[0] == heading]
    rows = {}
    for line in lines[start + 2 :]:
        if line[0].startswith(("row", "difference of")):
            break
        rows[line[0].replace("\\", "")] = dict(zip(lines[start], line, strict=True))
    return rows


def test_a_difference_is_the_mean_over_splits_and_seeds_that_both_have(store: Store) -> None:
    """Each image has equally many pixels, so IoUs are shares of them: +.5 for every other image."""
    for split, seed, more in (("P1", 0, 10), ("P1", 1, 6), ("P2", 0, 8)):
        store.add(40, pairs="self", split=split, seed=seed)
        store.add(40 + more, split=split, seed=seed)
    store.add(99, split="P3")
    text = store.report()
    found = cells(text, "difference of")["cross − self"]
    assert of(found, "points", "pairs", "what was expected") == ["+8.0", "3", "shows"]
    low, high = map(float, found["95 %"].strip("[]").split(","))
    assert 6 <= low < 8 < high <= 10  # images are alike: the pairs alone make it wide
    row = cells(text, "row")["cross"]
    assert of(row, "novel mIoU, %", "of its runs", "runs") == [
        f"{(50.5 + 46.5 + 48.5 + 99.5) / 4:.1f}",
        "46.5 … 99.5",
        "4",
    ]
    assert cells(text, "difference of")["self − basic"]["what was expected"] == "no runs of both"


def test_a_difference_against_what_was_expected_is_reversed(store: Store) -> None:
    store.add(40)
    store.add(30, supervision="oracle", pairs="none", complement=False)
    store.add(40, pseudo="own")
    found = cells(store.report(), "difference of")
    assert of(found["oracle − cross*"], "points", "what was expected") == ["-10.0", "is reversed"]
    assert of(found["cross* − cross"], "points", "what was expected") == ["+0.0", "does not show"]


def test_only_runs_that_differ_in_what_makes_their_rows_are_compared(store: Store) -> None:
    store.add(40, pairs="none", weight=0.0)
    store.add(45, steps=600)
    store.add(60, steps=900)
    store.add(50, pairs="sampler", points=100)
    found = cells(store.report(), "difference of")
    assert found["cross − sampler"]["pairs"] == "0"  # other J
    store.add(50, pairs="sampler")
    assert cells(store.report(), "difference of")["cross − sampler"]["pairs"] == "1"  # not that of 900 steps


def test_two_results_of_one_row_need_a_choice(store: Store) -> None:
    store.add(40)
    store.add(45, weight=0.5)
    with pytest.raises(WeakShotError, match=r"two results are cross of one split and seed: .*distillation\.weight"):
        store.report()
    where = "train_simformer.simformer.distillation.weight=0.5"
    assert cells(store.report(where), "row")["cross"]["novel mIoU, %"] == "45.5"


def test_data_and_profiles_stand_apart_and_other_results_are_left_out(store: Store) -> None:
    store.add(40)
    store.add(20, data="shapes12", profile="demo")
    store.runs.add("miou_val", COLUMNS | {"supervision": "published"}, novel_miou=0.4)
    text = store.report()
    assert text.index("## car_parts, profile mini") < text.index("## shapes12, profile demo")
    assert "published" not in text
    assert "shapes12" not in store.report(data=["car_parts"])


def test_what_is_missing_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(40)
    store.report()
    (file,) = store.root.glob("miou_val/*/iou.npz")
    whole = file.read_bytes()
    for part in (b"", whole[:100], b"no archive"):
        file.write_bytes(part)
        assert main(["--store", str(store.root)]) == 1
        assert "iou.npz cannot be read" in capsys.readouterr().err
    with pytest.raises(WeakShotError, match="experiment=simformer/tab2"):
        store.report(data=["other"])
    with pytest.raises(UnreadableRecordError, match="holds no finished run"):
        report(store.root / "empty", {}, ())


def test_every_expected_row_is_told_from_all_others() -> None:
    assert {name for pair in EXPECTED for name in pair} <= ROWS.keys()
    for name, own in ROWS.items():
        assert row_name({"columns": {**COLUMNS, "pairs": "none", **own}}) == name


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "shows"), (-0.01, 0.2, "does not show"), (-0.2, -0.01, "is reversed"), (0.0, 0.1, "does not show")],
)
def test_an_interval_on_zero_shows_nothing(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high)) == said
