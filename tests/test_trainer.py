"""The loop of every training, around a method of two weights: it resumes to the bit, stops, logs and saves."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mal.engine.curves import Curve
from mal.engine.guard import Guard
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.engine.snapshots import Snapshots, kept
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.errors import MalError, Stopped, TrainingError

CPU = torch.device("cpu")
STEPS = 11


def trainer(folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "factor": 0.5}], lr=1.0)
    return Trainer(
        name="learn",
        folder=folder,
        total=STEPS,
        seed=(7, "step"),
        state={"model": model, "optimizer": optimizer},
        scaler=loss_scaler(CPU, dtype),
        curve=Curve(folder / "curves.jsonl", 4, lambda step, means: {**means, "doubled": 2.0 * step}, ("noise",)),
        guard=Guard(
            model,
            lambda step, losses, about: TrainingError(f"step {step} on {about}: {losses}"),
            lambda step, names: TrainingError(f"{step} steps left {names}"),
        ),
        **{"checkpoint_seconds": 1e9, **options},
    )


def batches(first: int) -> Iterator[Tensor]:
    return (torch.tensor([[step, 1.0]]) for step in range(first, STEPS))


def learn(run: Trainer, *, die: int | None = None, then: Callable[[int], None] | None = None) -> Tensor:
    """The weights in the end; dies within a step, or does something else after each."""
    model, optimizer = run.state["model"], run.state["optimizer"]
    with run.steps(batches) as steps:
        for step, batch in steps:
            set_rate(optimizer, 0.1 / (step + 1))
            noise = torch.rand(())
            loss = (model(batch) - noise).square().mean()
            optimizer.zero_grad()
            run.scaler.scale(loss).backward()
            if step == die:
                raise KeyboardInterrupt
            update(model, optimizer, run.scaler, clip=1.0)
            run.add({"loss_noise": noise, "loss_square": loss}, about=batch.tolist())
            if then is not None:
                then(step)
    return model.weight.detach().clone()


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_killed_in_any_step_it_ends_with_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = learn(trainer(tmp_path / "whole", dtype=dtype))
    for step in range(STEPS):
        folder = tmp_path / str(step)
        for options in ({"checkpoint_steps": 3}, {"checkpoint_seconds": 0.0}):
            with pytest.raises(KeyboardInterrupt):
                learn(trainer(folder, dtype=dtype, **options), die=step)
        assert torch.equal(learn(trainer(folder, dtype=dtype)), whole)
        assert lines(folder) == lines(tmp_path / "whole")


def test_a_line_holds_the_means_since_the_last_and_what_the_method_adds(tmp_path: Path) -> None:
    learn(trainer(tmp_path))
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [4, 8, 11]
    assert [list(line) for line in found] == [["step", "noise", "square", "doubled"]] * 3
    assert [line["doubled"] for line in found] == [8, 16, 22]


def test_a_group_learns_at_its_share_of_the_rate(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    learn(run)
    assert run.state["optimizer"].param_groups[0]["lr"] == 0.5 * 0.1 / STEPS


def test_it_stops_after_so_many_steps_of_this_call_and_goes_on(tmp_path: Path) -> None:
    for reached in (4, 8):
        with pytest.raises(Stopped, match=rf"^stopped after step {reached} of 11 \(train.stop_after\); the same com"):
            learn(trainer(tmp_path, stop_after=4))
        assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == reached
    assert torch.equal(learn(trainer(tmp_path, stop_after=4)), learn(trainer(tmp_path / "whole")))


def test_a_signal_counts_even_where_the_clock_would_save_in_every_step(tmp_path: Path) -> None:
    def noticed(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGUSR2)

    with pytest.raises(Stopped, match=r"after toy step 3 of 11 \(SIGUSR2\)"):
        learn(trainer(tmp_path, checkpoint_seconds=0.0, unit="toy step"), then=noticed)


def test_only_fp16_keeps_a_scale(tmp_path: Path) -> None:
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        with pytest.raises(Stopped):
            learn(trainer(tmp_path / name, dtype=dtype, stop_after=1))
        kept = load_checkpoint(tmp_path / name / "checkpoint.pt").keys()
        assert kept - {"scaler"} == {"step", "model", "optimizer", "curve"}
        assert ("scaler" in kept) == (name == "fp16")


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path, checkpoint_steps=2)

    def spoil(step: int) -> None:
        if step == 1:
            run.state["model"].weight.data.fill_(torch.nan)

    with pytest.raises(TrainingError, match=r"^2 steps left \['weight'\]$"):
        learn(run, then=spoil)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_what_fails_after_a_loss_that_was_no_number_is_its_consequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mal.engine.guard.AT_ONCE", ())
    run = trainer(tmp_path)
    run.state["model"].weight.data.fill_(torch.inf)

    def fail(step: int) -> None:
        if step == 1:
            raise ValueError

    with pytest.raises(
        TrainingError, match=r"^step 0 on \[\[0.0, 1.0\]\]: {'loss_noise': 0\.\d+, 'loss_square': nan}$"
    ):
        learn(run, then=fail)


def curve(folder: Path) -> Curve:
    return Curve(folder / "curves.jsonl", 4, lambda _, means: means, ())


@pytest.mark.parametrize(
    "former",
    [
        {"lines": ["{}"], "latest": {}, "sums": torch.tensor([1.0, 2.0]), "count": 2},  # of labelers
        {"sums": {"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(2.0)}, "count": 2},  # of segmenters
    ],
)
def test_sums_in_checkpoints_of_earlier_versions_are_gone_on_with(tmp_path: Path, former: dict[str, Any]) -> None:
    found = curve(tmp_path)
    found.load_state_dict(former)
    found.add({"loss_a": torch.tensor(2.0), "loss_b": torch.tensor(4.0)})
    found.write(3)
    assert lines(tmp_path) == [{"step": 3, "a": 1.0, "b": 2.0}]


@pytest.mark.parametrize("empty", [{"lines": [], "latest": {}, "sums": None, "count": 0}, {"sums": {}, "count": 0}])
def test_earlier_checkpoints_may_hold_no_sums(tmp_path: Path, empty: dict[str, Any]) -> None:
    found = curve(tmp_path)
    found.load_state_dict(empty)
    assert found.state_dict() == {"sums": None, "count": 0}


def test_a_curve_that_was_read_to_the_cpu_goes_on_where_the_losses_are(tmp_path: Path) -> None:
    """meta stands for a GPU: its tensors do not mix with the CPU's either."""
    found = curve(tmp_path)
    found.load_state_dict({"sums": torch.ones(1), "count": 3})
    found.add({"loss": torch.ones((), device="meta")})
    assert found.state_dict()["sums"].device.type == "meta"
    assert found.state_dict()["count"] == 4


