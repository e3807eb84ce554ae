"""Phase 1: learn masks from boxes. The loop, its schedule, and what it takes to stop and go on with the same bits."""

import json
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from mal.config import Config
from mal.data.rois import RoiBatch, TrainingRois
from mal.engine import ranks
from mal.engine.compilation import compile_blocks
from mal.engine.files import atomic_write
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.progress import Progress
from mal.engine.runtime import (
    StopSignals,
    is_readable,
    load_checkpoint,
    not_finite_weights,
    restore,
    save_checkpoint,
    seed_everything,
)
from mal.errors import Stopped, TrainingError
from mal.methods.mal.augment import photometrics, photometrics_of_all
from mal.methods.mal.network import MaskNetwork, Photometrics, StepLosses, Teacher, compute_losses, starting_network

CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl
LOOK_EVERY = 10  # steps on a GPU between looks at the losses, each of which waits for all that was launched


def train_labeler(
    coco: dict[str, Any], images: Path, config: Config, *, folder: Path, device: torch.device
) -> dict[str, float]:
    """Train a labeler on boxes and write folder/labeler.pt; go on from folder/checkpoint.pt where there is one.

    The checkpoint stays: it may go once there is a record of what was learned (store.SCRATCH). A labeler.pt that a
    killed run has left is taken as it is.

    Args:
        coco: box-only annotations.
        images: folder of the image files.

    Returns:
        Figures of the run: steps, boxes, final losses.

    Raises:
        AnnotationError: no box passes the training filter.
        ConfigError: the batch cannot be shared equally by the processes.
        TrainingError: the loss is not a number; the batch is saved.
        Stopped: after `train.stop_after` steps of this call.

    Several processes take equal consecutive parts of each batch and average their gradients: the batches, and up to
    rounding the losses, are those of one process that computes a step in as many micro-batches.
    """
    options = config.train
    part = ranks.own_part(options.batch, "train.batch")
    rois = TrainingRois(
        coco,
        images,
        config=config.roi,
        batch=options.batch,
        pool_images=options.pool_images,
        seed=config.seed,
        workers=options.workers,
    )
    steps = total_steps(config, rois.count)
    if (learned := ranks.on_first(lambda: _learned(folder, steps))) is not None:
        return {"steps": steps, "boxes": rois.count, **learned}
    seed_everything(config.seed, "labeler")
    learner = build_learner(config, device)
    curve, guard = _Curve(folder / "curves.jsonl", steps), _Guard(folder)
    kept = {**learner.stateful(), "curve": curve}
    done = _resume(kept, folder)
    saved = time.monotonic()
    with StopSignals() as signals, Progress("train labeler", total=steps, done=done) as progress:
        for step, batch in enumerate(rois.batches(done, steps, part=part, pin=device.type == "cuda"), start=done):
            seed_everything(config.seed, "step", step, *ranks.own_draws())  # stochastic depth and dropout
            for group in learner.optimizer.param_groups:
                group["lr"] = options.lr_per_image * options.batch * lr_factor(step, steps, config)
            losses = training_step(learner, batch.to(device), config, weights=loss_weights(step, steps, config))
            guard.add(losses, batch)
            if device.type == "cpu" or (step + 1) % LOOK_EVERY == 0:
                guard.look()
            curve.add(step + 1, losses)
            progress.advance(1, **curve.latest)
            if step + 1 == steps:
                break
            reason = ranks.agreed("train.stop_after" if step + 1 - done == options.stop_after else signals.raised)
            if reason or time.monotonic() - saved > options.checkpoint_seconds:
                guard.look()
                _guard_weights(learner.student)  # another process's bad loss spoils them too
                if ranks.is_first():
                    curve.flush()
                    save_checkpoint(folder / "checkpoint.pt", _state(kept, step + 1))
                saved = time.monotonic()
            if reason:
                raise Stopped(
                    f"stopped after step {step + 1} of {steps} ({reason}); the same command goes on from there"
                )
    guard.look()
    _guard_weights(learner.student)
    if ranks.is_first():
        curve.flush()
        save_labeler(folder / "labeler.pt", learner.student, learner.teacher, config)
    return {"steps": steps, "boxes": rois.count, **curve.latest}


@dataclass
class Learner:
    """The networks, and what teaches them."""

    student: MaskNetwork
    teacher: Teacher
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss, in fp16; else it does nothing
    network: nn.Module  # the student, or what averages its gradients over the processes
    photometrics: Photometrics
    dtype: torch.dtype  # what the networks compute in

    def stateful(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("student", "teacher", "optimizer", "scaler")}


def build_learner(config: Config, device: torch.device) -> Learner:
    """A student as it starts, its teacher and its optimizer; with `train.compile`, on a GPU, compiled.

    Raises:
        ConfigError, WeightsError.
    """
    options, dtype = config.train, network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    student = starting_network(config).to(device)
    teacher = Teacher(student, options.ema)
    optimizer = torch.optim.AdamW(
        [p for p in student.parameters() if p.requires_grad],
        lr=options.lr_per_image * options.batch,
        betas=(options.betas[0], options.betas[1]),
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=device.type == "cuda",
    )
    change: Photometrics = partial(photometrics, config=config.augment)
    if options.compile and device.type == "cuda":
        for network in (student, teacher.module):
            compile_blocks(network.encoder.backbone)
        change = _on_the_device(torch.compile(partial(photometrics_of_all, config=config.augment), dynamic=False))
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return Learner(student, teacher, optimizer, scaler, ranks.synchronised(student), change, dtype)


def _on_the_device(change: Photometrics) -> Photometrics:
    return lambda images, draws: change(images, draws.to(images.device, non_blocking=True))


