"""A job keeps to the time that the plan promised at the most, however often and for whatever reason it is started."""

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mal.engine.files import write_json
from mal.errors import MalError, Stopped
from slurm import job, queue, starts
from slurm.starts import BEAT, Starts
from slurm.sweep import Entry, Sweep
from slurm.words import clock, times

MINUTES, NOTICE = 60, 120


class Cluster:
    """Stands in for SLURM; notes what is asked of it."""

    def __init__(self) -> None:
        self.limits: list[int] = []
        self.requeued = 0
        self.refuses = ""

    def shorten(self, _: str, minutes: int) -> None:
        if self.refuses:
            raise MalError(self.refuses)
        self.limits.append(minutes)

    def requeue(self, _: str) -> None:
        self.requeued += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(queue, "shorten", found.shorten)
    monkeypatch.setattr(queue, "requeue", found.requeue)
    monkeypatch.setattr(queue, "is_running", lambda _: True)
    monkeypatch.setattr(job.time, "sleep", lambda _: None)
    monkeypatch.delenv("SLURM_JOB_START_TIME", raising=False)
    environment = SimpleNamespace(num_tasks=1, global_rank=0, job_id="7")
    monkeypatch.setattr(job.submitit, "JobEnvironment", lambda: environment)
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(job.StageJob, "_compute", lambda *_: found.append("yes"))
    return found


def sweep_of(folder: Path, *, requeues: int, minutes: int = MINUTES) -> Sweep:
    (folder / "failed").mkdir()
    sweep = Sweep(folder, str(folder / "runs"), "mine", "cpu", requeues, [], {}, notice_seconds=NOTICE)
    sweep.entries["a/1"] = Entry("a", "1", 0, "7", [], minutes=minutes)
    sweep.save()
    return sweep


def start(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, *ran: float) -> str:
    """The job's next start, after others that ran for so many minutes."""
    for number, minutes in enumerate(ran):
        noted(sweep, number, minutes)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(len(ran)))
    return job.StageJob(str(sweep.folder), "a/1")()


def noted(sweep: Sweep, number: int, minutes: float) -> None:
    file, ended = sweep.starts_folder("a/1") / f"7-{number}.json", time.time() - 3600
    write_json(file, {"begun": ended - 60 * minutes + BEAT})
    os.utime(file, (ended, ended))


def failure(sweep: Sweep) -> str:
    return json.loads(sweep.failure_file("a/1").read_text())["error"]


# --- what counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requeues", "ran", "limit"),
    [
        (2, [], None),
        (2, [60, 60], None),  # the third whole limit that was promised
        (2, [2] * 25, None),  # preempted again and again, and still within the promise
        (2, [60, 60, 30], 30),
        (2, [60, 0.5, 100], 19),  # the rest of a minute is given back
        (0, [5], 55),  # a node that failed, without any requeue promised
        (0, [55], 5),
    ],
)
def test_a_start_may_take_what_is_left_of_the_promise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Cluster,
    computed: list[str],
    requeues: int,
    ran: list[float],
    limit: int | None,
) -> None:
    sweep = sweep_of(tmp_path, requeues=requeues)
    assert start(sweep, monkeypatch, *ran) == "a/1"
    assert computed == ["yes"]
    assert cluster.limits == ([] if limit is None else [limit])


@pytest.mark.parametrize(("requeues", "ran"), [(0, [57]), (2, [60, 60, 58]), (0, [60, 60])])
def test_a_start_that_has_nothing_left_fails_with_the_way_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Cluster,
    computed: list[str],
    requeues: int,
    ran: list[float],
) -> None:
    sweep = sweep_of(tmp_path, requeues=requeues)
    with pytest.raises(MalError) as error:
        start(sweep, monkeypatch, *ran)
    assert not computed
    assert not cluster.limits
    assert failure(sweep) == str(error.value)
    starts_of = "1 start" if len(ran) == 1 else f"{len(ran)} starts"
    promised = clock(60 * MINUTES * (1 + requeues))
    assert f"a/1 has run for {clock(60 * sum(ran))} in {starts_of}, and the plan promised {promised} at the" in failure(
        sweep
    )
    assert "The sweep's command goes on from here" in failure(sweep)
    assert "raise requeues in the cluster profile mine" in failure(sweep)


