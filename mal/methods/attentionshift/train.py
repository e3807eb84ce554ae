"""Learning masks from points: the ViT, what reads its tokens and the detector, all at once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard, bad_image_loss, bad_weights_left
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import seed_everything
from mal.engine.snapshots import Snapshots
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.methods.attentionshift.checkpoint import FILE, save
from mal.methods.attentionshift.config.network import LearningConfig
from mal.methods.attentionshift.data import Sample, TrainingImages
from mal.methods.attentionshift.network import AttentionShift
from mal.segmenters.config import OptimizerConfig
from mal.segmenters.data import order, parts_of_batches
from mal.segmenters.optimizer import build_optimizer as grouped
from mal.segmenters.reading import read_ahead

CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl
WAY_OUT = "Lower attentionshift.learning.lr, set attentionshift.learning.clip, or use train.precision=fp32"


def train(coco: CocoDict, images: Path, config: Config, *, folder: Path, device: torch.device) -> dict[str, float]:
    """Train on a points view to `checkpoint.FILE` in a folder, going on from folder/checkpoint.pt where there is one.

    The same arguments give the same bits on a CPU, however often the run was killed: order and augmentation follow
    (seed, epoch, index), and what a step draws follows (seed, step). Several processes get equal parts of each batch.

    Args:
        images: folder of the image files.

    Returns:
        Figures of the run: steps, images, the last mean losses.

    Raises:
        AnnotationError: see `TrainingImages`.
        ConfigError: the batch cannot be shared equally by the processes; or see `AttentionShift`.
        TrainingError: a loss is not a finite number, or a weight.
        WeightsError.
        Stopped: by a signal or after `train.stop_after` steps; the checkpoint is written.
    """
    settings, running = config.attentionshift, config.train
    learning = settings.learning
    part = ranks.own_part(learning.batch, "attentionshift.learning.batch")
    dataset = TrainingImages(
        coco,
        images,
        scale=settings.scale,
        seed=config.seed,
        most=settings.tokens.count,
        agnostic=config.data.class_agnostic,
    )
    steps = total_steps(learning, len(dataset))
    snapshots = Snapshots(folder, learning.snapshots, steps)
    if finished(folder / FILE) and snapshots.are_whole():
        return {"steps": steps, "images": len(dataset)}
    seed_everything(config.seed, "attentionshift")
    dtype = network_dtype(running.precision, device)
    allow_tf32(device, dtype)
    network = AttentionShift(config, classes=len(dataset.categories.ids)).to(device)
    optimizer = build_optimizer(network, learning)
    write = partial(save, network=network, categories=dataset.categories, config=config)
    trainer = Trainer(
        name="train attentionshift",
        folder=folder,
        total=steps,
        seed=(config.seed, "attentionshift step"),  # anchors, RoIs, prototypes, points
        state={"network": network, "optimizer": optimizer},
        scaler=loss_scaler(device, dtype),
        curve=Curve(
            folder / "curves.jsonl", CURVE_EVERY, lambda _, means: {"loss": sum(means.values()), **means}, ("loss",)
        ),
        guard=Guard(network, partial(bad_image_loss, WAY_OUT), partial(bad_weights_left, WAY_OUT)),
        checkpoint_seconds=running.checkpoint_seconds,
        stop_after=running.stop_after,
        snapshots=snapshots,
        write=write,
    )

    def batches(first: int) -> Iterator[list[Sample]]:
        size = learning.batch
        positions = order(len(dataset), seed=config.seed, first=first * size, stop=steps * size)
        return read_ahead(
            dataset, parts_of_batches(positions, size, part), workers=running.workers, pin=device.type == "cuda"
        )

    with trainer.steps(batches) as turns:
        shared = ranks.synchronised(network.lowered(dtype, device))
        for step, batch in turns:
            set_rate(optimizer, learning.lr * rate_factor(step, steps, learning))
            network.train()
            moved = [sample.to(device) for sample in batch]
            warm = step < learning.warm_start
            losses = training_step(shared, moved, optimizer, trainer.scaler, learning, warm=warm)
            trainer.add(losses, about=_ids(batch))
    if ranks.is_first():
        write(folder / FILE)
    return {"steps": steps, "images": len(dataset), **trainer.curve.means}


def training_step(
    network: nn.Module,
    batch: list[Sample],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    learning: LearningConfig,
    *,
    warm: bool = False,
) -> dict[str, torch.Tensor]:
    """One optimiser step on a batch, in micro-batches; the mean losses.

    Args:
        warm: tokens learn alone.
    """
    micro = max(1, min(learning.accumulate // ranks.size(), len(batch)))
    parts = [batch[start::micro] for start in range(micro)]
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts, start=1):
        with ranks.averaging(network, on=number == micro):
            losses = network(part, warm=warm)
            scaler.scale(torch.stack(list(losses.values())).sum() / micro).backward()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0) + loss.detach() / micro
    update(network, optimizer, scaler, clip=learning.clip)
    return sums


def total_steps(learning: LearningConfig, images: int) -> int:
    """Optimiser steps of the whole run: `warm_start` and `steps`, or epochs × images ÷ batch."""
    if learning.steps is not None:
        return learning.warm_start + learning.steps
    assert learning.epochs is not None  # checked with the config
    return learning.warm_start + max(1, round(learning.epochs * images / learning.batch))


def rate_factor(step: int, steps: int, learning: LearningConfig) -> float:
    """Of the learning rate: a linear warm-up, and a drop at each milestone."""
    done, all_of_it = step - learning.warm_start, steps - learning.warm_start
    factor = learning.gamma ** sum(done >= milestone * all_of_it for milestone in learning.milestones)
    if step < learning.warmup_steps:
        factor *= learning.warmup_start + (1 - learning.warmup_start) * step / learning.warmup_steps
    return factor


def build_optimizer(network: AttentionShift, learning: LearningConfig) -> torch.optim.Optimizer:
    """AdamW in groups that carry `factor`, by which each step multiplies the learning rate.

    Blocks learn the slower the nearer they lie to the image: `layer_decay` to the power of the blocks above, the
    embedding of patches one more. Vectors, biases, tokens and positions do not decay.
    """
    blocks = len(network.vit.vit.blocks)

    def factors(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        return learning.layer_decay ** (blocks + 1 - _layer(name, blocks)), float(_decays(name, parameter))

    chosen = OptimizerConfig("adamw", lr=learning.lr, betas=learning.betas, weight_decay=learning.weight_decay)
    return grouped(network, chosen, factors=factors)


def _layer(name: str, blocks: int) -> int:
    """0: what embeds patches; 1 to `blocks`: the ViT's; one more: all else."""
    if name.startswith("vit.vit.blocks."):
        return 1 + int(name.split(".")[3])
    return 0 if name.startswith(("vit.vit.", "vit.stem.")) else blocks + 1


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(("tokens", "positions", "token", "pos_embed"))


def _ids(batch: list[Sample]) -> list[int]:
    return [sample.image_id for sample in batch]
