"""Training: schedules, accumulation, the NaN guard, and going on with the same bits after a stop or a kill."""

import json
import math
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import read, strip
from mal.data.rois import TrainingRois
from mal.engine import guard
from mal.engine.guard import Guard
from mal.engine.runtime import load_checkpoint
from mal.errors import MalError, Stopped, TrainingError
from mal.methods.mal import network as mal
from mal.methods.mal.train import _bad_loss, loss_weights, lr_factor, total_steps, train_labeler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six procedural images with their annotations."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=6, size=128, seed=0, split="train")
    return folder


def train(config: Config, drawn: Path, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    coco = strip(read(drawn / "annotations.json", masks=False))
    return train_labeler(coco, drawn / "images", config, folder=folder, device=CPU)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = load_checkpoint(folder / "labeler.pt")
    return {f"{name}.{key}": value for name in ("student", "teacher") for key, value in saved[name].items()}


def assert_same_bits(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    def curve(folder: Path) -> list[dict[str, float]]:
        lines = map(json.loads, (folder / "curves.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "time"} for line in lines]

    assert curve(first) == curve(second)


def smoke(compose, *overrides: str) -> Config:
    return compose("profile=smoke", "train.steps=13", *overrides)


def test_a_run_stopped_twice_ends_with_the_bits_of_an_uninterrupted_one(compose, drawn, tmp_path):
    config = smoke(compose)
    train(config, drawn, tmp_path / "whole")
    for steps in (3, 6):
        with pytest.raises(Stopped, match="goes on from there"):
            train(replace(config, train=replace(config.train, stop_after=steps)), drawn, tmp_path / "parts")
    train(config, drawn, tmp_path / "parts")
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoint.pt").exists(), "it goes once there is a record"


def test_a_run_begun_with_torchs_average_of_the_student_goes_on(compose, drawn, tmp_path):
    config = smoke(compose, "train.steps=3")
    train(config, drawn, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(replace(config, train=replace(config.train, stop_after=2)), drawn, tmp_path / "former")
    former = load_checkpoint(tmp_path / "former" / "checkpoint.pt")
    former["teacher"]["n_averaged"] = torch.tensor(2)
    torch.save(former, tmp_path / "former" / "checkpoint.pt")
    train(config, drawn, tmp_path / "former")
    assert_same_bits(tmp_path / "whole", tmp_path / "former")


def test_training_changes_the_student_and_the_teacher_lags(compose, drawn, tmp_path):
    train(smoke(compose), drawn, tmp_path)
    found = weights(tmp_path)
    key = "encoder.backbone.patch_embed.proj.weight"
    torch.manual_seed(0)
    assert not torch.equal(found[f"student.{key}"], found[f"teacher.{key}"])


def test_another_seed_gives_other_weights(compose, drawn, tmp_path):
    for seed in (0, 1):
        train(smoke(compose, f"seed={seed}", "train.steps=2"), drawn, tmp_path / str(seed))
    first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_accumulated_gradients_are_those_of_the_whole_batch(compose, drawn, tmp_path):
    for parts in (1, 4):
        train(smoke(compose, "train.steps=2", f"train.accumulate={parts}"), drawn, tmp_path / str(parts))
    whole, split = weights(tmp_path / "1"), weights(tmp_path / "4")
    # AdamW's steps are about the learning rate whatever the gradient's size, so compare against that
    step = 3e-5 * 8
    assert all((whole[key] - split[key]).abs().max() < 0.05 * step for key in whole if whole[key].is_floating_point())


def test_a_loss_that_is_no_number_stops_training_and_saves_the_batch(compose, drawn, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        losses = original(*arguments, **options)
        return replace(losses, total=losses.total * float("nan"))

    original = mal.compute_losses
    monkeypatch.setattr("mal.methods.mal.train.compute_losses", broken)
    with pytest.raises(TrainingError, match=r"the loss is nan.*annotations \[.*bad_batch\.pt.*train\.lr_per_image"):
        train(smoke(compose), drawn, tmp_path)
    saved = load_checkpoint(tmp_path / "bad_batch.pt")
    assert saved["pixels"].shape == (8, 3, 32, 32)
    assert not (tmp_path / "labeler.pt").exists()


def test_the_batch_of_a_bad_loss_is_found_steps_later(compose, drawn, tmp_path, monkeypatch):
    """On a GPU the host looks at the losses every few steps; the culprit is the first that is no number."""
    config = smoke(compose)
    coco = strip(read(drawn / "annotations.json", masks=False))
    rois = TrainingRois(coco, drawn / "images", config=config.roi, batch=8, pool_images=6, seed=0, workers=1)
    monkeypatch.setattr(guard, "AT_ONCE", ())
    watch, batches = Guard(None, partial(_bad_loss, tmp_path), None), list(rois.batches(0, 4))
    for step, (total, batch) in enumerate(zip([0.5, math.inf, 0.4, math.nan], batches, strict=True)):
        watch.add(step, {name: torch.tensor(total) for name in ("total", "mil", "crf")}, batch)
    with pytest.raises(TrainingError, match="the loss is inf"):
        watch.look()
    assert torch.equal(load_checkpoint(tmp_path / "bad_batch.pt")["ids"], batches[1].ids)


@pytest.fixture
def spoiling_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step leaves a weight that is no number."""
    step = torch.optim.AdamW.step

    def breaking(self, *arguments, **named):
        step(self, *arguments, **named)
        self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)


@pytest.mark.usefixtures("spoiling_optimizer")
def test_weights_that_are_no_numbers_are_not_saved_at_a_stop(compose, drawn, tmp_path):
    """In several processes another one's loss was none; here an update spoils them."""
    with pytest.raises(TrainingError, match="no numbers"):
        train(smoke(compose, "train.stop_after=1"), drawn, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.usefixtures("spoiling_optimizer")
def test_weights_that_the_last_step_broke_are_not_saved(compose, drawn, tmp_path):
    with pytest.raises(TrainingError, match="no numbers"):
        train(compose("profile=smoke", "train.steps=1"), drawn, tmp_path)
    assert not (tmp_path / "labeler.pt").exists()


def test_a_damaged_checkpoint_is_named(compose, drawn, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(MalError, match=r"checkpoint\.pt is not a readable checkpoint"):
        train(smoke(compose), drawn, tmp_path)


@pytest.mark.parametrize("state", [{}, {"step": 3}, [1], {"step": 3, "student": {}, "teacher": 1, "optimizer": [],
                                   "scaler": {}, "curve": {}}])  # fmt: skip
def test_a_checkpoint_of_something_else_is_named_with_a_way_out(compose, drawn, tmp_path, state):
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(MalError, match=r"checkpoint\.pt .*delete it, and the same command trains from the start"):
        train(smoke(compose), drawn, tmp_path)


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_a_training_killed_before_its_record_is_not_repeated(compose, drawn, tmp_path, monkeypatch, with_checkpoint):
    config = smoke(compose, "train.steps=3", "train.checkpoint_seconds=0")
    figures, written = train(config, drawn, tmp_path), (tmp_path / "labeler.pt").read_bytes()
    if not with_checkpoint:
        (tmp_path / "checkpoint.pt").unlink()
    monkeypatch.setattr("mal.methods.mal.train.training_step", None)  # a step would fail
    assert train(config, drawn, tmp_path) == figures
    assert (tmp_path / "labeler.pt").read_bytes() == written


def test_a_labeler_cut_short_is_trained_from_its_checkpoint(compose, drawn, tmp_path, capsys):
    config = smoke(compose, "train.steps=3", "train.checkpoint_seconds=0")
    train(config, drawn, tmp_path)
    whole = weights(tmp_path)
    (tmp_path / "labeler.pt").write_bytes((tmp_path / "labeler.pt").read_bytes()[:-5000])
    assert train(config, drawn, tmp_path)["steps"] == 3
    assert "not used" in capsys.readouterr().err
    assert all(torch.equal(whole[key], value) for key, value in weights(tmp_path).items())


def test_the_learning_rate_warms_up_linearly_and_falls_by_a_cosine_to_a_fifth(compose):
    config = compose("profile=paper", "encoder=vit_nano", "segmenter=none")
    factors = [lr_factor(step, 1000, config) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 100)
    assert factors[49] == pytest.approx(50 / 100)
    assert factors[100] == pytest.approx(1.0)
    assert factors[550] == pytest.approx(0.2 + 0.8 / 2)  # half way down
    assert factors[-1] == pytest.approx(0.2, abs=1e-4)


def test_loss_weights_rise_over_their_warm_ups(compose):
    config = compose("profile=paper", "encoder=vit_nano", "segmenter=none")
    assert loss_weights(0, 100_000, config) == (0, 0)
    assert loss_weights(500, 100_000, config) == (pytest.approx(2.0), pytest.approx(0.5 * 500 / 3000))
    assert loss_weights(3000, 100_000, config) == (4.0, 0.5)


def test_ten_epochs_of_coco_are_the_released_number_of_steps(compose):
    config = compose("profile=paper", "encoder=vit_nano", "segmenter=none")
    assert total_steps(config, 320_000) == 100_000


SCRIPT = """
import sys, torch
from pathlib import Path
from omegaconf import OmegaConf
from mal.data.annotations import read, strip
from mal.config import Config
from mal.methods.mal.train import train_labeler
torch.set_num_threads(1)
config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(sys.argv[1])))
drawn = Path(sys.argv[2])
coco = strip(read(drawn / "annotations.json", masks=False))
train_labeler(coco, drawn / "images", config, folder=Path(sys.argv[3]), device=torch.device("cpu"))
"""


@pytest.mark.slow
def test_killed_at_random_steps_it_ends_with_the_same_bits(compose, drawn, tmp_path):
    config = smoke(compose, "train.steps=40", "train.checkpoint_seconds=0")
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    command = [sys.executable, "-c", SCRIPT, tmp_path / "config.yaml", drawn]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    chance, reached = random.Random(0), []
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    for _ in range(3):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        child = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        child.send_signal(signal.SIGKILL)
        child.wait()
        if checkpoint.exists():
            reached.append(load_checkpoint(checkpoint)["step"])
    assert len(set(reached)) >= 2, f"the kills came at steps {reached}: too few to show anything"
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_a_termination_notice_writes_a_checkpoint_and_the_run_goes_on(compose, drawn, tmp_path):
    config = smoke(compose, "train.steps=400")
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    command = [sys.executable, "-c", SCRIPT, tmp_path / "config.yaml", drawn, tmp_path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("train labeler"):
                child.send_signal(signal.SIGTERM)
                break
        rest = child.stderr.read()
    assert child.returncode == 1
    assert "SIGTERM" in rest
    assert 0 < load_checkpoint(tmp_path / "checkpoint.pt")["step"] < 400