def total_steps(config: Config, boxes: int) -> int:
    """Optimiser steps of the whole run: `train.steps`, or epochs × boxes ÷ batch."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None  # checked with the config
    return max(1, round(config.train.epochs * boxes / config.train.batch))


def lr_factor(step: int, steps: int, config: Config) -> float:
    """Linear warm-up, then a cosine down to `final_lr` of the peak; the first step already moves."""
    warmup = max(1, round(config.train.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return config.train.final_lr + (1 - config.train.final_lr) * (1 + math.cos(math.pi * along)) / 2


def loss_weights(step: int, steps: int, config: Config) -> tuple[float, float]:
    """α_mil and α_crf at a step, each rising from 0 over its warm-up."""

    def risen(fraction: float) -> float:
        warmup = fraction * steps
        return min(1.0, step / warmup) if warmup > 0 else 1.0

    loss = config.loss
    return loss.mil_weight * risen(loss.mil_warmup), loss.crf_weight * risen(loss.crf_warmup)


def save_labeler(path: Path, student: nn.Module, teacher: Teacher, config: Config) -> None:
    """A checkpoint that `mal.label` can use alone: both networks and the whole resolved config."""
    save_checkpoint(
        path,
        {
            "student": student.state_dict(),
            "teacher": teacher.module.state_dict(),
            "config": OmegaConf.to_yaml(OmegaConf.structured(config)),
        },
    )


def training_step(learner: Learner, batch: RoiBatch, config: Config, *, weights: tuple[float, float]) -> StepLosses:
    """One optimiser step on a batch, in micro-batches, and the teacher's update. The host waits for nothing.

    Args:
        weights: α_mil and α_crf now.
    """
    micro = batch.split(max(1, config.train.accumulate // ranks.size()))
    collected = []
    learner.optimizer.zero_grad(set_to_none=True)
    for number, rois in enumerate(micro, start=1):
        with ranks.averaging(learner.network, on=number == len(micro)):
            losses = compute_losses(
                learner.network,
                learner.teacher,
                rois,
                loss=config.loss,
                crf=config.crf,
                photometrics=learner.photometrics,
                weights=weights,
                dtype=learner.dtype,
            )
            learner.scaler.scale(losses.total / len(micro)).backward()
        collected.append(losses)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.teacher.update(learner.student)
    mean = {k: torch.stack([getattr(c, k).detach() for c in collected]).mean() for k in vars(collected[0])}
    return StepLosses(**mean)


@dataclass
class _Guard:
    """Finds the batch whose loss is no number, though the host looks only now and then."""

    folder: Path
    unseen: list[tuple[StepLosses, RoiBatch]] = field(default_factory=list)

    def add(self, losses: StepLosses, rois: RoiBatch) -> None:
        self.unseen.append((losses, rois))

    def look(self) -> None:
        """
        Raises:
            TrainingError: a loss since the last look is no number; the first such batch is saved.
        """
        unseen, self.unseen = self.unseen, []
        if not unseen or (finite := torch.stack([losses.total for losses, _ in unseen]).isfinite().cpu()).all():
            return
        losses, rois = unseen[int(finite.long().argmin())]
        path = self.folder / "bad_batch.pt"
        save_checkpoint(path, {name: value.cpu() for name, value in vars(rois).items()})
        raise TrainingError(
            f"the loss is {losses.total.item()} (MIL {losses.mil.item()}, CRF {losses.crf.item()}); the batch of "
            f"annotations {rois.ids.tolist()} is saved in {path}. Lower train.lr_per_image, or use train.precision=fp32"
        )


def _guard_weights(student: nn.Module) -> None:
    """The losses of a step cannot tell what its update did, so nothing is saved unseen."""
    if bad := not_finite_weights(student):
        raise TrainingError(
            f"the last steps left weights that are no numbers ({bad[0]} and {len(bad) - 1} more); lower "
            "train.lr_per_image, or use train.precision=fp32"
        )


def _state(parts: dict[str, Any], step: int) -> dict[str, Any]:
    return {"step": step, **{name: part.state_dict() for name, part in parts.items()}}


def _resume(parts: dict[str, Any], folder: Path) -> int:
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = load_checkpoint(path, parts=("step", *parts))
    if isinstance(state["teacher"], dict):
        state["teacher"].pop("n_averaged", None)  # of torch's EMA, which runs begun earlier had
    restore(path, parts, state)
    return state["step"]


def _learned(folder: Path, steps: int) -> dict[str, float] | None:
    """The final losses of a training that was killed between its labeler.pt and its record; None for any other."""
    try:
        last = json.loads((folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        if last["step"] != steps or not is_readable(folder / "labeler.pt"):
            return None
        return {name: float(last[name]) for name in StepLosses.__dataclass_fields__}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


class _Curve:
    """Losses averaged over CURVE_EVERY steps, summed on the device until then; part of the checkpoint."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps
        self.latest: dict[str, float] = {}
        self._lines: list[str] = []
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None
        self._count = 0

    def add(self, step: int, losses: StepLosses) -> None:
        self._names = list(vars(losses))
        values = torch.stack(list(vars(losses).values()))
        self._sums = values if self._sums is None else self._sums.to(values.device) + values  # read to the CPU
        self._count += 1
        if step % CURVE_EVERY == 0 or step == self.steps:
            means = ranks.mean(self._sums / self._count)
            self.latest = dict(zip(self._names, means.tolist(), strict=True))
            self._lines.append(json.dumps({"step": step, "time": round(time.time(), 1), **self.latest}))
            self._sums, self._count = None, 0

    def flush(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(f"{line}\n" for line in self._lines)

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self._lines, "latest": self.latest, "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lines, self.latest = state["lines"], state["latest"]
        self._sums, self._count = state["sums"], state["count"]
