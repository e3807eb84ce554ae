"""Phase 1: learn masks from boxes. A step, its schedule, and what is written in the end."""

import json
import math
import time
from dataclasses import dataclass
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
from mal.engine.curves import Curve
from mal.engine.guard import Guard
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import is_readable, save_checkpoint, seed_everything
from mal.engine.trainer import Trainer, loss_scaler, set_rate, update
from mal.errors import TrainingError
from mal.methods.mal.augment import photometrics, photometrics_of_all
from mal.methods.mal.network import MaskNetwork, Photometrics, StepLosses, Teacher, compute_losses, starting_network

CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl; a GPU is waited for as often
LOSSES = tuple(StepLosses.__dataclass_fields__)


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
    trainer = Trainer(
        name="train labeler",
        folder=folder,
        total=steps,
        seed=(config.seed, "step"),  # stochastic depth and dropout
        state={"student": learner.student, "teacher": learner.teacher, "optimizer": learner.optimizer},
        scaler=learner.scaler,
        curve=Curve(folder / "curves.jsonl", CURVE_EVERY, lambda _, m: {"time": round(time.time(), 1), **m}, LOSSES),
        guard=Guard(learner.student, partial(_bad_loss, folder), _bad_weights),
        checkpoint_seconds=options.checkpoint_seconds,
        stop_after=options.stop_after,
    )
    with trainer.steps(lambda done: rois.batches(done, steps, part=part, pin=device.type == "cuda")) as turns:
        for step, batch in turns:
            set_rate(learner.optimizer, options.lr_per_image * options.batch * lr_factor(step, steps, config))
            losses = training_step(learner, batch.to(device), config, weights=loss_weights(step, steps, config))
            trainer.add(vars(losses), about=batch)
    if ranks.is_first():
        save_labeler(folder / "labeler.pt", learner.student, learner.teacher, config)
    return {"steps": steps, "boxes": rois.count, **trainer.curve.means}


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
    scaler = loss_scaler(device, dtype)
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
    update(learner.student, learner.optimizer, learner.scaler)
    learner.teacher.update(learner.student)
    mean = {k: torch.stack([getattr(c, k).detach() for c in collected]).mean() for k in vars(collected[0])}
    return StepLosses(**mean)


def _bad_loss(folder: Path, _step: int, losses: dict[str, float], rois: RoiBatch) -> TrainingError:
    path = folder / "bad_batch.pt"
    save_checkpoint(path, {name: value.cpu() for name, value in vars(rois).items()})
    return TrainingError(
        f"the loss is {losses['total']} (MIL {losses['mil']}, CRF {losses['crf']}); the batch of annotations "
        f"{rois.ids.tolist()} is saved in {path}. Lower train.lr_per_image, or use train.precision=fp32"
    )


def _bad_weights(_step: int, names: list[str]) -> TrainingError:
    return TrainingError(
        f"the last steps left weights that are no numbers ({names[0]} and {len(names) - 1} more); lower "
        "train.lr_per_image, or use train.precision=fp32"
    )


def _learned(folder: Path, steps: int) -> dict[str, float] | None:
    """The final losses of a training that was killed between its labeler.pt and its record; None for any other."""
    try:
        last = json.loads((folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        if last["step"] != steps or not is_readable(folder / "labeler.pt"):
            return None
        return {name: float(last[name]) for name in LOSSES}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
