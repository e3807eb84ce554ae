"""The training loop of phase 2: any model that returns its losses, from a COCO file to a checkpoint."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mal.data.annotations import read
from mal.engine import ranks
from mal.engine.precision import network_dtype
from mal.engine.progress import Progress
from mal.engine.runtime import StopSignals, is_readable, load_checkpoint, restore, save_checkpoint, seed_everything
from mal.errors import Stopped
from mal.segmenters.batch_norm import share_batch_norms
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.curve import Curve
from mal.segmenters.data import Sample, TrainingSet, order
from mal.segmenters.finite import Noted, Watch, check_weights
from mal.segmenters.optimizer import Factors, build_optimizer, learning_rate, run_length, usual_factors
from mal.segmenters.reading import read_ahead

Build = Callable[[int], nn.Module]  # number of classes, the background not counted → model
Losses = Callable[[nn.Module, list[Sample]], dict[str, Tensor]]
CLOCK = "the clock"  # a reason to save that is none to stop


@dataclass
class Run:
    """What a run carries from step to step, and from a killed process to the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    curve: Curve
    scaler: torch.amp.GradScaler  # of the loss, so that gradients do not vanish in fp16; enabled there alone
    step: int = 0
    watch: Watch = field(default_factory=Watch)

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": {"sums": self.curve.sums, "count": self.curve.count},
        }
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        save_checkpoint(path, state)

    def resume(self, path: Path, *, device: torch.device) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer}
        if self.scaler.is_enabled():
            parts["scaler"] = self.scaler
        state = load_checkpoint(path, parts=("step", "curve", *parts))
        restore(path, parts, state)
        self.step = state["step"]
        self.curve.sums = {name: value.to(device) for name, value in state["curve"]["sums"].items()}
        self.curve.count = state["curve"]["count"]


@dataclass
class Turn:
    """All that one step needs."""

    run: Run
    batch: list[Sample]
    lr: float  # the optimizer has it already
    total: int  # steps of the whole run


def train(
    *,
    annotations: Path,
    images: Path,
    config: SegmenterConfig,
    seed: int,
    folder: Path,
    device: torch.device,
    build: Build,
    losses: Losses,
    factors: Factors = usual_factors,
    progress: str = "train segmenter",
) -> None:
    """Train to folder/segmenter.pt, going on from folder/checkpoint.pt where there is one; see `turns`.

    Raises:
        TrainingError: a loss is not a finite number, which on a GPU is noticed some steps later, before anything is
            saved; or a weight.
        Stopped: by a signal, checkpoint written.
    """
    steps = turns(
        annotations=annotations,
        images=images,
        config=config,
        seed=seed,
        folder=folder,
        device=device,
        build=build,
        factors=factors,
        progress=progress,
    )
    network: nn.Module | None = None
    with closing(steps):
        for turn in steps:
            network = network or ranks.synchronised(_Losses(turn.run.model, losses))
            try:
                _step(turn, network, clip=config.optimizer.clip, folder=folder)
            except Exception:
                if ranks.size() == 1:
                    turn.run.watch.look(folder=folder)  # of a loss before it that was no number, it is a consequence
                raise


