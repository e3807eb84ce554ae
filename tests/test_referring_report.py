"""Differences of IoU between Partial-RES's rows: which runs are compared, over what, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import Runs, of

from analysis.records import UnreadableRecordError
from analysis.referring import main, report
from analysis.referring_expected import FLOORS, LARGER, OPEN, RISING, SHAPED, open_verdict, shape_verdict
from analysis.referring_rows import ROWS, ReferringError, Row, Scores, difference, row_of
from mal.errors import MalError
from mal.metrics.bootstrap import Interval

PLACE = {"profile": "demo", "data": "scenes"}
COLUMNS = {
    **PLACE, "seed": 0, "labeler": "partialres", "recipe": "ours", "encoder": "pyramid_nano", "model": "sequence",
    "percent": 5.0, "start": "rec", "cctf": "none", "pmca": False, "task": "learnable", "pseudo": "none",
    "contour_points": 8, "steps": 1500,
}  # fmt: skip
PARTS = {"cctf": "matched", "pmca": True}
FULL = {**PARTS, "pseudo": "model", "threshold": 0.2}
IMAGES, EACH = 20, 3  # expressions of an image
WAVE = 0.02 * (np.arange(IMAGES * EACH) % 2 - 0.5)  # ± .01, alike on every image but for its parity


class Store:
    """Results that a store would hold: records, and iou.npz of each."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, Runs()
        self.recs: dict[Any, str] = {}

    def rec(self, *, seed: int = 0, model: str = "sequence", ellipse: float = 0.45, accuracy: float = 0.8) -> str:
        """A training of boxes, and what its boxes are worth."""
        if (seed, model) not in self.recs:
            columns = {**PLACE, "seed": seed, "labeler": "partialres", "model": model}
            trained = self.runs.add("train_rec", columns, config={"seed": seed, "partialres": {"rec": {"steps": 6000}}})
            figures = {"rec_accuracy": accuracy, "box_iou": ellipse - 0.05, "ellipse_iou": ellipse}
            found = self.runs.add("rec_val", columns, inputs={"network": trained}, **figures)
            self.write(found, iou=accuracy + WAVE, box_iou=ellipse - 0.05 + WAVE, ellipse_iou=ellipse + WAVE)
            self.recs[seed, model] = trained
        return self.recs[seed, model]

    def add(
        self,
        iou: float,
        *,
        lr: float = 5e-4,
        ids: int = 0,
        shuffle: float = 0.0,
        snapshots: int = 0,
        crop: bool = False,
        warmup: float = 0.05,
        **columns: Any,
    ) -> str:
        """A network whose masks have this IoU on average; that of an image's expressions differs by WAVE."""
        columns = COLUMNS | columns
        seed, model = columns["seed"], columns["model"]
        inputs = {"rec": self.rec(seed=seed, model=model)} if columns["start"] == "rec" else {}
        if columns["pseudo"] == "model":
            guesses = self.runs.add(
                "train_res", {**columns, "pseudo": "none"}, config={"seed": seed}, inputs={**inputs}
            )
            inputs["points"] = self.runs.add("pseudo_points", columns, inputs={"network": guesses}, share_kept=0.4)
        res = {"lr": lr, "steps": columns["steps"], "start": columns["start"], "warmup": warmup}
        res |= {"snapshots": snapshots} if snapshots else {}
        sequence = {"points": columns["contour_points"], "shuffle": shuffle, "task": columns["task"]}
        own = {"res": res, "sequence": sequence, "network": {"model": model}, "image": {"crop": crop}}
        config = {"seed": seed, "partialres": own}
        trained = self.runs.add("train_res", columns, config=config, inputs=inputs)
        answers = self.runs.add("refer_val", columns, inputs={"network": trained})
        name = self.runs.add("res_val", columns, inputs={"answers": answers}, mean_iou=iou, ceiling=0.8)
        self.write(name, iou=iou + WAVE, ids=ids)
        return name

    def write(self, name: str, *, ids: int = 0, **ious: np.ndarray) -> None:
        (self.root / name).mkdir(parents=True)
        objects = ids + np.arange(IMAGES * EACH)
        np.savez(self.root / name / "iou.npz", ids=objects, image_ids=np.repeat(np.arange(IMAGES), EACH), **ious)

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
    """A table of the report: the first cell of a row (of `figure` with its seed) → header → cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (start,) = [i for i, line in enumerate(lines) if line[0] == heading]
    rows = {}
    for line in lines[start + 2 :]:
        if line[0] in ("row", "without any mask", "difference of", "figure"):
            break
        name = " ".join(line[:2]) if heading in ("figure", "without any mask") else line[0]
        rows[name.replace("\\", "")] = dict(zip(lines[start], line, strict=True))
    return rows


def test_every_seed_is_shown_beside_the_mean_of_the_differences(store: Store) -> None:
    for seed, more in ((0, 0.3), (1, 0.2)):
        store.add(0.14, seed=seed, start="none")
        store.add(0.14 + more, seed=seed)
    store.add(0.9, seed=2)
    found = cells(store.report(), "difference of")["naive, N 8, 5 % − alone"]
    assert of(found, "IoU", "95 %") == ["+0.250", "[+0.200, +0.300]"]  # images are alike: the seeds alone make it wide
    assert found["each seed"] == "0: +0.300 [+0.300, +0.300]; 1: +0.200 [+0.200, +0.200]"
    assert found["what it says"] == "at least 0.15 with every seed"


def test_a_floor_is_missed_where_one_seed_is_below_it_and_other_data_have_none(store: Store) -> None:
    for seed, more in ((0, 0.4), (1, 0.1)):
        for data in ("scenes", "coco_mini"):
            store.add(0.1, seed=seed, start="none", data=data)
            store.add(0.1 + more, seed=seed, data=data)
    parts = store.report().split("## ")
    assert [part.partition(",")[0] for part in parts[1:]] == ["coco_mini", "scenes"]
    says = [cells(part, "difference of")["naive, N 8, 5 % − alone"]["what it says"] for part in parts[1:]]
    assert says == ["shows", "below 0.15 with seed 1"]


def test_few_masks_alone_are_set_against_at_both_lengths(store: Store) -> None:
    store.add(0.14, start="none")
    store.add(0.16, start="none", steps=7500)
    store.add(0.42)
    store.add(0.30, steps=500)  # of another length than any
    found = cells(store.report(), "difference of")
    assert found["naive, N 8, 5 % − alone"]["IoU"] == "+0.280"
    assert found["naive, N 8, 5 % − alone for 7,500 steps"]["IoU"] == "+0.260"


def test_parts_have_a_sign_and_an_interval_or_are_not_resolved(store: Store) -> None:
    for seed, gain in ((0, 0.01), (1, -0.01)):
        store.add(0.42, seed=seed)
        store.add(0.42 + gain, seed=seed, cctf="matched")
        store.add(0.40, seed=seed, pmca=True)
        store.add(0.43, seed=seed, **PARTS)
    found = cells(store.report(), "difference of")
    assert of(found["+ CCTF, N 8, 5 % − naive"], "IoU", "what it says") == ["+0.000", "not resolved"]
    assert of(found["+ PMCA, N 8, 5 % − naive"], "IoU", "what it says") == ["-0.020", "below 0"]
    assert of(found["both, N 8, 5 % − naive"], "IoU", "what it says") == ["+0.010", "shows"]
    assert found["full − both"]["what it says"] == "no runs of both"


def test_each_threshold_is_a_row_and_shape_is_proved_against_the_ellipse_alone(store: Store) -> None:
    store.rec(ellipse=0.45)
    store.add(0.41, **PARTS)
    for threshold, iou in ((0.05, 0.44), (0.2, 0.47), (2.0, 0.46)):
        store.add(iou, **FULL | {"threshold": threshold})
    text = store.report()
    assert [*cells(text, "row")] == [
        "both, N 8, 5 %", "full, d < 0.05, N 8, 5 %", "full, d < 0.2, N 8, 5 %", "full, every d, N 8, 5 %",
    ]  # fmt: skip
    found = cells(text, "difference of")
    assert found["full, d < 0.2, N 8, 5 % − both"]["IoU"] == "+0.060"
    says = {name: line["what it says"] for name, line in found.items() if name.endswith("ellipse")}
    assert says == {
        "both, N 8, 5 % − its box's ellipse": "shape was not learned",
        "full, d < 0.05, N 8, 5 % − its box's ellipse": "shape was not learned",
        "full, d < 0.2, N 8, 5 % − its box's ellipse": "shape was learned",
        "full, every d, N 8, 5 % − its box's ellipse": "shape was learned",
    }
    boxes = cells(text, "without any mask")
    assert {name: line["IoU"] for name, line in boxes.items()} == {
        "box, filled 0": "0.400",
        "ellipse in the box 0": "0.450",
    }


def test_an_ellipse_in_a_wrong_box_bounds_no_shape(store: Store) -> None:
    for seed, accuracy in ((0, 0.8), (1, 0.25)):
        store.rec(seed=seed, accuracy=accuracy, ellipse=0.1)
        store.add(0.41, seed=seed, **PARTS)
    name = "both, N 8, 5 % − its box's ellipse"
    says = cells(store.report(), "difference of")[name]["what it says"]
    assert says == "no verdict on shape: the boxes' accuracy, 0.25 with seed 1, is below 0.75"
    assert cells(store.report(seed=["0"]), "difference of")[name]["what it says"] == "shape was learned"


def test_the_share_of_the_masks_and_all_of_them(store: Store) -> None:
    for percent, iou in ((1.0, 0.2), (5.0, 0.4), (100.0, 0.5)):
        store.add(iou, percent=percent)
    store.add(0.52, percent=100.0, **PARTS)
    store.add(0.46, **FULL)
    found = cells(store.report(), "difference of")
    assert [found[name]["IoU"] for name in found if name.startswith("naive, N 8, ") and "naive" in name[8:]] == [
        "+0.200", "+0.100",
    ]  # fmt: skip
    assert found["both, N 8, 100 % − full, d < 0.2, N 8, 5 %"]["IoU"] == "+0.060"


def test_task_tokens_are_compared_with_the_same_masks(store: Store) -> None:
    for task, iou in (("learnable", 0.55), ("zero", 0.54)):
        store.add(iou, task=task, percent=100.0)
    # it crops nothing, so that its record holds the setting's default; and it warms up in other epochs
    store.add(0.56, task="taskwise", percent=100.0, start="none", steps=1000, crop=True, warmup=0.08)
    found = cells(store.report(), "difference of")
    assert {name: of(line, "IoU", "what it says") for name, line in found.items() if name.endswith("100 %")} == {
        "learnable − zero, 100 %": ["+0.010", "above 0"],
        "learnable − taskwise, 100 %": ["-0.010", "below 0"],
        "zero − taskwise, 100 %": ["-0.020", "below 0"],
    }


def test_the_rival_is_compared_although_it_has_no_sequence(store: Store) -> None:
    """Its record holds defaults in place of a sequence's settings, and it starts from boxes of its own."""
    store.add(0.4, shuffle=0.2)
    store.add(0.3, model="query", contour_points=18)
    store.add(0.2, model="query", contour_points=18, percent=1.0)
    found = cells(store.report(), "difference of")
    assert found["naive, N 8, 5 % − query"]["IoU"] == "+0.100"
    assert found["query, 5 % − query, 1 %"]["IoU"] == "+0.100"


