"""Plans of sweeps: what they unite, what they ask for, what they estimate. No cluster is needed."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mal.config import Config
from mal.data.views import VIEWS
from mal.engine.files import write_json
from mal.engine.graph import Result, Stage
from mal.engine.history import History
from mal.errors import ConfigError, MalError
from mal.methods.registry import METHODS, NONE
from mal.segmenters.stages import PUBLISHED
from slurm import submit
from slurm.cluster import CLUSTERS, Cluster, kinds, read_cluster
from slurm.plan import estimate, kind, make_plan, plan_lines
from slurm.sweep import Entry, Sweep, read_row, read_sweep, write_row
from slurm.watch import State, status_lines

Compose = Callable[..., Config]


def rows(compose: Compose, store: Path, *changes: tuple[str, ...]) -> list[Config]:
    return [compose("profile=smoke", f"store={store}", *change) for change in changes]


@pytest.mark.parametrize("name", sorted(path.stem for path in CLUSTERS.glob("*.yaml")))
def test_every_profile_is_valid(name: str) -> None:
    cluster = read_cluster(name)
    for stage in ("shapes_train", "train_labeler", "label_val.mal", "train_segmenter", "ap_val", "retention"):
        assert cluster.resources(stage).tasks_per_node >= 1


def test_later_patterns_win() -> None:
    cluster = Cluster(
        defaults={"minutes": 5, "cpus": 2},
        stages={"label_*": {"minutes": 10, "gpus": 1}, "label_*.mal": {"gpus": 8}, "*": {"qos": "low"}},
    )
    found = cluster.resources("label_val.mal")
    assert (found.minutes, found.gpus, found.cpus, found.qos, found.tasks_per_node) == (10, 8, 2, "low", 8)
    assert cluster.resources("label_val.box").gpus == 1
    assert cluster.resources("ap_val").gpus == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("device: tpu", "device=tpu must be cuda or cpu"),
        ("gpu: 3", "gpu"),
        ("requeues: -1", "requeues=-1 cannot be negative"),
        ("parallel: 0", "parallel=0 must be at least 1"),
        ("defaults: {minuets: 3}", "minuets"),
        ("defaults: {minutes: 0}", "minutes must be at least 1"),
        ("defaults: {minutes: 3}", "leaves no time to work before the notice 120 s"),
        ("defaults: {gpus: -2}", "gpus and memory_gb cannot be negative"),
        ("defaults: {cpus: many}", "many"),
        ("stages: {train_labler: {gpus: 8}}", "train_labler fits no stage; there are .*train_labeler"),
        ("stages: {label_train: {gpus: 8}}", r"label_train fits no stage; there are .*label_train\.mal"),
        ("stages: {retention: {partiton: gpu}}", "resources of retention: .*partiton"),
        ("stages: {train_labeler: 8}", "8"),
        ("defaults: [", "is no YAML: .*line 1"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_cluster(str(path))


def test_a_profile_may_name_every_stage_that_there_is() -> None:
    code = "".join(file.read_text() for file in (CLUSTERS.parents[1] / "mal").rglob("*.py"))
    code = code.replace("Stage(PUBLISHED", f'Stage("{PUBLISHED}"')
    code = code.replace('Stage("own_ap_val" if own else ', 'Stage("own_ap_val") Stage(')
    code = re.sub(r"_(train|training|asked)\(context, ", "Stage(", code)  # which make stages of several names
    named = {re.sub(r"{.*}", "val", name) for name in re.findall(r'Stage\(\s*f?"([^"]+)"', code)}
    written = named - {"val"} | {f"{view}_val" for view in VIEWS}
    assert len(written) > 10
    assert written == {
        kind.split(".")[0]
        for kind in kinds()
        if not kind.startswith(("shapes_t", "quality_t", "semantic_t", "label_t", *(f"{view}_t" for view in VIEWS)))
    }


def test_every_method_can_be_chosen() -> None:
    files = (CLUSTERS.parents[1] / "experiments/conf/labeler").glob("*.yaml")
    assert {file.stem for file in files} == {*METHODS, NONE}


def test_a_profile_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.cluster=mars: .* choose from generic, local, or copy"):
        read_cluster("mars")


def test_rows_are_united_and_what_is_done_is_dropped(compose: Compose, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    both = rows(compose, store, ("encoder=vit_nano",), ("encoder=convnext_nano",))
    plan = make_plan(both, read_cluster("local"))
    names = [job.stage.name for job in plan.jobs.values()]
    assert len(names) == 31
    assert names.count("train_labeler") == 2
    assert names.count("train_segmenter") == 3, "one supervised segmenter serves both rows"
    seen: set[str] = set()
    for address, job in plan.jobs.items():
        assert set(job.after) <= seen, "inputs come first"
        seen.add(address)
    drawn = next(job.stage for job in plan.jobs.values() if job.stage.name == "shapes_train")
    record = {"stage": drawn.name, "key": drawn.key, "status": "done", "seconds": 3.0, "metrics": {}}
    write_json(store / drawn.address / "run.json", record)
    again = make_plan(both, read_cluster("local"))
    assert list(again.done) == [drawn.address]
    assert all(drawn.address not in job.after for job in again.jobs.values())
    assert "2 rows: 30 stages to do, 1 done already" in plan_lines(again)


def test_rows_of_two_stores_are_refused(compose: Compose, tmp_path: Path) -> None:
    both = [*rows(compose, tmp_path / "a", ()), *rows(compose, tmp_path / "b", ())]
    with pytest.raises(ConfigError, match="share one store"):
        make_plan(both, read_cluster("local"))


def test_only_stages_of_networks_get_gpus(compose: Compose, tmp_path: Path) -> None:
    plan = make_plan(rows(compose, tmp_path, ("segmenter.schedule.batch=8",)), read_cluster("generic"))
    gpus = {kind(job.stage): job.resources.gpus for job in plan.jobs.values()}
    assert {name for name, count in gpus.items() if count} == {
        "train_labeler", "label_train.mal", "label_val.mal", "train_segmenter", "detect_val",
    }  # fmt: skip
    assert all(job.resources.tasks_per_node == 1 for job in plan.jobs.values() if not job.stage.shared)


def test_estimates_come_from_earlier_runs_of_the_same_kind_or_from_the_limit(compose: Compose, tmp_path: Path) -> None:
    plan = make_plan(rows(compose, tmp_path, ()), read_cluster("local"))
    stage = next(job.stage for job in plan.jobs.values() if job.stage.name == "train_labeler")
    for number, seconds in enumerate((10.0, 30.0, 14.0)):
        record = {"stage": stage.name, "key": f"{number:016}", "status": "done", "seconds": seconds, "processes": 1,
                  "columns": {**stage.columns, "seed": number}, "config": stage.config,
                  "provenance": {"hardware": {"gpu": None}}}  # fmt: skip
        write_json(tmp_path / stage.name / f"{number:016}" / "run.json", record)
    resources = read_cluster("local").resources(stage.name)
    assert estimate(History(tmp_path), stage, resources) == (14.0, "3 earlier runs")
    resources.tasks = 2
    assert estimate(History(tmp_path), stage, resources) == (30 * 60, "its time limit")


def test_a_thousand_rows_are_planned_in_seconds(compose: Compose, tmp_path: Path) -> None:
    """Without composing them, which is Hydra's part."""
    from dataclasses import replace

    (row,) = rows(compose, tmp_path, ("segmenter=none",))
    clock = time.process_time()
    plan = make_plan([replace(row, seed=seed) for seed in range(1000)], read_cluster("generic"))
    assert len(plan.jobs) == 5 * 1000 + 10  # shapes, boxes, the baselines' labels and quality are shared
    assert time.process_time() - clock < 60
    assert "1000 rows: 5010 stages to do" in plan_lines(plan)