class _Losses(nn.Module):
    """A model and its losses as one module, so that gradients can be averaged whatever the backend calls."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        return self.losses(self.model, batch)


def turns(
    *,
    annotations: Path,
    images: Path,
    config: SegmenterConfig,
    seed: int,
    folder: Path,
    device: torch.device,
    build: Build,
    factors: Factors = usual_factors,
    progress: str = "train segmenter",
) -> Generator[Turn, None, None]:
    """The steps that a run still has to do, and all that happens around them: resume, logs, checkpoints.

    Whoever takes a turn does the step (forward, backward, optimizer), adds its losses to `run.curve` and counts it in
    `run.step`, and then asks for the next turn; only so is the step logged, and after the last one segmenter.pt
    written. There are no turns where it is written already, and whole. The checkpoint stays: it may go once there is a
    record of what was learned (store.SCRATCH).

    The same arguments give the same bits on a CPU, however often the run was killed: order and augmentation follow
    (seed, epoch, index), and what the model itself draws (torchvision samples anchors and RoIs with torch's global
    generator) follows (seed, step). folder/curves.jsonl gets a line of mean losses every `running.log_steps`.

    Several processes get equal parts of each batch. Batch norms and the divisors of losses (positives, sampled RoIs)
    are those of the whole batch. So gradients depend on the number of processes by rounding alone, but for what each
    draws at random (anchors, RoIs, points of masks, drop path: see `ranks.own_draws`) and for the padding: each pads
    its part to its own largest image.

    Raises:
        ConfigError: the batch cannot be shared equally by the processes.
        Stopped: by a signal, checkpoint written.
    """
    if ranks.on_first(lambda: is_readable(folder / "segmenter.pt")):
        return
    part = ranks.own_part(config.schedule.batch, "segmenter.schedule.batch")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = TrainingSet(
        read(annotations, masks=config.mask_head),
        images=images,
        scale=config.scale,
        seed=seed,
        masks=config.mask_head,
        class_agnostic=config.class_agnostic,
    )
    seed_everything(seed, "segmenter init")
    model = build(dataset.classes).to(device)
    if ranks.size() > 1:
        share_batch_norms(model)
    optimizer = build_optimizer(model, config.optimizer, factors=factors)
    scaler = torch.amp.GradScaler(device.type, enabled=network_dtype(config.precision, device) == torch.float16)
    run = Run(model, optimizer, Curve(folder / "curves.jsonl"), scaler)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        run.resume(checkpoint, device=device)
    ranks.on_first(lambda: run.curve.truncate(run.step))
    repeats = dataset.repeat_factors(config.schedule.repeat_threshold, config.schedule.repeat_rounding)
    total = run_length(config.schedule, images=len(dataset) if repeats is None else float(repeats.sum()))
    saved, pin = time.monotonic(), device.type == "cuda"
    with StopSignals() as signals, Progress(progress, total=total, done=run.step) as bar:
        for batch in _batches(dataset, config, repeats, seed=seed, first=run.step, total=total, part=part, pin=pin):
            lr = learning_rate(run.step, total=total, optimizer=config.optimizer, schedule=config.schedule)
            seed_everything(seed, "segmenter step", run.step, *ranks.own_draws())
            run.set_rate(lr)
            yield Turn(run, batch, lr, total)
            running = config.running
            logged = run.step % running.log_steps == 0 or run.step == total
            due = running.checkpoint_steps > 0 and run.step % running.checkpoint_steps == 0
            late = time.monotonic() - saved >= running.checkpoint_seconds
            reason = ranks.agreed(signals.raised or (CLOCK if late else None))
            if logged or due or reason:  # in every process alike
                run.watch.look(folder=folder)
            bar.advance(1, **(run.curve.write(run.step, lr=lr) if logged else {}))
            if due or reason or run.step == total:
                check_weights(model, step=run.step)
            if run.step < total and (due or reason):
                if ranks.is_first():
                    run.save(checkpoint)
                saved = time.monotonic()
            if run.step < total and reason and reason != CLOCK:
                raise Stopped(
                    f"stopped after segmenter step {run.step} of {total} ({reason}); the same command goes on "
                    "from there"
                )
    if ranks.is_first():
        state = {"model": model.state_dict(), "category_ids": dataset.category_ids, "classes": dataset.classes}
        save_checkpoint(folder / "segmenter.pt", state)


def _batches(
    dataset: TrainingSet,
    config: SegmenterConfig,
    repeats: NDArray[np.float64] | None,
    *,
    seed: int,
    first: int,
    total: int,
    part: slice,
    pin: bool,
) -> Iterator[list[Sample]]:
    """That part of the batches of the steps `first` to `total`."""
    size = config.schedule.batch
    positions = order(
        len(dataset),
        seed=seed,
        first=first * size,
        stop=total * size,
        factors=repeats,
        tall=dataset.tall() if config.schedule.aspect_groups else None,
        batch=size,
    )
    sampler = iter(lambda: list(islice(positions, size))[part], [])
    yield from read_ahead(dataset, sampler, workers=config.running.workers, pin=pin)


def _step(turn: Turn, network: nn.Module, *, clip: float | None, folder: Path) -> None:
    run = turn.run
    run.model.train()
    parts = network(turn.batch)
    run.watch.add(Noted(run.step, turn.lr, [sample.image_id for sample in turn.batch], parts), folder=folder)
    loss = torch.stack(list(parts.values())).sum()
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if clip is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), clip)
    run.scaler.step(run.optimizer)  # skipped where a scaled gradient is infinite: the next steps scale by less
    run.scaler.update()
    run.curve.add(parts)
    run.step += 1