@pytest.mark.usefixtures("cluster")
def test_a_stage_that_is_done_succeeds_whatever_its_job_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[str]
) -> None:
    sweep = sweep_of(tmp_path, requeues=0)
    write_json(tmp_path / "runs" / "a" / "1" / "run.json", {"status": "done", "stage": "a", "key": "1"})
    sweep.failure_file("a/1").write_text("{}")
    assert start(sweep, monkeypatch, 60, 60, 60) == "a/1"
    assert not computed
    assert not sweep.failure_file("a/1").exists()


def test_a_limit_that_slurm_does_not_shorten_is_not_exceeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, computed: list[str]
) -> None:
    sweep, cluster.refuses = sweep_of(tmp_path, requeues=0), "SLURM's scontrol failed: Access denied"
    with pytest.raises(MalError, match=r"0:50 h would be left to it, but its time limit could not be .*Access denied"):
        start(sweep, monkeypatch, 10)
    assert not computed


def test_jobs_of_a_sweep_from_before_limits_were_noted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, computed: list[str]
) -> None:
    assert start(sweep_of(tmp_path, requeues=0, minutes=0), monkeypatch, 60) == "a/1"
    assert (computed, cluster.limits) == (["yes"], [])


# --- a stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requeues", "ran", "goes_back"), [(0, 30, True), (0, 58, False), (1, 58, True), (1, 118, False)]
)
def test_a_stopped_stage_goes_back_into_the_queue_while_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, requeues: int, ran: float, goes_back: bool
) -> None:
    """By preemption after a while, or by the notice before its time limit."""
    sweep = sweep_of(tmp_path, requeues=requeues)

    def stop(*_: Any) -> None:
        raise Stopped("stopped at step 3 (SIGUSR2)")

    def at_work(self: Starts) -> Any:
        write_json(self.folder / f"{self.current}.json", {"begun": time.time() - 60 * ran})
        return nullcontext()

    monkeypatch.setattr(job.StageJob, "_compute", stop)
    monkeypatch.setattr(Starts, "noted", at_work)
    with pytest.raises(SystemExit if goes_back else MalError):
        start(sweep, monkeypatch)
    assert cluster.requeued == goes_back
    if not goes_back:
        assert failure(sweep).startswith("stopped at step 3 (SIGUSR2); it has run for ")
        assert "in 1 start," in failure(sweep)


# --- how long a start has run ----------------------------------------------------------------------------------------


def test_a_start_that_was_killed_counts_to_its_last_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "BEAT", 0.02)
    monkeypatch.delenv("SLURM_JOB_START_TIME", raising=False)
    first, second = Starts(tmp_path, "7-0"), Starts(tmp_path, "7-1")
    with first.noted():
        file = tmp_path / "7-0.json"
        before = file.stat().st_mtime
        end = time.monotonic() + 20
        while file.stat().st_mtime <= before + 0.1:
            assert time.monotonic() < end, "no sign of life"
            time.sleep(0.02)
    assert first.earlier() == []
    assert first.all()[0] >= 0.1
    monkeypatch.setattr(starts, "BEAT", 30.0)
    with second.noted():
        assert second.earlier() == [pytest.approx(first.all()[-1] + 30.0)], "it may have lived on as long as a beat"


def test_slurms_own_beginning_of_a_start_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(int(time.time()) - 100))
    found = Starts(tmp_path, "7-0")
    with found.noted():
        pass
    assert found.all()[0] == pytest.approx(100, abs=20)


def test_a_disk_that_is_full_does_not_end_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with Starts(tmp_path, "7-0").noted():
        monkeypatch.setattr(os, "utime", full)
    monkeypatch.undo()
    assert "the time of this start cannot be noted: no space left" in capsys.readouterr().err


def test_how_often_is_said_as_people_say_it() -> None:
    assert [times(count) for count in (1, 2, 3, 20)] == ["once", "twice", "3 times", "20 times"]


def test_a_plans_limit_is_what_its_job_is_held_to(compose: Callable[..., Any], tmp_path: Path) -> None:
    from slurm.cluster import read_cluster
    from slurm.plan import make_plan
    from slurm.submit import write_sweep

    profile = read_cluster("generic")
    row = compose("profile=smoke", "segmenter=none", "compare=[]", "tracking=none", f"store={tmp_path / 'runs'}")
    plan = make_plan([row], profile)
    (tmp_path / "sweep" / "rows").mkdir(parents=True)
    sweep = write_sweep(plan, row, profile, overrides=[[]], folder=tmp_path / "sweep")
    most = sum(sweep.promised(address) * found.resources.nodes * found.resources.gpus for address, found in
               plan.jobs.items()) / 3600  # fmt: skip
    assert most == pytest.approx(plan.most_gpu_hours)
    assert most > 0