def test_only_runs_that_differ_in_what_makes_their_rows_are_compared(store: Store) -> None:
    store.add(0.14, start="none", lr=1e-3)
    store.add(0.15, start="none", contour_points=12)
    store.add(0.42)
    text = store.report()
    assert "no runs of both" in cells(text, "difference of")["naive − alone"]["what it says"]
    assert [*cells(text, "row")] == ["alone, N 8, 5 %", "alone, N 12, 5 %", "naive, N 8, 5 %"]


def test_what_a_training_kept_of_its_course_makes_no_other_row(store: Store) -> None:
    store.add(0.3, start="none")
    store.add(0.4, snapshots=8)
    assert cells(store.report(), "difference of")["naive, N 8, 5 % − alone"]["IoU"] == "+0.100"
    store.add(0.4)
    assert cells(store.report(), "row")["naive, N 8, 5 %"]["IoU"] == "0.400"


def test_two_results_of_one_row_need_a_choice(store: Store) -> None:
    store.add(0.4)
    store.add(0.45, recipe="released")
    with pytest.raises(ReferringError, match=r"two results are naive, N 8, 5 % with seed 0: recipe .*--recipe"):
        store.report()
    assert cells(store.report(recipe=["released"]), "row")["naive, N 8, 5 %"]["IoU"] == "0.450"


