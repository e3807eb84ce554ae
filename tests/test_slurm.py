"""Sweeps on a real SLURM, started on this machine for the purpose. They skip where there is none."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mal.data import shapes
from mal.data.annotations import read, strip, write
from mal.engine.runtime import load_checkpoint
from slurm import local_cluster

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(local_cluster.missing()), reason=local_cluster.missing())]

ROOT = Path(__file__).resolve().parents[1]
ONE_LABELER = {"boxes_train", "train_labeler", "label_train"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that leads SLURM's commands to a fresh cluster."""
    folder = tmp_path_factory.mktemp("slurm", numbered=True)
    try:
        yield {**os.environ, **local_cluster.up(folder, cpus=3, gpus=2), "OMP_NUM_THREADS": "1"}
    finally:
        local_cluster.down(folder)


def of_boxes(*folders: Path) -> tuple[str, ...]:
    """Settings with which a row of a sweep has no stages but those of ONE_LABELER."""
    return (
        *("segmenter=none", "compare=[]", "tracking=none", "profile=smoke"),
        "data=coco",
        f"data.root={','.join(map(str, folders))}",
        *("data.train.images=images", "data.train.annotations=boxes.json"),
        *("data.val.annotations=null", "data.val.images=null"),
    )


def draw(folder: Path, *, images: int = 8, seed: int = 0) -> Path:
    shapes.generate(folder, images=images, size=128, seed=seed, split="train")
    write(folder / "boxes.json", strip(read(folder / "annotations.json", masks=False)))
    return folder


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A row of three stages."""
    return of_boxes(draw(tmp_path_factory.mktemp("boxes")))


class Sweeps:
    """Submits sweeps to the cluster and waits for what they do."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder, self.store = environment, folder, folder / "runs"

    def submit(
        self, name: str, *overrides: str, wait: bool = False, profile: str = "local", root: Path = ROOT
    ) -> tuple[int, str]:
        command = [sys.executable, "experiments/run.py", "-m", "hydra/launcher=slurm", f"launcher.cluster={profile}",
                   f"hydra.sweep.dir={self.folder / name}", f"store={self.store}", f"launcher.wait={wait}",
                   *overrides]  # fmt: skip
        done = subprocess.run(
            command, cwd=root, env={**self.environment, "PYTHONPATH": str(root)}, text=True, timeout=500,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def ask(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, text=True, check=True, timeout=120, capture_output=True
        ).stdout

    def status(self, name: str) -> str:
        return self.ask(sys.executable, "-m", "slurm.status", str(self.folder / name))

    def sweep(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name / "sweep.json").read_text())

    def job(self, name: str, stage: str) -> str:
        (found,) = [entry["job"] for entry in self.sweep(name)["entries"].values() if entry["stage"] == stage]
        return found

    def finish(self, name: str, seconds: float = 400.0) -> str:
        """The last status of a sweep, once nothing of it is running or queued; requeued jobs are not kept waiting."""
        end = time.monotonic() + seconds
        while True:
            status = self.status(name)
            if not re.search(r"^(running|queued) ", status, re.M):
                return status
            assert time.monotonic() < end, status
            self.hurry()
            time.sleep(2)

    def hurry(self) -> None:
        """SLURM holds a requeued job back for two minutes."""
        for line in self.ask("squeue", "--noheader", "--array", "--format", "%i|%r").splitlines():
            job, reason = line.strip().split("|")
            if reason == "BeginTime":
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def records(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.store.glob("*/*/run.json")):
            found.setdefault(path.parts[-3], []).append(json.loads(path.read_text()))
        return found

    def training(self, name: str, *, past: int = 0) -> Path:
        """Wait until the labeler trains and its checkpoint is that of a later step; its folder."""
        until(lambda: list(self.store.glob("train_labeler/*/checkpoint.pt")), lambda: self.status(name))
        (folder,) = self.store.glob("train_labeler/*/")
        until(lambda: load_checkpoint(folder / "checkpoint.pt")["step"] > past, lambda: self.status(name))
        return folder


@pytest.fixture
def sweeps(cluster: dict[str, str], tmp_path: Path) -> Iterator[Sweeps]:
    found = Sweeps(cluster, tmp_path)
    yield found
    found.ask("scancel", "--quiet", "--user", "root")
    found.ask("scontrol", "update", "NodeName=localhost", "State=RESUME") if "drain" in found.ask(
        "sinfo", "--noheader", "--format", "%T"
    ) else None


