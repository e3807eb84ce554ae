"""Partial-RES as one method among others: its stages, their keys and columns, and whole runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.summary import summary
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from slurm.cluster import kinds
from tests import sweeps
from tests.partialres_cases import changed, draw
from tests.small_configs import stages_of
from tests.test_end_to_end import ROOT, command

CPU = torch.device("cpu")
PARTIALRES = ("labeler=partialres", "profile=smoke")
TRAININGS = ("train_rec", "train_res", "refer_train", "pseudo_points")


def stages(compose, store: Path, *more: str) -> dict[str, list[Stage]]:
    return stages_of(changed(compose, *more, of=PARTIALRES), store)


def keys(compose, store: Path, *more: str) -> dict[str, list[str]]:
    return {name: [it.key for it in found] for name, found in stages(compose, store, *more).items()}


def test_it_chooses_its_data_and_ends_in_expressions_and_labels(compose, tmp_path: Path) -> None:
    config = compose("labeler=partialres")
    assert (config.data.name, config.segmenter.name, config.compare) == ("scenes", "none", ["box", "ellipse"])
    found = stages(compose, tmp_path)
    asked = {"train_rec", "few_masks", "train_res", "refer_train", "pseudo_points", "refer_val", "res_val"}
    assert {*asked, "locate_val", "rec_val", "pseudo_quality_train", "looks_val", "label_val", "quality_val"} <= {
        *found
    }
    assert len(found["train_res"]) == 2
    assert {*found} <= {kind.partition(".")[0] for kind in kinds()}  # a cluster's profile can name each


@pytest.mark.slow
def test_a_run_that_has_no_object_left_for_pseudo_masks_ends_before_it_trains(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    done = command("labeler=partialres", "partialres.few.percent=100", store=store, check=False)
    assert done.returncode == 1
    assert "every training object's mask is learned from" in done.stderr
    assert not [*store.glob("train_*/*/labeler.pt")]
    all_masks = ("labeler=partialres", "partialres.few.percent=100", "partialres.parts.pmca=false")
    command(*all_masks, "partialres.pseudo.kind=none", store=store)  # leaves few_masks and the boxes' training
    assert "every training object's mask" in command(*all_masks[:2], store=store, check=False).stderr
    assert len([*store.glob("train_res/*/labeler.pt")]) == 1


def test_without_validation_images_training_objects_are_labelled_and_nothing_is_scored(compose, tmp_path: Path) -> None:
    draw(tmp_path)
    file = (f"data.train.annotations={tmp_path / 'annotations.json'}", f"data.train.images={tmp_path / 'images'}")
    config = changed(compose, of=(*PARTIALRES, "data=coco", "data.expressions.kind=templates", *file))
    names = {stage.name for stage in in_order(Graph(config, Store(tmp_path / "store"), CPU).targets())}
    assert {"train_rec", "train_res", "label_train"} <= names
    assert not any(name.endswith("_val") for name in names)


def test_human_masks_reach_training_through_the_few_alone(compose, tmp_path: Path) -> None:
    for settings in ((), ("sequence.task=taskwise", "res.start=none"), ("network.model=query",), ("pseudo.kind=box",)):
        for name, found in stages(compose, tmp_path, *settings).items():
            if name in TRAININGS:
                for stage in found:
                    inputs = {it.name for it in stage.inputs.values()} - {"shapes_train"}
                    assert inputs <= {"expressions_train", "few_masks", *TRAININGS}


@pytest.mark.parametrize(
    ("setting", "moved"),
    [
        ("few.percent=60", {"few_masks", "train_res", "refer_train", "pseudo_points"}),
        ("res.end=0.5", {"train_res", "refer_train", "pseudo_points"}),
        ("sequence.points=7", {"train_res", "refer_train", "pseudo_points"}),
        ("parts.pmca=false", {"train_res", "refer_train", "pseudo_points"}),
        ("rec.first=2", {"train_rec", "locate_val", "rec_val", "train_res", "refer_train", "pseudo_points"}),
        ("pseudo.weights=raw", {"refer_train", "pseudo_points", "train_res"}),
        ("pseudo.threshold=1.9", {"pseudo_points", "train_res"}),
        ("testing.weights=raw", {"locate_val", "rec_val"}),
        ("testing.batch=3", set()),
        ("testing.looks=2", {"looks_val"}),
        ("testing.crowd_quirk=true", {"res_val"}),
    ],
)
def test_a_setting_changes_the_keys_of_those_who_read_it(compose, tmp_path: Path, setting: str, moved: set) -> None:
    one, other = keys(compose, tmp_path), keys(compose, tmp_path, setting)
    after = {"refer_val", "res_val", "looks_val", "label_train", "label_val", "quality_train", "quality_val"}
    after |= {"pseudo_quality_train"} if "pseudo_points" in moved else set()
    found = {name for name in one if one[name] != other[name]}
    if "train_res" in moved or "testing.weights" in setting:
        assert moved <= found <= moved | after
        assert {"refer_val", "res_val", "label_val"} <= found
    else:
        assert found == moved


def test_rows_share_what_does_not_know_what_they_vary(compose, tmp_path: Path) -> None:
    """One training of boxes serves the ladder; one first training of masks every threshold."""
    rows = [
        (), ("few.percent=100", "pseudo.kind=none"), ("parts.cctf=none",), ("parts.pmca=false",),
        ("sequence.points=9",), ("sequence.task=zero",), ("pseudo.kind=ellipse",), ("pseudo.threshold=1",),
        ("res.steps=9",),
    ]  # fmt: skip
    assert len({keys(compose, tmp_path, *row)["train_rec"][0] for row in rows}) == 1
    thresholds = [keys(compose, tmp_path, f"pseudo.threshold={d}") for d in (0.5, 1, 2)]
    assert len({found["train_res"][0] for found in thresholds}) == 1
    assert len({found["refer_train"][0] for found in thresholds}) == 1
    assert len({found["train_res"][1] for found in thresholds}) == 3
    boxes = [keys(compose, tmp_path, "pseudo.kind=box", f"pseudo.threshold={d}")["train_res"] for d in (0.5, 2)]
    assert boxes[0] == boxes[1]
    assert "refer_train" not in stages(compose, tmp_path, "pseudo.kind=box")


def test_the_rival_shares_among_what_only_sequences_have(compose, tmp_path: Path) -> None:
    one, *others = (
        keys(compose, tmp_path, "network.model=query", more)
        for more in ("parts.cctf=none", "parts.pmca=false", "sequence.points=9", "sequence.shuffle=0.5")
    )
    assert all((it["train_rec"], it["train_res"]) == (one["train_rec"], one["train_res"]) for it in others)
    with_three = keys(compose, tmp_path, "network.model=query", "network.query.queries=3")
    assert with_three["train_rec"] != one["train_rec"]
    sequences = [keys(compose, tmp_path, f"network.query.queries={n}")["train_rec"] for n in (1, 3)]
    assert sequences[0] == sequences[1]
    assert "looks_val" not in stages(compose, tmp_path, "network.model=query")


def test_boxes_and_masks_in_one_training_have_no_first_one(compose, tmp_path: Path) -> None:
    found = stages(compose, tmp_path, "sequence.task=taskwise", "res.start=none", "pseudo.kind=none")
    assert "train_rec" not in found
    (located,) = found["locate_val"]
    assert located.inputs["network"].name == "train_res"
    assert "rec_val" not in stages(compose, tmp_path, "res.start=none")


def test_networks_that_are_kept_are_part_of_the_training_of_masks_alone(compose, tmp_path: Path) -> None:
    plain, asked = keys(compose, tmp_path), keys(compose, tmp_path, "res.snapshots=2")
    assert set(asked) - set(plain) == {"course_val"}
    assert asked["train_rec"] == plain["train_rec"]
    assert asked["train_res"] != plain["train_res"]


def test_columns_tell_rows_apart(compose, tmp_path: Path) -> None:
    def columns(*more: str, stage: str = "res_val") -> dict:
        return stages(compose, tmp_path, *more)[stage][0].columns

    assert columns() == {
        "profile": "smoke", "data": "scenes", "seed": 0, "labeler": "partialres", "recipe": "best",
        "encoder": "resnet10_nano", "model": "sequence", "percent": 50, "start": "rec", "cctf": "matched", "pmca": True,
        "task": "learnable", "pseudo": "model", "threshold": 2, "contour_points": 6, "steps": 3,
    }  # fmt: skip
    assert columns("pseudo.kind=box")["pseudo"] == "box"
    assert "threshold" not in columns("pseudo.kind=box")
    assert columns(stage="train_res")["pseudo"] == "none"
    query = columns("network.model=query")
    assert (query["model"], query["cctf"], query["pmca"]) == ("query", "none", False)
    rec = columns(stage="rec_val")
    assert (rec["cctf"], rec["pmca"], "percent" in rec) == ("none", False, False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["few.percent=0"], r"few\.percent=0 draws no object"),
        (["sequence.task=taskwise"], r"in one training; set partialres\.res\.start=none"),
        (["rec.epochs=2"], r"set exactly one of partialres\.rec\.epochs and partialres\.rec\.steps"),
        (["res.steps=0"], r"partialres\.res\.steps=0 must be positive"),
        (["network.width=30"], r"network\.width=30 must be a multiple of 4"),
        (["network.width=36", "network.heads=8"], r"must be a multiple of partialres\.network\.heads=8"),
        (["image.side=50"], r"image\.side=50 must be a multiple of 32"),
        (["image.scales=[2, 1]"], r"must be \[least, largest\]"),
        (["sequence.points=2"], r"partialres\.sequence\.points=2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(compose, settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        changed(compose, *settings, of=PARTIALRES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tab1", "parts", "fig1", "fig2", "fig3"])
def test_the_rows_of_its_experiments_make_sense_at_the_papers_scale(compose, name: str) -> None:
    shares = {"tab1": 100, "fig2": 1, "fig3": 1}
    for job in sweeps.jobs(f"experiment=partialres/{name}", "profile=paper"):
        own = compose(*job).partialres
        asked = [float(it.partition("=")[2]) for it in job if it.startswith("partialres.few.percent=")]
        if name == "fig1":
            expected = asked[0]  # the axis
        elif name == "parts":
            expected = 100 if "partialres.few.percent=100" in job else 1
        else:
            expected = shares[name]
        assert own.few.percent == expected, job


@pytest.mark.slow
def test_the_fractions_of_figure_1_need_one_training_of_boxes_per_model(compose, tmp_path: Path) -> None:
    found = set()
    for job in sweeps.jobs("experiment=partialres/fig1", "profile=smoke"):
        graph = Graph(compose(*job), Store(tmp_path), CPU)
        found |= {stage.key for stage in in_order(graph.targets()) if stage.name == "train_rec"}
    assert len(found) == 2  # a sequence's and a query's


def record(stage: str, metrics: dict[str, float], **columns: object) -> dict:
    about = {
        "profile": "demo", "data": "scenes", "seed": 0, "labeler": "partialres", "model": "sequence", "percent": 5.0,
        "start": "rec", "pseudo": "none", **columns,
    }  # fmt: skip
    values = {name: {"value": value, "n": 40} for name, value in metrics.items()}
    key = f"{abs(hash((stage, *about.values()))):016x}"[:16]
    return {
        "stage": stage, "key": key, "columns": about, "config": {}, "inputs": {}, "sources": {}, "metrics": values,
        "seconds": 60.0,
    }  # fmt: skip


def test_a_run_is_told_in_tables() -> None:
    ends = {"": 0.25, "_low": 0.2, "_high": 0.3}
    scored = {f"{name}{end}": value for name in ("mean_iou", "overall_iou") for end, value in ends.items()}
    scored |= {"pr50": 0.5, "pr70": 0.25, "pr90": 0.125, "ceiling": 0.8}
    located = {f"rec_accuracy{end}": value for end, value in ends.items()} | {"box_iou": 0.5, "ellipse_iou": 0.75}
    quality = {"share_kept": 0.5, "kept_iou": 0.75, "rejected_iou": 0.25, "correlation": -0.5}
    said = summary(
        [
            record("res_val", scored),
            record("res_val", scored | {"mean_iou": 0.3}, pseudo="model"),
            record("rec_val", located),
            record("pseudo_quality_train", quality, pseudo="model"),
        ]
    )
    lines = [" ".join(line.replace("|", " ").split()) for line in said.splitlines()]
    assert any(line.endswith("0.250 [0.200, 0.300] 0.250 [0.200, 0.300] 0.500 0.250 0.125 0.800") for line in lines)
    assert any(line.endswith("0.300 [0.200, 0.300] 0.250 [0.200, 0.300] 0.500 0.250 0.125 0.800") for line in lines)
    assert any(line.endswith("0.250 [0.200, 0.300] 0.500 0.750") for line in lines)
    assert "50.0% kept; IoU of these 0.750; of the others 0.250; d and IoU: -0.50" in said


SLOWED = (  # time to be killed in
    *("partialres.rec.steps=12", "partialres.res.steps=12", "label.shard_images=1", "partialres.res.snapshots=3"),
)
LEFT = (  # of a run: stages with what they computed
    *("train_rec", "few_masks", "train_res", "refer_train", "pseudo_points", "refer_val", "locate_val", "res_val"),
    *("rec_val", "looks_val", "label_val", "pseudo_quality_train", "quality_val", "course_val"),
)
KILLED = (  # stages in their order, and what lies in the folder of one that has begun to work
    ("train_rec", "checkpoint.pt"),
    ("train_res", "checkpoint.pt"),
    ("refer_train", "stage.json"),
    ("train_res", "checkpoint.pt"),
    ("label_val", "shards/*.json"),
    ("refer_val", "stage.json"),
)


def results(store: Path) -> Iterator[tuple[str, object]]:
    """What a run computed: files by their place, but for records, which have times."""
    for stage in LEFT:
        for path in sorted((store / stage).glob("*/*")):
            place = str(path.relative_to(store))
            if path.suffix in (".json", ".csv") and path.name not in ("run.json", "stage.json"):
                yield place, path.read_bytes()
            elif path.suffix == ".npz":
                with np.load(path) as held:
                    yield place, b"".join(held[name].tobytes() for name in sorted(held.files))
            elif path.suffix == ".pt":
                state = torch.load(path, weights_only=True)
                parts = [(part, name, value) for part in ("partialres", "ema") for name, value in state[part].items()]
                yield place, [(part, name, value.numpy().tobytes()) for part, name, value in parts]
        for path in sorted((store / stage).glob("*/run.json")):
            yield str(path.relative_to(store)), json.loads(path.read_text())["metrics"]


def working(store: Path, stage: str, trace: str) -> set[Path]:
    """The folders of a stage that has begun and has not ended."""
    found = {next(p for p in path.parents if p.parent.name == stage) for path in store.glob(f"{stage}/*/{trace}")}
    return {path for path in found if not is_done(path)}


def is_done(folder: Path) -> bool:
    file = folder / "run.json"
    return file.is_file() and json.loads(file.read_text())["status"] == "done"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store of a run that nothing interrupts, and what it said."""
    store = tmp_path_factory.mktemp("whole") / "runs"
    return store, command("labeler=partialres", *SLOWED, store=store).stdout


