"""The training of phase 2: any model that returns its losses, from a COCO file to segmenter.pt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mal.data.annotations import read
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.files import write_json
from mal.engine.guard import Guard, bad_weights_left
from mal.engine.precision import network_dtype
from mal.engine.runtime import save_checkpoint, seed_everything
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.errors import TrainingError
from mal.segmenters.batch_norm import share_batch_norms
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import Sample, TrainingSet, order, parts_of_batches
from mal.segmenters.optimizer import Factors, build_optimizer, learning_rate, run_length, usual_factors
from mal.segmenters.reading import read_ahead

Build = Callable[[int], nn.Module]  # number of classes, the background not counted → model
Losses = Callable[[nn.Module, list[Sample]], dict[str, Tensor]]
UNIT = "segmenter step"  # in messages
WAY_OUT = "Lower segmenter.optimizer.lr, set segmenter.optimizer.clip, or use segmenter.precision=fp32"


@dataclass
class Run:
    """A segmenter in training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    trainer: Trainer
    rate: Callable[[int], float]  # learning rate of a step


Steps = Iterator[tuple[int, list[Sample]]]
Drive = Callable[[Run, Steps], None]


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
    drive: Drive | None = None,
) -> None:
    """Train to folder/segmenter.pt, going on from folder/checkpoint.pt where there is one.

    Nothing happens where segmenter.pt is written already, and whole.

    The same arguments give the same bits on a CPU, however often the run was killed: order and augmentation follow
    (seed, epoch, index), and what the model itself draws (torchvision samples anchors and RoIs with torch's global
    generator) follows (seed, step). folder/curves.jsonl gets a line of mean losses every `running.log_steps`.

    Several processes get equal parts of each batch. Batch norms and the divisors of losses (positives, sampled RoIs)
    are those of the whole batch. So gradients depend on the number of processes by rounding alone, but for what each
    draws at random (anchors, RoIs, points of masks, drop path: see `ranks.own_draws`) and for the padding: each pads
    its part to its own largest image.

    Args:
        drive: takes the steps (see `Trainer.steps`) and their learning rates itself; `losses` are not asked then.

    Raises:
        ConfigError: the batch cannot be shared equally by the processes.
        TrainingError: a loss is not a finite number, which on a GPU is noticed some steps later, before anything is
            saved; or a weight.
        Stopped: by a signal, checkpoint written.
    """
    if finished(folder / "segmenter.pt"):
        return
    part = ranks.own_part(config.schedule.batch, "segmenter.schedule.batch")
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
    repeats = dataset.repeat_factors(config.schedule.repeat_threshold, config.schedule.repeat_rounding)
    total = run_length(config.schedule, images=len(dataset) if repeats is None else float(repeats.sum()))
    rate = partial(learning_rate, total=total, optimizer=config.optimizer, schedule=config.schedule)
    running = config.running
    trainer = Trainer(
        name="train segmenter",
        folder=folder,
        total=total,
        seed=(seed, "segmenter step"),
        state={"model": model, "optimizer": optimizer},
        scaler=loss_scaler(device, network_dtype(config.precision, device)),
        curve=Curve(folder / "curves.jsonl", running.log_steps, partial(_line, rate), ("loss",)),
        guard=Guard(model, partial(not_finite, rate, folder), partial(bad_weights_left, WAY_OUT, unit=UNIT)),
        checkpoint_seconds=running.checkpoint_seconds,
        checkpoint_steps=running.checkpoint_steps,
        unit=UNIT,
    )

    def batches(first: int) -> Iterator[list[Sample]]:
        size, tall = config.schedule.batch, dataset.tall() if config.schedule.aspect_groups else None
        places = {"first": first * size, "stop": total * size}
        positions = order(len(dataset), seed=seed, **places, factors=repeats, tall=tall, batch=size)
        return read_ahead(
            dataset, parts_of_batches(positions, size, part), workers=running.workers, pin=device.type == "cuda"
        )

    drive = drive or partial(_drive, losses, config.optimizer.clip)
    with trainer.steps(batches) as steps:
        drive(Run(model, optimizer, trainer, rate), steps)
    if ranks.is_first():
        known = {"category_ids": dataset.category_ids, "classes": dataset.classes}
        save_checkpoint(folder / "segmenter.pt", {"model": model.state_dict(), **known})


class _Losses(nn.Module):
    """A model and its losses as one module, so that gradients can be averaged whatever the backend calls."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        return self.losses(self.model, batch)


def _drive(losses: Losses, clip: float | None, run: Run, steps: Steps) -> None:
    network = ranks.synchronised(_Losses(run.model, losses))
    for step, batch in steps:
        _step(run, network, step, batch, clip=clip)


def _step(run: Run, network: nn.Module, step: int, batch: list[Sample], *, clip: float | None) -> None:
    set_rate(run.optimizer, run.rate(step))
    run.model.train()
    parts = network(batch)
    run.trainer.add(parts, about=[sample.image_id for sample in batch])
    loss = torch.stack(list(parts.values())).sum()
    run.optimizer.zero_grad(set_to_none=True)
    run.trainer.scaler.scale(loss).backward()
    update(run.model, run.optimizer, run.trainer.scaler, clip=clip)


def _line(rate: Callable[[int], float], step: int, means: dict[str, float]) -> dict[str, float]:
    return {"loss": sum(means.values()), **means, "lr": rate(step - 1)}


def not_finite(
    rate: Callable[[int], float], folder: Path, step: int, losses: dict[str, float], image_ids: list[int], why: str = ""
) -> TrainingError:
    """The error, after the images of the batch and each loss were written down in folder/not_finite.json.

    Args:
        losses: name → value, as far as they are known.
        why: what was not finite; the losses tell it otherwise.
    """
    texts = {name: str(value) for name, value in losses.items()}
    record = {"step": step, "lr": rate(step), "losses": texts, "image_ids": image_ids}
    write_json(folder / "not_finite.json", record, indent=1)
    why = why or ", ".join(f"{name} = {text}" for name, text in texts.items() if text in ("nan", "inf", "-inf"))
    return TrainingError(
        f"the loss of segmenter step {step} is not a finite number ({why}; image ids {image_ids}, learning rate "
        f"{rate(step):.3g}). The batch is noted in {folder / 'not_finite.json'}. {WAY_OUT}"
    )