def test_figures_to_reach_stand_beside_those_of_single_runs(store: Store) -> None:
    for seed, accuracy in ((0, 0.8), (1, 0.7)):
        store.rec(seed=seed, accuracy=accuracy)
        store.add(0.46, seed=seed, **FULL)
        points = next(r for r in store.runs.records if r["stage"] == "pseudo_points" and r["columns"]["seed"] == seed)
        inputs = {"points": f"pseudo_points/{points['key']}"}
        ious = {"kept_iou": 0.61, "rejected_iou": 0.42 + 0.1 * seed}
        store.runs.add("pseudo_quality_train", points["columns"], inputs=inputs, **ious)
    found = cells(store.report(), "figure")
    assert {name: of(line, "value", "to reach", "reached") for name, line in found.items()} == {
        "accuracy of boxes (sequence) 0": ["0.800", "0.75", "yes"],
        "accuracy of boxes (sequence) 1": ["0.700", "0.75", "no"],
        "kept − rejected IoU, d < 0.2, 5 % 0": ["0.190", "0.1", "yes"],
        "kept − rejected IoU, d < 0.2, 5 % 1": ["0.090", "0.1", "no"],
    }


def test_values_have_intervals_ceilings_and_counts(store: Store) -> None:
    store.add(0.4)
    store.add(0.5, seed=1)
    (line,) = cells(store.report(), "row").values()
    assert of(line, "steps", "IoU", "ceiling", "expressions") == ["1,500", "0.450", "0.800", str(IMAGES * EACH)]
    assert line["each seed"].startswith("0: 0.400 [0.39")