@pytest.mark.slow
def test_a_whole_run_from_expressions_to_a_table(whole: tuple[Path, str]) -> None:
    store, said = whole
    told = ("Partial-RES, boxes", "Masks from expressions", "Boxes from expressions", "Pseudo masks (model")
    for words in (*told, "expressions: ", "labeler:  "):
        assert words in said
    (place,) = (store / "res_val").glob("*/run.json")
    assert f"pictures:    {place.parent / 'sheet.png'}" in said
    with Image.open(place.parent / "sheet.png") as picture:
        assert min(picture.size) > 200
    metrics = json.loads(place.read_text())["metrics"]
    names = {"mean_iou", "mean_iou_low", "mean_iou_high", "overall_iou", "pr50", "pr90", "expressions", "ceiling"}
    assert names <= set(metrics)
    again = command("labeler=partialres", *SLOWED, "dry_run=true", store=store).stdout
    found = re.search(r"(\d+) stages, (\d+) of them done", again)
    assert found is not None
    assert found[1] == found[2]


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_stage_that_takes_long_ends_in_the_same_bits(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    store = tmp_path / "parted"
    arguments = ["labeler=partialres", "profile=smoke", f"store={store}", "tracking=none", *SLOWED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "experiments/run.py", *arguments, "train.checkpoint_seconds=0"], cwd=ROOT, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    killed: set[Path] = set()
    for stage, trace in KILLED:
        process = start()
        while not (found := working(store, stage, trace) - killed):
            assert process.poll() is None, f"the run ended before {stage} was seen at work"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not any(map(is_done, found)), f"{stage} had ended"
        killed |= found
    assert start().wait() == 0
    assert len(killed) == len(KILLED)
    one, other = dict(results(whole[0])), dict(results(store))
    assert {place.partition("/")[0] for place in one} == {*LEFT}
    assert one == other
