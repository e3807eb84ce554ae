"""Time limits from what trainings take, and what a sweep can cost at the most."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.config import Config
from mal.engine.files import write_json
from mal.engine.graph import Stage
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.mal import cost
from mal.methods.mal.stages import MAL, train
from mal.methods.registry import METHODS
from mal.methods.spec import Training
from mal.request import Graph
from slurm import trainings as known
from slurm.cluster import Resources, kinds, read_cluster
from slurm.plan import BY_V100, check_shares, forecast, make_plan, plan_lines, resumes, with_limit
from tests.paper_data import coco_and_lvis

Compose = Callable[..., Config]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_and_lvis(tmp_path_factory.mktemp("coco"))


def trainings(config: Config, store: Path) -> tuple[Graph, dict[str, Stage]]:
    graph = Graph(config, Store(store), CPU)
    return graph, {"labeler": train(graph.context), "segmenter": graph.segmenters.train(None)}


def v100_seconds(stage: Stage, config: Config, graph: Graph) -> float | None:
    return forecast(stage, config, graph, resources=Resources(gpus=1), speed=1)


def hours(compose: Compose, root: Path, store: Path, *overrides: str) -> dict[str, float]:
    """Of a labeler and a segmenter on eight V100."""
    config = compose("profile=paper", f"data.root={root}", *overrides)
    graph, stages = trainings(config, store)
    found = {name: v100_seconds(stage, config, graph) for name, stage in stages.items()}
    return {name: seconds / 8 / 3600 for name, seconds in found.items() if seconds is not None}


@pytest.fixture
def as_many_as_coco(monkeypatch: pytest.MonkeyPatch) -> None:
    """860,001 boxes, 55 % of which pass, and 117,266 images with objects."""
    monkeypatch.setattr(cost, "_boxes", lambda *_: round(0.55 * 860_001))
    monkeypatch.setattr(known, "_images", lambda *_: 117_266.0)


@pytest.mark.usefixtures("as_many_as_coco")
def test_the_papers_trainings_take_what_the_paper_and_the_zoos_print(
    compose: Compose, root: Path, tmp_path: Path
) -> None:
    found = hours(compose, root, tmp_path, "data=coco", "segmenter=mask_rcnn_r50")
    assert found["labeler"] == pytest.approx(23, rel=0.01)
    assert found["segmenter"] == pytest.approx(12 * 117_266 / 16 * 0.690 / 3600, rel=0.01)  # seconds a step
    assert hours(compose, root, tmp_path, "data=coco", "segmenter=solov2_r50")["segmenter"] == pytest.approx(
        25, rel=0.01
    )
    swin = hours(compose, root, tmp_path, "data=coco", "segmenter=mask2former_swin_s", "encoder=mae_l")
    assert swin["segmenter"] == pytest.approx(72 * 313 / 226, rel=0.02)
    assert swin["labeler"] == pytest.approx(3.5 * found["labeler"])
    plain = hours(compose, root, tmp_path, "data=coco", "segmenter=mask_rcnn_r101")["segmenter"]
    deformable = hours(compose, root, tmp_path, "data=coco", "segmenter=mask_rcnn_r101", "segmenter.dcn=true")
    assert deformable["segmenter"] == pytest.approx(1.2 * plain)
    halved = hours(compose, root, tmp_path, "data=coco", "roi.size=256", "train.epochs=5")
    assert halved["labeler"] == pytest.approx(found["labeler"] / 8, rel=1e-3)


def test_every_segmenter_of_the_papers_tables_has_a_time() -> None:
    menu = Path(__file__).resolve().parents[1] / "experiments" / "conf" / "segmenter"
    names = {path.stem for path in menu.glob("*.yaml") if not path.stem.endswith("_tiny")}
    assert names - set(known.IMAGE_SECONDS) == {"none", "mask_rcnn_timm"}
    assert set(known.IMAGE_SECONDS) <= names


def test_boxes_and_images_of_an_epoch_are_counted_in_the_file_and_once(
    compose: Compose, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = json.loads((root / "lvis_v1_train.json").read_text())
    areas = sorted(a["bbox"][2] * a["bbox"][3] for a in coco["annotations"])
    least = areas[len(areas) // 2]
    config = compose("profile=paper", "data=lvis", f"data.root={root}", f"roi.min_area={least}", "train.batch=1",
                     "segmenter.schedule.repeat_threshold=1", "segmenter.schedule.batch=1")  # fmt: skip
    graph, stages = trainings(config, tmp_path)
    large = sum(area > least for area in areas)
    assert v100_seconds(stages["labeler"], config, graph) == pytest.approx(10 * large * cost.ROI_SECONDS)
    on: dict[int, set[int]] = {}
    for annotation in coco["annotations"]:
        on.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    share = {c: sum(c in there for there in on.values()) / len(on) for there in on.values() for c in there}
    shown = sum(math.ceil(max(math.sqrt(1 / share[c]) for c in there)) for there in on.values())
    per_image = known.IMAGE_SECONDS["mask_rcnn_r50"]
    assert v100_seconds(stages["segmenter"], config, graph) == pytest.approx(12 * shown * per_image)
    for module in (cost, known):
        monkeypatch.setattr(module, "read", lambda *_, **__: pytest.fail("a file was parsed for the second time"))
    for stage in stages.values():
        assert v100_seconds(stage, config, graph)


def test_what_nothing_is_published_of_has_no_forecast(compose: Compose, tmp_path: Path) -> None:
    config = compose("profile=smoke", "train.steps=null", "train.epochs=2")
    graph, stages = trainings(config, tmp_path)
    assert [v100_seconds(stage, config, graph) for stage in stages.values()] == [None, None]  # shapes, and a tiny one
    assert v100_seconds(Stage("ap_val", 1, {}, lambda _: None), config, graph) is None  # type: ignore[arg-type,return-value]


def test_another_methods_training_is_shared_forecast_and_requeued_too(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Training("train_points", "train.batch", lambda config, _: 100.0 * config.train.batch)
    monkeypatch.setitem(METHODS, "points", replace(MAL, name="points", trainings=(other,)))
    kinds.cache_clear()
    assert "train_points" in kinds()
    kinds.cache_clear()
    config = compose("profile=smoke", "train.batch=6")
    stage = Stage("train_points", 1, {}, lambda _: None)  # type: ignore[arg-type,return-value]
    graph = Graph(config, Store(tmp_path), CPU)
    assert forecast(stage, config, graph, resources=Resources(gpus=2), speed=3) == 100
    assert forecast(stage, config, graph, resources=Resources(), speed=3) is None
    assert resumes(stage)
    assert not resumes(Stage("ap_val", 1, {}, lambda _: None))  # type: ignore[arg-type,return-value]
    check_shares(stage, config, Resources(gpus=2))
    with pytest.raises(
        ConfigError, match=r"train\.batch=6 cannot be shared equally by the 4 processes .* train_points"
    ):
        check_shares(stage, config, Resources(gpus=4))


@pytest.mark.parametrize(
    ("hours", "minutes"), [(None, 1440), (0.1, 60), (1, 90), (6.5, 600), (16, 1440), (23, 1440), (100, 1440)]
)
def test_a_limit_is_the_forecast_and_half_of_it_between_minutes_and_longest(hours: float | None, minutes: int) -> None:
    asked = Resources(gpus=8, minutes=60, longest=1440)
    assert with_limit(asked, None if hours is None else 3600 * hours).minutes == minutes
    assert with_limit(Resources(minutes=45), 1e9).minutes == 45


def planned(compose: Compose, root: Path, store: Path, **changes: Any) -> Any:
    cluster = read_cluster("generic")
    for name, value in changes.items():
        setattr(cluster, name, value)
    row = compose("profile=paper", "data=coco", f"data.root={root}", f"store={store}", "compare=[]")
    return make_plan([row], cluster)


def test_at_most_is_what_requeues_can_spend(compose: Compose, root: Path, tmp_path: Path) -> None:
    plan = planned(compose, root, tmp_path, requeues=3)
    with_gpus = [j.resources for j in plan.jobs.values() if j.resources.gpus]
    most = 4 * sum(r.nodes * r.gpus * r.minutes / 60 for r in with_gpus)
    assert plan.most_gpu_hours == most > 0
    spaced = f"{most:,.1f}".replace(",", " ")
    assert f"; at most {spaced}, if every job runs to its time limit and is requeued 3 times" in plan_lines(plan)
    for requeues, said in ((1, "requeued once"), (2, "requeued twice")):
        assert f"and is {said}\n" in plan_lines(planned(compose, root, tmp_path, requeues=requeues))
    alone = planned(compose, root, tmp_path, requeues=0)
    assert alone.most_gpu_hours == most / 4
    assert ", if every job runs to its time limit" in plan_lines(alone)
    assert "requeued" not in plan_lines(alone).split("at most")[-1].splitlines()[0]


@pytest.mark.usefixtures("as_many_as_coco")
def test_limits_and_estimates_follow_from_the_times_on_v100s_and_the_speed(
    compose: Compose, root: Path, tmp_path: Path
) -> None:
    def labeler(speed: float, requeues: int = 20) -> Any:
        plan = planned(compose, root, tmp_path, speed=speed, requeues=requeues)
        return next(j for j in plan.jobs.values() if j.stage.name == "train_labeler"), plan.notes

    slow, notes = labeler(1)
    assert (slow.seconds / 3600, slow.basis) == (pytest.approx(23, rel=0.01), BY_V100)
    assert slow.resources.minutes == 1440
    assert not [note for note in notes if "will fail" in note]  # 21 times 24 h
    fast, _ = labeler(4)
    assert (fast.seconds / 3600, fast.resources.minutes) == (pytest.approx(5.75, rel=0.01), 540)
    record = {"stage": "train_labeler", "key": "0" * 16, "status": "done", "seconds": 36_000.0, "processes": 8,
              "columns": slow.stage.columns, "config": slow.stage.config, "inputs": {},
              "provenance": {"hardware": {"gpu": "A"}}}  # fmt: skip
    write_json(tmp_path / "train_labeler" / ("0" * 16) / "run.json", record)
    known, _ = labeler(4)
    assert (known.seconds, known.basis, known.resources.minutes) == (36_000, "1 earlier run", 900)  # of 10 h, not 5.75
    (tmp_path / "train_labeler" / ("0" * 16) / "run.json").unlink()
    _, notes = labeler(0.5, requeues=0)
    (note,) = [note for note in notes if note.startswith("train_labeler")]
    assert "train_labeler takes about 46:" in note
    assert (
        "so it will fail; in the cluster profile raise its minutes or longest, or give it more GPUs, or mend speed=0.5"
        in note
    )
    assert not [note for note in labeler(0.5, requeues=1)[1] if note.startswith("train_labeler")]


def test_a_stage_that_begins_again_must_end_within_one_limit(compose: Compose, root: Path, tmp_path: Path) -> None:
    plan = planned(compose, root, tmp_path)
    stage = next(j.stage for j in plan.jobs.values() if j.stage.name == "detect_val")
    record = {"stage": stage.name, "key": "0" * 16, "status": "done", "seconds": 7200.0, "processes": 8, "inputs": {},
              "columns": stage.columns, "config": stage.config, "provenance": {"hardware": {"gpu": "V"}}}  # fmt: skip
    write_json(tmp_path / stage.name / ("0" * 16) / "run.json", record)
    (note,) = [note for note in planned(compose, root, tmp_path).notes if note.startswith("detect_val")]
    assert note == (
        "detect_val takes about 2:00 h by 1 earlier run, but its job may run for 0:58 h alone, so it will fail; in the "
        "cluster profile raise its minutes or longest, or give it more GPUs"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed: 0", "speed=0.0 must be positive"),
        ("speed: -2", "speed=-2.0 must be positive"),
        ("speed: fast", "fast"),
        ("defaults: {minutes: 90, longest: 60}", "longest=60 is less than minutes=90"),
    ],
)
def test_a_speed_or_a_limit_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_cluster(str(tmp_path / "mine.yaml"))
