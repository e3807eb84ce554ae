"""Expected differences of novel mIoU: between which runs they are taken, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import Runs, of

from analysis.records import UnreadableRecordError
from analysis.weak_shot import ROWS, WITH_J, WeakShotError, main, report, row_name
from analysis.weak_shot_expected import EXPECTED, FALLING, flat, together, verdict
from mal.metrics.bootstrap import Interval

COLUMNS = {
    "profile": "mini", "data": "car_parts", "seed": 0, "labeler": "simformer", "split": "P1", "pairs": "cross",
    "points": 50, "complement": True, "student": "across", "supervision": "weak", "pseudo": "none",
}  # fmt: skip
IMAGES, PIXELS = 40, 100
NOVEL = (1,)  # 2 and 3 are scored like it; the splits below say what is novel there
CLASSES = 4


class Store:
    """Results that a store would hold: records and iou.npz."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, Runs()

    def add(
        self,
        right: int,
        *,
        steps: int = 600,
        weight: float = 0.1,
        images: int = IMAGES,
        novel: tuple[int, ...] = NOVEL,
        **columns: Any,
    ) -> None:
        """A run that finds so many of the `PIXELS` novel pixels of each image and class, some one more; ground is the
        rest."""
        columns = COLUMNS | columns
        learning = {
            "learning": {"steps": steps},
            "pairs": {"kind": columns["pairs"], "points": columns["points"]},
            "distillation": {"weight": weight},
        }
        config = {"seed": columns["seed"], "simformer": learning}
        trained = self.runs.add("train_simformer", columns, config=config)
        maps = self.runs.add("segment_val", columns, inputs={"network": trained})
        name = self.runs.add("miou_val", columns, config={"novel": list(novel)}, inputs={"maps": maps}, novel_miou=0.1)
        found = right + np.arange(images) % 2
        tp = np.stack([np.full(images, PIXELS)] + [found] * (CLASSES - 1), axis=1)
        gt = np.full((images, CLASSES), PIXELS)
        pred = np.stack([CLASSES * PIXELS - (CLASSES - 1) * found] + [found] * (CLASSES - 1), axis=1)
        (self.root / name).mkdir(parents=True)
        np.savez(
            self.root / name / "iou.npz", image_ids=np.arange(images), novel=np.array(novel), tp=tp, gt=gt, pred=pred
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
        if line[0].startswith(("split", "difference of")):
            break
        name = " ".join(line[:2]) if heading == "split" else line[0]
        rows[name.replace("\\", "")] = dict(zip(lines[start], line, strict=True))
    return rows


def test_a_difference_is_the_mean_over_splits_and_seeds_that_both_have(store: Store) -> None:
    """Each image has equally many pixels, so IoUs are shares of them: +.5 for every other image."""
    for split, seed, more, novel in (("P1", 0, 10, (1,)), ("P1", 1, 6, (1,)), ("P2", 0, 8, (2,))):
        store.add(40, pairs="self", split=split, seed=seed, novel=novel)
        store.add(40 + more, split=split, seed=seed, novel=novel)
    store.add(99, split="P3")
    text = store.report()
    found = cells(text, "difference of")["cross, J 50 − self, J 50"]
    assert of(found, "points", "pairs", "what was expected") == ["+8.0", "3", "shows"]
    low, high = map(float, found["95 %"].strip("[]").split(","))
    assert 6 <= low < 8 < high <= 10  # images are alike: the pairs alone make it wide
    assert cells(text, "difference of")["self − basic"]["what was expected"] == "no runs of both"


def test_means_are_over_the_seeds_that_all_rows_of_a_split_have(store: Store) -> None:
    for seed, right in ((0, 40), (1, 50), (2, 99)):
        store.add(right, seed=seed)
    for seed in (0, 1):
        store.add(30, pairs="none", seed=seed)
        store.add(60, split="P2", seed=seed)
    store.add(70, split="P2", pairs="none", seed=5)
    columns = ("novel mIoU, %", "of its runs", "seeds", "seeds that not all rows have")
    found = cells(store.report(), "split")
    assert of(found["P1 cross, J 50"], *columns) == ["45.5", "40.5 … 50.5", "0, 1", "2"]
    assert of(found["P1 basic"], *columns) == ["30.5", "30.5 … 30.5", "0, 1", ""]
    assert of(found["P2 cross, J 50"], *columns) == ["-", "", "", "0, 1"]


def test_each_j_is_a_row_and_no_difference_is_expected(store: Store) -> None:
    for seed in (0, 1, 2):
        for points, right in ((50, 40), (100, 40), (150, 46)):
            store.add(right, points=points, seed=seed)
        store.add(30, pairs="none", seed=seed)
        store.add(30, pairs="self", seed=seed)
    store.add(30, pairs="none", points=100)  # the same row: it draws no pixels
    text = store.report()
    assert cells(text, "split")["P1 cross, J 150"]["novel mIoU, %"] == "46.5"
    found = cells(text, "difference of")
    assert of(found["cross, J 100 − cross, J 50"], "points", "what was expected") == ["+0.0", "shows"]
    assert of(found["cross, J 150 − cross, J 100"], "points", "what was expected") == ["+6.0", "is reversed"]
    assert [name for name in found if name.endswith("− self, J 50")] == ["cross, J 50 − self, J 50"]
    assert of(found["self, J 50 − basic"], "points", "pairs") == ["+0.0", "3"]


def test_more_novel_classes_are_expected_to_be_harder_by_those_of_the_smaller_split(store: Store) -> None:
    novel = {"D4": (1,), "D6": (1, 2), "D8": (1, 2, 3), "P1": (1, 3)}
    for seed in (0, 1):
        for (split, classes), right in zip(novel.items(), (60, 50, 55, 70), strict=True):
            store.add(right, split=split, novel=classes, seed=seed)
    found = cells(store.report(), "difference of")
    falling = {name: line for name, line in found.items() if name.startswith("cross, J 50: ")}
    assert [*falling] == ["cross, J 50: D4 − D6", "cross, J 50: D6 − D8"]
    assert [of(line, "points", "pairs", "what was expected") for line in falling.values()] == [
        ["+10.0", "2", "shows"],
        ["-5.0", "2", "is reversed"],
    ]
    assert "cross on a split within another" not in found


def test_nested_splits_of_a_seed_are_drawn_together(store: Store) -> None:
    """Differences of 20 and 0 on D4 and D6: drawn apart the mean would be 0 to 20; they are one seed's."""
    for split, novel, right in (("D4", (1,), 60), ("D6", (1, 2), 40)):
        store.add(right, split=split, novel=novel)
        store.add(40, split=split, novel=novel, pairs="self")
    found = cells(store.report(), "difference of")["cross, J 50 − self, J 50"]
    assert of(found, "points", "95 %", "what was expected") == ["+10.0", "[+10.0, +10.0]", "shows"]


def test_what_is_drawn_together() -> None:
    assert together([(0, {1}), (0, {2}), (1, {1})]) == [0, 1, 2]  # folds, seeds
    chain = together([(0, {1, 2}), (0, {3, 4}), (0, {5}), (0, {2, 3}), (1, {2, 3})])
    assert chain[0] == chain[1] == chain[3]  # the first two through the fourth
    assert len({*chain}) == 3


def test_a_difference_against_what_was_expected_is_reversed(store: Store) -> None:
    store.add(40)
    store.add(30, supervision="oracle", pairs="none", complement=False)
    store.add(40, pseudo="own")
    found = cells(store.report(), "difference of")
    assert of(found["oracle − cross*, J 50"], "points", "what was expected") == ["-10.0", "is reversed"]
    assert of(found["cross*, J 50 − cross, J 50"], "points", "what was expected") == ["+0.0", "does not show"]


def test_only_runs_that_differ_in_what_makes_their_rows_are_compared(store: Store) -> None:
    store.add(40, pairs="none", weight=0.0)
    store.add(45, steps=600)
    store.add(60, steps=900)
    store.add(50, pairs="self", points=100)
    store.add(50, pairs="sampler")
    text = store.report()
    found = cells(text, "difference of")
    assert found["cross − self"]["pairs"] == "0"  # other J
    assert found["cross, J 50 − sampler"]["pairs"] == "1"  # not that of 900 steps
    told = {name for name in cells(text, "split") if name.endswith("cross, J 50")}
    steps = "P1, train_simformer.simformer.learning.steps"
    assert told == {f"{steps}=600 cross, J 50", f"{steps}=900 cross, J 50"}


def test_two_results_of_one_row_need_a_choice(store: Store) -> None:
    store.add(40)
    store.add(45, weight=0.5)
    with pytest.raises(WeakShotError, match=r"two results are cross of one split and seed: .*distillation\.weight"):
        store.report()
    where = "train_simformer.simformer.distillation.weight=0.5"
    assert cells(store.report(where), "split")["P1 cross, J 50"]["novel mIoU, %"] == "45.5"


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
    with pytest.raises(WeakShotError, match="experiment=simformer/rows"):
        store.report(data=["other"])
    with pytest.raises(UnreadableRecordError, match="does not exist"):
        report(store.root / "empty", {}, ())


def test_every_expected_row_is_told_from_all_others() -> None:
    assert {name for pair in EXPECTED for name in pair} | {*WITH_J, *FALLING} <= ROWS.keys()
    for name, own in ROWS.items():
        assert row_name({"columns": {**COLUMNS, "pairs": "none", **own}}) == name


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "shows"), (-0.01, 0.2, "does not show"), (-0.2, -0.01, "is reversed"), (0.0, 0.1, "does not show")],
)
def test_an_interval_on_zero_shows_nothing(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high)) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.004, 0.01, "shows"), (0.002, 0.009, "shows"), (-0.02, 0.005, "does not show"), (0.005, 0.02, "is reversed")],
)
def test_no_difference_shows_only_where_the_interval_is_narrow(low: float, high: float, said: str) -> None:
    assert flat(Interval((low + high) / 2, low, high)) == said