def test_a_batch_that_the_processes_cannot_share_is_refused_before_anything_is_submitted(
    compose: Compose, tmp_path: Path
) -> None:
    cluster = read_cluster("local")
    cluster.stages = {"train_labeler": {"tasks": 3}}
    with pytest.raises(
        ConfigError, match=r"train\.batch=8 cannot be shared equally by the 3 processes .*train_labeler"
    ):
        make_plan(rows(compose, tmp_path, ()), cluster)


def test_waves_respect_dependencies(compose: Compose, tmp_path: Path) -> None:
    plan = make_plan(rows(compose, tmp_path, ()), read_cluster("local"))
    seen: set[str] = set()
    for wave in submit.waves(plan):
        for job in wave:
            assert set(job.after) <= seen
        seen |= {job.stage.address for job in wave}
    assert seen == plan.jobs.keys()


def test_a_row_comes_back_as_it_was_written(compose: Compose, tmp_path: Path) -> None:
    config = compose("profile=mini", "data=coco", "data.root=/data", "encoder=mae_b", "crf.zeta=0.25")
    write_row(tmp_path / "0000.yaml", config)
    assert read_row(tmp_path / "0000.yaml") == config
    with pytest.raises(MalError, match="moved or cleaned while its jobs waited"):
        read_row(tmp_path / "0001.yaml")


