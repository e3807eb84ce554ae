"""A loss that is not a number is noticed before anything is saved, and blamed on its own batch, however late."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.engine import guard, ranks
from mal.engine.guard import Guard
from mal.errors import TrainingError
from mal.segmenters import loop, training
from mal.segmenters.rcnn import mask_rcnn
from tests.in_processes import in_processes
from tests.test_segmenter import CPU, make_dataset, tiny


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    data = make_dataset(tmp_path_factory.mktemp("finite") / "data", images=4)
    return {"annotations": data / "annotations.json", "images": data / "images"}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are looked at as on a GPU: not in every step."""
    monkeypatch.setattr(guard, "AT_ONCE", ())


def a_guard() -> Guard:
    return Guard(
        torch.nn.Linear(2, 2),
        lambda step, losses, about: TrainingError(f"{about} of step {step} is bad: {losses}"),
        lambda step, names: TrainingError(f"after step {step}: {names}"),
    )


def losses(*values: float) -> dict[str, torch.Tensor]:
    return {f"loss_{index}": torch.tensor(value, requires_grad=True) for index, value in enumerate(values)}


@pytest.mark.usefixtures("late")
def test_the_first_bad_step_is_blamed() -> None:
    watch = a_guard()
    for step, loss in enumerate([1.0, 2.0, float("nan"), float("inf")]):
        watch.add(step, losses(0.5, loss), f"batch {step}")
    assert not any(loss.requires_grad for _, taken, _ in watch.unseen for loss in taken.values())
    with pytest.raises(TrainingError, match=r"^batch 2 of step 2 is bad: {'loss_0': 0.5, 'loss_1': nan}$"):
        watch.look()
    watch.look()  # nothing is left to say


@pytest.mark.usefixtures("late")
def test_what_was_looked_at_is_forgotten() -> None:
    watch = a_guard()
    watch.look()
    watch.add(0, losses(1.0), "batch")
    watch.look()
    assert watch.unseen == []


def test_a_cpu_looks_at_once() -> None:
    watch = a_guard()
    watch.add(0, losses(1.0), "batch")
    assert watch.unseen == []
    with pytest.raises(TrainingError, match=r"of step 1 is bad: {'loss_0': -inf}"):
        watch.add(1, losses(float("-inf")), "batch")


def look() -> str:
    """What a process is told whose second step was bad, where the third process's first was."""
    watch, guard.AT_ONCE = a_guard(), ()  # the process ends with it
    bad = {0: 1, 1: None, 2: 0}[ranks.rank()]  # by process, the first bad step
    for step in range(3):
        watch.add(step, losses(torch.nan if step == bad else 0.5), f"batch of process {ranks.rank()}")
    try:
        watch.look()
    except TrainingError as error:
        return str(error)
    return "nothing"


@pytest.mark.slow
def test_all_processes_tell_of_the_first_bad_step_of_any() -> None:
    assert in_processes(3, look) == ["batch of process 2 of step 0 is bad: {'loss_0': nan}"] * 3


def test_weights_that_are_no_numbers_are_named() -> None:
    watch = a_guard()
    watch.check_weights(1)
    watch.model.bias.data[1] = torch.inf
    with pytest.raises(TrainingError, match=r"after step 2: \['bias'\]"):
        watch.check_weights(2)


@pytest.mark.usefixtures("late")
def test_a_segmenter_notes_the_images_and_losses_of_its_bad_batch(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: torch.nn.Module, batch: list[Any]) -> dict[str, torch.Tensor]:
        return real(model, batch) | {"loss_mask": torch.tensor(torch.nan, requires_grad=True)}

    real = mask_rcnn.losses
    monkeypatch.setattr(mask_rcnn, "NETWORK", replace(mask_rcnn.NETWORK, losses=broken))
    told = r"segmenter step 0 is not a finite number \(loss_mask = nan; image ids \[1\d, 1\d\], learning rate 5e-07\)"
    with pytest.raises(TrainingError, match=told):
        training.train(**where, config=tiny("running.log_steps=1"), seed=0, folder=tmp_path, device=CPU)
    record = json.loads((tmp_path / "not_finite.json").read_text())
    assert record.keys() == {"step", "lr", "losses", "image_ids"}
    assert record["losses"]["loss_mask"] == "nan"
    assert float(record["losses"]["loss_classifier"]) > 0


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("checkpoint_steps", [1, 4])
def test_a_late_look_saves_nothing_that_is_broken(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_steps: int
) -> None:
    """The third step's loss is infinite; losses are looked at where a checkpoint is due."""
    real = mask_rcnn.NETWORK
    calls: list[int] = []

    def breaks(model: torch.nn.Module, batch: list[Any]) -> dict[str, torch.Tensor]:
        calls.append(len(batch))
        parts = real.losses(model, batch)
        return parts | {"loss_mask": parts["loss_mask"] * (torch.inf if len(calls) == 3 else 1)}

    monkeypatch.setattr(mask_rcnn, "NETWORK", replace(real, losses=breaks))
    config = tiny(f"running.checkpoint_steps={checkpoint_steps}", "running.log_steps=100")
    with pytest.raises(TrainingError, match="segmenter step 2 is not a finite number"):
        training.train(**where, config=config, seed=0, folder=tmp_path, device=CPU)
    assert len(calls) == (3 if checkpoint_steps == 1 else 4)
    assert not (tmp_path / "segmenter.pt").exists()
    assert (tmp_path / "checkpoint.pt").exists() == (checkpoint_steps == 1)
    if checkpoint_steps == 1:
        kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert kept["step"] == 2
        assert all(weight.isfinite().all() for weight in kept["model"].values())


@pytest.mark.usefixtures("late")
def test_late_looks_change_no_bit(where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("running.log_steps=2")
    training.train(**where, config=config, seed=0, folder=tmp_path / "late", device=CPU)
    monkeypatch.undo()
    training.train(**where, config=config, seed=0, folder=tmp_path / "at once", device=CPU)
    late, at_once = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("late", "at once"))
    assert all(torch.equal(late["model"][name], at_once["model"][name]) for name in late["model"])


def test_weights_that_an_update_broke_are_not_saved(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._step

    def breaks(run: loop.Run, *rest: Any, **named: Any) -> None:
        real(run, *rest, **named)
        if run.trainer.step == 1:
            with torch.no_grad():
                next(run.model.parameters())[0] = torch.nan

    monkeypatch.setattr(loop, "_step", breaks)
    config = tiny("running.checkpoint_steps=1")
    with pytest.raises(TrainingError, match=r"step 2 left weights that are not finite numbers \(backbone\."):
        training.train(**where, config=config, seed=0, folder=tmp_path, device=CPU)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1
