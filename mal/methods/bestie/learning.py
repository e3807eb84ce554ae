"""How either network learns: Adam at a rate that falls polynomially, on squares of images."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mal.config import Config
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard, bad_image_loss, bad_weights_left
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.trainer import Trainer, loss_scaler, set_rate, update
from mal.methods.bestie.config import LearningConfig
from mal.methods.bestie.data import Sample, TrainingImages
from mal.methods.bestie.learners import ClassLearner, InstanceLearner
from mal.segmenters.data import order, parts_of_batches
from mal.segmenters.reading import read_ahead

CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl
WAY_OUT = "Lower bestie.learning.lr, set bestie.learning.clip, or use train.precision=fp32"


def learn(
    learner: ClassLearner | InstanceLearner,
    dataset: TrainingImages,
    config: Config,
    *,
    name: str,
    steps: int,
    folder: Path,
    device: torch.device,
) -> dict[str, float]:
    """Train, going on from folder/checkpoint.pt where there is one.

    The same arguments give the same bits on a CPU, however often the run was killed: order and augmentation follow
    (seed, epoch, index). Several processes get equal parts of each batch.

    Args:
        name: of the training, in front of the progress.

    Returns:
        The last mean losses.

    Raises:
        ConfigError: the batch cannot be shared equally by the processes.
        TrainingError: a loss is not a finite number, or a weight.
        Stopped: by a signal or after `train.stop_after` steps; the checkpoint is written.
    """
    learning, running = config.bestie.learning, config.train
    part = ranks.own_part(learning.batch, "bestie.learning.batch")
    dtype = network_dtype(running.precision, device)
    allow_tf32(device, dtype)
    learner.network.lowered(dtype)
    optimizer = torch.optim.Adam(learner.parameters(), lr=learning.lr)
    trainer = Trainer(
        name=name,
        folder=folder,
        total=steps,
        seed=(config.seed, f"{name} step"),  # drop path, of encoders that have it
        state={"learner": learner, "optimizer": optimizer},
        scaler=loss_scaler(device, dtype),
        curve=Curve(
            folder / "curves.jsonl", CURVE_EVERY, lambda _, means: {"loss": sum(means.values()), **means}, ("loss",)
        ),
        guard=Guard(learner, partial(bad_image_loss, WAY_OUT), partial(bad_weights_left, WAY_OUT)),
        checkpoint_seconds=running.checkpoint_seconds,
        stop_after=running.stop_after,
    )

    def batches(first: int) -> Iterator[list[Sample]]:
        size = learning.batch
        positions = order(len(dataset), seed=config.seed, first=first * size, stop=steps * size)
        return read_ahead(
            dataset, parts_of_batches(positions, size, part), workers=running.workers, pin=device.type == "cuda"
        )

    with trainer.steps(batches) as turns:
        shared = ranks.synchronised(learner)
        for step, batch in turns:
            set_rate(optimizer, learning.lr * rate_factor(step, steps, learning))
            learner.train()
            moved = [sample.to(device) for sample in batch]
            losses = training_step(shared, moved, optimizer, trainer.scaler, clip=learning.clip)
            trainer.add(losses, about=[sample.image_id for sample in batch])
    return trainer.curve.means


def training_step(
    learner: nn.Module,
    batch: list[Sample],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip: float | None = None,
) -> dict[str, Tensor]:
    """One step of the optimiser on a batch; its weighted losses."""
    optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = learner(batch)
    scaler.scale(torch.stack(list(losses.values())).sum()).backward()
    update(learner, optimizer, scaler, clip=clip)
    return {name: loss.detach() for name, loss in losses.items()}


def rate_factor(step: int, steps: int, learning: LearningConfig) -> float:
    """Of the learning rate: a linear warm-up, and (1 − step / steps)^power."""
    warm = min(1.0, (step + 1) / learning.warmup_steps) if learning.warmup_steps else 1.0
    return warm * (1 - step / steps) ** learning.power