def test_a_sweep_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "runs", "local", "cpu", 3, [["seed=1"]], {"commit": None})
    sweep.entries["a/1"] = Entry("a", "1", 0, "12_3", [], {"seed": 1}, gpus=2)
    sweep.save()
    assert read_sweep(tmp_path) == sweep
    with pytest.raises(MalError, match="there is no sweep nowhere"):
        read_sweep("nowhere")


def test_the_states_are_told_a_line_each(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "runs", "local", "cpu", 3, [], {})
    for number, name in enumerate(("a", "b")):
        sweep.entries[f"{name}/1"] = Entry(name, "1", 0, str(number), [], {"encoder": "vit", "theta": 1.2})
    found = {
        "a/1": State("failed", "the disk is full", tmp_path / "x.err"),
        "b/1": State("not run", "because a/1 failed"),
    }
    assert status_lines(sweep, found) == [
        f"failed           0  a vit theta=1.2  the disk is full  [{tmp_path / 'x.err'}]",
        "not run          1  b vit theta=1.2  because a/1 failed",
        f"{tmp_path.name}: 1 failed, 1 not run",
    ]


def test_options_that_differ_between_rows_are_refused(compose: Compose, tmp_path: Path) -> None:
    both: list[Any] = rows(compose, tmp_path, ("launcher.cluster=local",), ("launcher.cluster=generic",))
    with pytest.raises(ConfigError, match="do not sweep over them"):
        submit.launch(both, [[], []], tmp_path / "sweep")


def test_a_sweep_never_writes_into_the_folder_of_another(tmp_path: Path) -> None:
    wanted = tmp_path / "2026-01-01_00-00-00"
    assert [submit.own_folder(wanted).name for _ in range(3)] == [wanted.name, f"{wanted.name}-2", f"{wanted.name}-3"]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"entries": {"a/1": {"colour": 3}}}'])
def test_a_sweep_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(MalError, match=f"{tmp_path}/sweep.json is no sweep of this version"):
        read_sweep(tmp_path)


@pytest.mark.parametrize("failure", [MalError("the disk is full"), KeyboardInterrupt()])
def test_a_submission_that_breaks_off_takes_its_jobs_back(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    taken: list[str] = []
    cluster = read_cluster("local")
    plan = make_plan(rows(compose, tmp_path / "runs", ("segmenter=none", "compare=[]")), cluster)
    sweep = submit.write_sweep(plan, plan.rows[0], cluster, overrides=[[]], folder=tmp_path / "sweep")

    def broken(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(submit.queue, "queue", dict)
    monkeypatch.setattr(submit.queue, "cancel", taken.extend)
    monkeypatch.setattr(submit, "_submit_alike", lambda jobs, *_, **__: [f"7_{n}" for n in range(len(jobs))])
    monkeypatch.setattr(submit, "write_json", broken)
    with pytest.raises(type(failure)):
        submit.submit(plan, sweep, cluster, snapshot=False, parent=None)
    assert taken == ["7_0"]


def test_labels_of_a_labeler_from_another_data_set_ask_for_what_labels_ask_for() -> None:
    stage = Stage("label_val", 1, {}, lambda _: Result(), columns={"labeler": "mal:coco"})
    assert kind(stage) == "label_val.mal"