def until(true: Callable[[], object], what: Callable[[], str], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def profile(folder: Path, text: str) -> str:
    """A cluster profile of one's own: the local one, and these lines."""
    path = folder / "mine.yaml"
    path.write_text((ROOT / "slurm" / "clusters" / "local.yaml").read_text() + text)
    return str(path)


def test_a_sweep_of_two_encoders_comes_to_its_tables(sweeps: Sweeps) -> None:
    both = ("profile=smoke", "encoder=vit_nano,convnext_nano", "compare=[]", "tracking=none")
    code, said = sweeps.submit("two", *both, wait=True)
    assert code == 0, said
    assert said.count("| MAL masks") == 2, "the table of each row"
    assert "2 rows: 25 stages to do, 0 done already" in said
    entries = sweeps.sweep("two")["entries"]
    assert len(entries) == 25
    assert all(sweeps.store.joinpath(address, "run.json").is_file() for address in entries)
    arrays = {entry["job"] for entry in entries.values() if entry["stage"] == "train_labeler"}
    assert len(arrays) == 2
    assert len({job.split("_")[0] for job in arrays}) == 1, "equal jobs that wait for the same are one array"
    code, said = sweeps.submit("again", *both)
    assert (code, said.strip()) == (0, "25 stages, all of them done: nothing to submit")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two data sets; an image of the second cannot be decoded to its end."""
    for name, seed in (("good", 1), ("bad", 2)):
        draw(tmp_path / name, images=4, seed=seed)
        coco = read(tmp_path / name / "annotations.json", masks=False)
        for entry in coco["images"]:
            file = tmp_path / name / "images" / entry["file_name"]
            Image.open(file).save(file.with_suffix(".jpg"))
            entry["file_name"] = Path(entry["file_name"]).with_suffix(".jpg").name
        write(tmp_path / name / "boxes.json", strip(coco))
    whole = tmp_path / "bad" / "images" / coco["images"][0]["file_name"]
    shutil.copy(whole, tmp_path / "whole.jpg")
    whole.write_bytes(whole.read_bytes()[:-600])
    (tmp_path / "damaged.txt").write_text(str(whole))
    return tmp_path


def test_a_stage_that_fails_takes_its_dependents_alone_and_the_command_does_the_rest_later(
    sweeps: Sweeps, damaged: Path
) -> None:
    overrides = of_boxes(damaged / "good", damaged / "bad")
    code, said = sweeps.submit("bad", *overrides, wait=True)
    assert code == 1
    status = sweeps.finish("bad")
    assert re.search(r"^failed .* train_labeler .*\.jpg is cut off or damaged", status, re.M), status
    assert re.search(r"^not run .* label_train .*because train_labeler/\w+ failed", status, re.M), status
    assert status.splitlines()[-1] == "bad: 4 done, 1 failed, 1 not run"
    assert "error: 2 of 6 stages were not done" in said
    shutil.copy(damaged / "whole.jpg", (damaged / "damaged.txt").read_text())
    code, said = sweeps.submit("mended", *overrides, wait=True)
    assert code == 0, said
    assert "2 rows: 3 stages to do, 3 done already" in said  # an image of other content gives its row other keys


@pytest.fixture(scope="module")
def training(brief: tuple[str, ...]) -> tuple[str, ...]:
    """The same with a training that there is time to disturb."""
    return (*brief, "train.steps=150", "train.checkpoint_seconds=0", "roi.size=64")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, training: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The student that it comes to here, without a cluster."""
    store = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(
        [sys.executable, "experiments/run.py", *training, f"store={store}"], cwd=ROOT, check=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    (file,) = store.glob("train_labeler/*/labeler.pt")
    return load_checkpoint(file)["student"]


def disturb_by_signal(sweeps: Sweeps, name: str) -> None:
    sweeps.ask("scancel", "--signal=USR2", sweeps.job(name, "train_labeler"))


def disturb_by_requeue(sweeps: Sweeps, name: str) -> None:
    sweeps.ask("scontrol", "requeue", sweeps.job(name, "train_labeler"))


def test_a_training_that_is_sent_back_goes_on_to_the_same_bits(
    sweeps: Sweeps, training: tuple[str, ...], undisturbed: dict[str, torch.Tensor]
) -> None:
    code, said = sweeps.submit("one", *training)
    assert code == 0, said
    reached = 0
    for disturb in (disturb_by_signal, disturb_by_requeue):
        folder = sweeps.training("one", past=reached + 10)
        disturb(sweeps, "one")
        until(lambda: "BeginTime" in sweeps.ask("squeue", "--noheader", "--format", "%r"), lambda: sweeps.status("one"))
        before, reached = reached, load_checkpoint(folder / "checkpoint.pt")["step"]
        assert before + 10 < reached < 150
        assert "it goes on where it was" in sweeps.status("one")
        sweeps.hurry()
    assert sweeps.finish("one").splitlines()[-1] == "one: 3 done"
    log = log_of(sweeps, "one", sweeps.job("one", "train_labeler"))
    starts = [int(n) for n in re.findall(r"train labeler: (\d+)/150 steps, .* ETA", log)]
    assert max(starts) > reached or reached in starts or len(starts) >= 3, "the last job went on, it did not begin anew"
    student = load_checkpoint(folder / "labeler.pt")["student"]
    assert all(torch.equal(student[name], undisturbed[name]) for name in undisturbed)
    (record,) = sweeps.records()["train_labeler"]
    assert record["provenance"]["job"] == {"id": sweeps.job("one", "train_labeler"), "restarts": 2}


def test_a_killed_job_is_told_apart_and_taken_up_again(
    sweeps: Sweeps, training: tuple[str, ...], undisturbed: dict[str, torch.Tensor]
) -> None:
    sweeps.submit("killed", *training)
    folder = sweeps.training("killed", past=10)
    job = sweeps.job("killed", "train_labeler")
    os.kill(process_of(job), signal.SIGKILL)
    status = sweeps.finish("killed")
    assert re.search(rf"^failed +{job} +train_labeler .*job {job} has left the queue without a result", status, re.M)
    assert status.splitlines()[-1] == "killed: 1 done, 1 failed, 1 not run"
    code, said = sweeps.submit("again", *training)
    assert code == 0, said
    assert sweeps.finish("again").splitlines()[-1] == "again: 2 done"
    student = load_checkpoint(folder / "labeler.pt")["student"]
    assert all(torch.equal(student[name], undisturbed[name]) for name in undisturbed)


def process_of(job: str) -> int:
    """The Python process of a job."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        python = Path(command[0].decode()).name.startswith("python") and b"submitit.core._submit" in command
        if python and f"SLURM_JOB_ID={job}".encode() in variables:
            return int(entry.name)
    raise AssertionError(f"no process of job {job}")


def test_a_time_limit_costs_nothing_but_time(sweeps: Sweeps, brief: tuple[str, ...], tmp_path: Path) -> None:
    mine = profile(tmp_path, "stages: {train_labeler: {minutes: 2}}\n")
    code, said = sweeps.submit("limited", *brief, "train.steps=40000", "roi.size=64", profile=mine)
    assert code == 0, said
    job = sweeps.job("limited", "train_labeler")
    until(lambda: "Requeued, for start 2" in log_of(sweeps, "limited", job), lambda: sweeps.status("limited"), 300)
    folder = sweeps.training("limited")
    assert 0 < load_checkpoint(folder / "checkpoint.pt")["step"] < 40000
    said = log_of(sweeps, "limited", job)
    assert "(SIGUSR2)" in said


def test_one_that_is_sent_back_too_often_fails(sweeps: Sweeps, training: tuple[str, ...], tmp_path: Path) -> None:
    mine = profile(tmp_path, "stages: {train_labeler: {minutes: 2}}\n")
    Path(mine).write_text(Path(mine).read_text().replace("requeues: 5", "requeues: 0"))
    sweeps.submit("often", *training, profile=mine)
    sweeps.training("often", past=5)
    disturb_by_signal(sweeps, "often")
    status = sweeps.finish("often")
    assert re.search(r"it has run for 0:0[12] h in 1 start, and the plan promised 0:02 h at the most", status)


def test_one_that_slurm_starts_again_keeps_to_its_one_limit(
    sweeps: Sweeps, training: tuple[str, ...], tmp_path: Path
) -> None:
    """As after a node's failure; nothing was promised but one time limit, and most of that is left."""
    mine = profile(tmp_path, "")
    Path(mine).write_text(Path(mine).read_text().replace("requeues: 5", "requeues: 0"))
    sweeps.submit("again", *training, profile=mine)
    sweeps.training("again", past=5)
    disturb_by_requeue(sweeps, "again")
    job = sweeps.job("again", "train_labeler")
    until(lambda: "BeginTime" in sweeps.ask("squeue", "--noheader", "--format", "%r"), lambda: sweeps.status("again"))
    sweeps.hurry()
    until(lambda: "of what the plan promised" in log_of(sweeps, "again", job).lower(), lambda: sweeps.status("again"))
    limit = re.search(r"TimeLimit=00:(\d\d):00", sweeps.ask("scontrol", "show", "job", job))
    assert limit is not None
    assert 25 <= int(limit[1]) <= 29
    assert sweeps.finish("again").splitlines()[-1] == "again: 3 done"


def log_of(sweeps: Sweeps, name: str, job: str) -> str:
    return "".join(path.read_text() for path in (sweeps.folder / name / "logs").glob(f"{job}_*_log.err"))


def test_a_stage_in_two_processes_is_one_stage(sweeps: Sweeps, brief: tuple[str, ...], tmp_path: Path) -> None:
    mine = profile(tmp_path, "stages: {train_labeler: {gpus: 2}, 'label_*.mal': {tasks: 2}}\n")
    code, said = sweeps.submit("pair", *brief, wait=True, profile=mine)
    assert code == 0, said
    records = sweeps.records()
    assert records["train_labeler"][0]["processes"] == 2
    assert [record["processes"] for record in records["label_train"]] == [2]
    assert records["boxes_train"][0]["processes"] == 1
    assert records.keys() == ONE_LABELER


def test_two_sweeps_that_overlap_compute_each_stage_once(sweeps: Sweeps, brief: tuple[str, ...]) -> None:
    sweeps.ask("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    try:
        first, said = sweeps.submit("first", *brief, "seed=0,1")
        assert first == 0, said
        second, said = sweeps.submit("second", *brief, "seed=1,2")
        assert second == 0, said
    finally:
        sweeps.ask("scontrol", "update", "NodeName=localhost", "State=RESUME")
    assert "3 stages are in the queue for another sweep already" in said
    assert sweeps.finish("second").splitlines()[-1] == "second: 5 done"
    assert sweeps.finish("first").splitlines()[-1] == "first: 5 done"
    assert {stage: len(found) for stage, found in sweeps.records().items()} == {
        stage: 1 if stage == "boxes_train" else 3 for stage in ONE_LABELER
    }


def test_a_cancelled_sweep_leaves_the_queue_and_what_another_needs_stays(
    sweeps: Sweeps, brief: tuple[str, ...]
) -> None:
    sweeps.ask("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    sweeps.submit("mine", *brief, "hydra.sweep.dir=" + str(sweeps.folder / "mine"))
    before = len(sweeps.ask("squeue", "--noheader", "--array").splitlines())
    assert before == 3
    assert "submitted 0 jobs (none); 3 stages" in sweeps.submit("other", *brief)[1]
    said = sweeps.ask(sys.executable, "-m", "slurm.cancel", str(sweeps.folder / "mine"))
    assert said.startswith("mine: 0 jobs taken back")
    assert said.count("stays: the sweep other waits for it too") == 3
    assert len([*sweeps.store.glob("*/*/queued.json")]) == 3  # by which the store knows that their inputs are needed
    said = sweeps.ask(sys.executable, "-m", "slurm.cancel", str(sweeps.folder / "other"))
    assert said.strip() == "other: 3 jobs taken back"  # nobody needs them now
    assert not [*sweeps.store.glob("*/*/queued.json")]
    until(lambda: not sweeps.ask("squeue", "--noheader").strip(), lambda: sweeps.ask("squeue"))
    assert sweeps.status("mine").count("because the sweep was taken back") == 3


def test_what_was_submitted_runs_whatever_is_edited_later(
    sweeps: Sweeps, brief: tuple[str, ...], tmp_path: Path
) -> None:
    """Config, and with launcher.snapshot=true the code too."""
    tree = tmp_path / "tree"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True, timeout=120)
    for name in ("analysis", "experiments", "mal", "slurm"):
        shutil.copytree(ROOT / name, tree / name, dirs_exist_ok=True)
    sweeps.ask("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    code, said = sweeps.submit("frozen", *brief, "launcher.snapshot=true", root=tree)
    assert code == 0, said
    conf = tree / "experiments" / "conf" / "profile" / "smoke.yaml"
    conf.write_text(conf.read_text().replace("steps: 4", "steps: 7"))
    (tree / "mal" / "train.py").write_text("raise RuntimeError('edited while it was queued')\n")
    sweeps.ask("scontrol", "update", "NodeName=localhost", "State=RESUME")
    assert sweeps.finish("frozen").splitlines()[-1] == "frozen: 3 done"
    (record,) = sweeps.records()["train_labeler"]
    assert record["config"]["train"]["steps"] == 4
    assert record["provenance"]["commit"] == sweeps.sweep("frozen")["code"]["commit"]


def test_a_job_that_slurm_refuses_takes_the_others_back(sweeps: Sweeps, brief: tuple[str, ...], tmp_path: Path) -> None:
    mine = profile(tmp_path, "stages: {train_labeler: {partition: nowhere}}\n")
    sweeps.ask("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    code, said = sweeps.submit("refused", *brief, profile=mine)
    assert code == 1
    assert "error: SLURM refused the job of train_labeler: " in said
    assert "invalid partition" in said
    assert "were taken back" in said
    until(lambda: not sweeps.ask("squeue", "--noheader").strip(), lambda: sweeps.ask("squeue"))
