"""The training loop of every method: all that happens around a step. The step itself is the method's.

    trainer = Trainer(name="train labeler", folder=folder, total=steps, state={"student": student}, …)
    with trainer.steps(batches) as steps:
        for step, batch in steps:
            losses = …  # learning rate, forward, backward, update
            trainer.add(losses, about=batch)
    # whoever gets here writes down what was learned

The same arguments give the same bits on a CPU, however often the run was killed, where batches follow from their step
(see `Trainer.steps`) and `state` is all that one step hands to the next: what a step draws at random follows
(seed, step). Several processes get equal parts of each batch (`ranks.own_part`), average their gradients
(`ranks.synchronised`), and log, look, save and stop at the same steps.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard
from mal.engine.progress import Progress
from mal.engine.runtime import StopSignals, is_readable, load_checkpoint, restore, save_checkpoint, seed_everything
from mal.engine.snapshots import Snapshots
from mal.errors import Stopped

Batch = TypeVar("Batch")
CLOCK = "the clock"  # a reason to save that is none to stop


@dataclass(kw_only=True)
class Trainer:
    """A training, and how far it is.

    The checkpoint stays when it is done: it may go once there is a record of what was learned (store.SCRATCH).
    """

    name: str  # in front of the progress
    folder: Path  # of checkpoint.pt
    total: int  # steps
    seed: tuple[int | str, ...]  # of what is drawn in a step, together with its number
    state: Mapping[str, Any]  # what a checkpoint keeps: name → has state_dict and load_state_dict
    scaler: torch.amp.GradScaler  # see `loss_scaler`; kept too, if it is enabled
    curve: Curve
    guard: Guard
    checkpoint_seconds: float
    checkpoint_steps: int = 0  # also every so many steps; 0: by the clock alone
    stop_after: int | None = None  # steps of this call
    snapshots: Snapshots | None = None  # what is kept of the network during training
    write: Callable[[Path], None] | None = None  # writes what has been learned so far, for these
    unit: str = "step"  # in messages
    step: int = 0  # how many are done

    @contextmanager
    def steps(self, batches: Callable[[int], Iterator[Batch]]) -> Iterator[Iterator[tuple[int, Batch]]]:
        """The steps that are still to be done, from folder/checkpoint.pt on where there is one.

        Whoever takes one does it, calls `add` once, and then asks for the next; only so is the step counted and logged,
        and after the last one losses and weights are looked at.

        Args:
            batches: gives the batches (of several processes: this one's parts) from a step on, to the last.

        Yields:
            (step, batch), step from 0.

        Raises:
            MalError: the checkpoint is damaged, or of another training.
            TrainingError: a loss is not a number, which on a GPU is noticed some steps later, before anything is saved;
                or a weight.
            Stopped: by a signal or after `stop_after` steps; the checkpoint is written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        with StopSignals() as signals, Progress(self.name, total=self.total, done=self.step) as progress:
            try:
                with closing(self._steps(batches, signals, progress)) as steps:
                    yield steps
            except Exception:
                if ranks.size() == 1:
                    self.guard.look()  # of a loss before it that was no number, it is a consequence
                raise

    def add(self, losses: Mapping[str, Tensor], *, about: Any) -> None:
        """Take the losses of the step that is being done, before or after it learns from them.

        Args:
            losses: name → scalar, the same names in every step.
            about: what `guard.bad_loss` needs to know of the batch.

        Raises:
            TrainingError: on a CPU, one is not a number.
        """
        self.guard.add(self.step, losses, about)
        self.curve.add(losses)

    def _steps(
        self, batches: Callable[[int], Iterator[Batch]], signals: StopSignals, progress: Progress
    ) -> Generator[tuple[int, Batch], None, None]:
        first, saved = self.step, time.monotonic()
        kept = self.snapshots.steps if self.snapshots is not None else set()
        for batch in batches(first):
            seed_everything(*self.seed, self.step, *ranks.own_draws())
            yield self.step, batch
            self.step += 1
            last = self.step == self.total
            logged = last or self.step % self.curve.every == 0
            due = self.checkpoint_steps > 0 and self.step % self.checkpoint_steps == 0
            snapshot = self.step in kept
            stop = "train.stop_after" if self.step - first == self.stop_after else signals.raised
            late = CLOCK if time.monotonic() - saved >= self.checkpoint_seconds else None
            reason = None if last else ranks.agreed(stop, late)
            if logged or due or snapshot or reason:  # in every process alike
                self.guard.look()
            progress.advance(1, **(self.curve.write(self.step) if logged else {}))
            if last or due or snapshot or reason:
                self.guard.check_weights(self.step)
            if snapshot and self.snapshots is not None and self.write is not None:
                self.snapshots.take(self.step, self.write)
            if last:
                return
            if due or reason:
                self._save()
                saved = time.monotonic()
            if reason and reason != CLOCK:
                raise Stopped(
                    f"stopped after {self.unit} {self.step} of {self.total} ({reason}); the same command goes on from "
                    "there"
                )

    @property
    def _parts(self) -> dict[str, Any]:
        return {**self.state, "curve": self.curve, **({"scaler": self.scaler} if self.scaler.is_enabled() else {})}

    def _save(self) -> None:
        if ranks.is_first():
            state = {name: part.state_dict() for name, part in self._parts.items()}
            save_checkpoint(self.folder / "checkpoint.pt", {"step": self.step, **state})

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.is_file():
            state = load_checkpoint(path, parts=("step", *self._parts))
            restore(path, self._parts, state)
            self.step = state["step"]
        ranks.on_first(lambda: self.curve.truncate(self.step))


def finished(path: Path) -> bool:
    """Whether what is to be learned is there already, and whole, as a killed run may have left it; asked of all."""
    return ranks.on_first(lambda: is_readable(path))


def loss_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Of the loss, so that gradients do not vanish in fp16; with another dtype it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group of parameters this learning rate, times its `factor` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, clip: float | None = None
) -> None:
    """Learn from the gradients of a scaled loss; skipped where one is infinite: the next steps scale by less.

    Args:
        clip: largest norm of all gradients together.
    """
    if clip is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()