def test_a_difference_is_the_mean_over_expressions_with_images_resampled() -> None:
    """Against a loop: an image of many expressions weighs more, and is drawn as a whole."""
    rng = np.random.default_rng(0)
    images = np.sort(rng.integers(0, 6, 40))
    first, second = (Scores(np.arange(40), images, rng.random(40)) for _ in range(2))
    found = difference([(0, first, second)], 2000)
    gap = first.iou - second.iou
    assert found.value == pytest.approx(gap.mean())
    present = np.unique(images)
    means = []
    for _ in range(2000):
        drawn = np.concatenate([gap[images == image] for image in rng.choice(present, len(present))])
        means.append(drawn.mean())
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_runs_on_other_expressions_do_not_compare(store: Store) -> None:
    store.add(0.14, start="none", ids=7)
    store.add(0.42)
    with pytest.raises(MalError, match="measured on different expressions"):
        store.report()


def test_what_is_missing_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    name = store.add(0.4)
    store.report()
    file = store.root / name / "iou.npz"
    whole = file.read_bytes()
    for part in (b"", whole[:100], b"no archive"):
        file.write_bytes(part)
        assert main(["--store", str(store.root)]) == 1
        assert "iou.npz cannot be read" in capsys.readouterr().err
    with pytest.raises(ReferringError, match="experiment=partialres/parts"):
        store.report(data=["other"])
    with pytest.raises(UnreadableRecordError, match="empty does not exist"):
        report(store.root / "empty", {}, ())


def test_every_row_is_told_from_all_others() -> None:
    asked = {name for names in (*FLOORS, *LARGER, *OPEN) for name in names} | {*RISING, *SHAPED}
    assert asked | {"taskwise"} == ROWS.keys()
    for name, own in ROWS.items():
        found = row_of({"columns": {**COLUMNS, "threshold": 0.1, **own}})
        assert isinstance(found, Row)
        assert found.name == name
    assert row_of({"columns": {**COLUMNS, "cctf": "transposed", "pmca": True}}) is None


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.01, 0.2, "above 0"), (-0.01, 0.2, "not resolved"), (-0.2, -0.01, "below 0")]
)
def test_an_interval_on_zero_resolves_nothing(low: float, high: float, said: str) -> None:
    found = Interval((low + high) / 2, low, high)
    assert open_verdict(found) == said
    assert shape_verdict(found, {}) == f"shape was {'' if low > 0 else 'not '}learned"