def test_a_file_cut_short_is_not_a_finished_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not finished(tmp_path / "learned.pt")
    torch.save({"weight": torch.rand(1000)}, tmp_path / "learned.pt")
    assert finished(tmp_path / "learned.pt")
    (tmp_path / "learned.pt").write_bytes((tmp_path / "learned.pt").read_bytes()[:-500])
    assert not finished(tmp_path / "learned.pt")
    assert "not used" in capsys.readouterr().err


def test_a_checkpoint_of_another_training_is_named(tmp_path: Path) -> None:
    torch.save({"step": 3, "model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(MalError, match=r"checkpoint\.pt is a checkpoint of something else: it lacks step, model, opt"):
        learn(trainer(tmp_path))


def with_snapshots(folder: Path, count: int, **options: Any) -> Trainer:
    run = trainer(folder, snapshots=Snapshots(folder, count, STEPS), **options)
    run.write = lambda path: save_checkpoint(path, run.state["model"].state_dict())
    return run


def weights_kept(folder: Path, count: int) -> dict[int, float]:
    return {int(path.stem): float(load_checkpoint(path)["weight"][0, 0]) for path in kept(folder, count)}


@pytest.mark.parametrize(
    ("count", "steps"),
    [(1, [11]), (2, [6, 11]), (3, [4, 7, 11]), (11, [*range(1, 12)]), (30, [*range(1, 12)])],
)
def test_networks_are_kept_at_equal_shares_of_the_steps(tmp_path: Path, count: int, steps: list[int]) -> None:
    seen = {}
    run = with_snapshots(tmp_path, count)
    assert not run.snapshots.are_whole()
    end = learn(run, then=lambda step: seen.update({step + 1: float(run.state["model"].weight.detach()[0, 0])}))
    found = weights_kept(tmp_path, count)
    assert found == {step: seen[step] for step in steps}
    assert found[11] == float(end[0, 0])
    assert run.snapshots.are_whole()


def test_keeping_networks_changes_nothing_and_a_killed_run_keeps_the_same(tmp_path: Path) -> None:
    plain = learn(trainer(tmp_path / "plain"))
    assert torch.equal(learn(with_snapshots(tmp_path / "whole", 4)), plain)
    for step in range(STEPS):
        folder = tmp_path / str(step)
        for options in ({"checkpoint_steps": 4}, {"checkpoint_seconds": 0.0}):
            with pytest.raises(KeyboardInterrupt):
                learn(with_snapshots(folder, 4, **options), die=step)
        assert torch.equal(learn(with_snapshots(folder, 4)), plain)
        assert weights_kept(folder, 4) == weights_kept(tmp_path / "whole", 4)


def test_networks_that_went_are_asked_for_in_a_sentence(tmp_path: Path) -> None:
    run = with_snapshots(tmp_path, 3)
    learn(run)
    (tmp_path / "snapshots" / "000000007.pt").unlink()
    assert not run.snapshots.are_whole()
    with pytest.raises(MalError, match=r"holds 2 of 3 snapshots; remove that folder"):
        kept(tmp_path, 3)
    assert Snapshots(tmp_path, 0, STEPS).are_whole()
