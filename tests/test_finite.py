"""A loss that is not a number is noticed before anything is saved, and blamed on its own batch, however late."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.errors import TrainingError
from mal.segmenters import finite, loop, training
from mal.segmenters.finite import Noted, Watch, check_weights
from mal.segmenters.rcnn import mask_rcnn
from tests.test_segmenter import CPU, make_dataset, tiny


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    data = make_dataset(tmp_path_factory.mktemp("finite") / "data", images=4)
    return {"annotations": data / "annotations.json", "images": data / "images"}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are looked at as on a GPU: not in every step."""
    monkeypatch.setattr(finite, "AT_ONCE", ())


def noted(step: int, *losses: float) -> Noted:
    values = {f"loss_{index}": torch.tensor(loss, requires_grad=True) for index, loss in enumerate(losses)}
    return Noted(step=step, lr=0.1, image_ids=[step, step + 100], losses=values)


@pytest.mark.usefixtures("late")
def test_the_first_bad_step_is_blamed(tmp_path: Path) -> None:
    watch = Watch()
    for step, loss in enumerate([1.0, 2.0, float("nan"), float("inf")]):
        watch.add(noted(step, 0.5, loss), folder=tmp_path)
    assert not any(loss.requires_grad for taken in watch.steps for loss in taken.losses.values())
    with pytest.raises(TrainingError, match=r"step 2 is not a finite number \(loss_1 = nan; image ids \[2, 102\]"):
        watch.look(folder=tmp_path)
    record = json.loads((tmp_path / "not_finite.json").read_text())
    assert record == {"step": 2, "lr": 0.1, "losses": {"loss_0": "0.5", "loss_1": "nan"}, "image_ids": [2, 102]}


@pytest.mark.usefixtures("late")
def test_what_was_looked_at_is_forgotten(tmp_path: Path) -> None:
    watch = Watch()
    watch.look(folder=tmp_path)
    watch.add(noted(0, 1.0), folder=tmp_path)
    watch.look(folder=tmp_path)
    assert watch.steps == []


def test_a_cpu_looks_before_it_learns_from_a_step(tmp_path: Path) -> None:
    watch = Watch()
    watch.add(noted(0, 1.0), folder=tmp_path)
    assert watch.steps == []
    with pytest.raises(TrainingError, match=r"step 1 is not a finite number \(loss_0 = -inf"):
        watch.add(noted(1, float("-inf")), folder=tmp_path)


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
    model = torch.nn.Linear(2, 2)
    check_weights(model, step=1)
    real = loop._step

    def breaks(turn: loop.Turn, *rest: Any, **named: Any) -> None:
        real(turn, *rest, **named)
        if turn.run.step == 2:
            with torch.no_grad():
                next(turn.run.model.parameters())[0] = torch.nan

    monkeypatch.setattr(loop, "_step", breaks)
    config = tiny("running.checkpoint_steps=1")
    with pytest.raises(TrainingError, match=r"step 2 left weights that are not finite numbers \(backbone\."):
        training.train(**where, config=config, seed=0, folder=tmp_path, device=CPU)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1
