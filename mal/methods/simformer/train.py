"""Learning class maps: first, at small scale, the pixel embeddings alone; then everything at once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mal.config import Config
from mal.data.semantic import read_semantic
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard, bad_image_loss, bad_weights_left
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import seed_everything
from mal.engine.settings import settings
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.methods.simformer.checkpoint import FILE, save
from mal.methods.simformer.config.learning import LearningConfig
from mal.methods.simformer.data import Batch, TrainingImages, base_classes, collate, inputs_of
from mal.methods.simformer.learner import Learner
from mal.methods.simformer.points import draw_points
from mal.methods.simformer.reads import FILE_HOLDS
from mal.methods.simformer.references import reads_base
from mal.segmenters.config import OptimizerConfig
from mal.segmenters.data import order, parts_of_batches
from mal.segmenters.optimizer import build_optimizer as grouped
from mal.segmenters.reading import read_ahead

CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)  # do not decay
WAY_OUT = "Lower simformer.learning.lr, or use train.precision=fp32"


def train(
    view: Path, images: Path, config: Config, *, folder: Path, device: torch.device, hidden: Path | None = None
) -> dict[str, float]:
    """Train on class maps to `checkpoint.FILE` in a folder, going on from folder/checkpoint.pt where there is one.

    The same arguments give the same bits on a CPU, however often the run was killed: order, pairs and augmentation
    follow (seed, epoch, index), and what a step draws follows (seed, step). Several processes get equal parts of each
    batch.

    Args:
        view: the JSON file of class maps: those classes are learned from masks that it does not call novel.
        images: folder of the image files.
        hidden: that of the maps with nothing hidden, for options of the released program.

    Returns:
        Figures of the run: steps, images, the last mean losses.

    Raises:
        AnnotationError: the maps cannot be trusted.
        ConfigError: the batch cannot be shared equally by the processes; or see `SimFormer`.
        TrainingError: a loss is not a finite number, or a weight.
        WeightsError.
        Stopped: by a signal or after `train.stop_after` steps; the checkpoint is written.
    """
    own, running = config.simformer, config.train
    learning, kind, seen = own.learning, own.pairs.kind, read_semantic(view)
    inputs = inputs_of(learning.batch, kind)
    part = ranks.own_part(inputs, "simformer.learning.batch" if kind == "none" else "half of simformer.learning.batch")
    figures: dict[str, float] = {"steps": learning.warm_start + learning.steps, "images": len(seen.images)}
    if finished(folder / FILE):
        return figures
    base = ranks.on_first(lambda: base_classes(seen)) if reads_base(kind) else None
    dataset = TrainingImages(
        seen,
        images,
        pairs=own.pairs,
        augment=own.augment,
        seed=config.seed,
        truth=None if hidden is None else read_semantic(hidden),
        base=base,
    )
    total = learning.warm_start + learning.steps
    seed_everything(config.seed, "simformer")
    dtype = network_dtype(running.precision, device)
    allow_tf32(device, dtype)
    learner = Learner(config, classes=len(seen.classes), novel=seen.novel or (), dtype=dtype).to(device)
    optimizer = build_optimizer(learner, learning)
    trainer = Trainer(
        name="train simformer",
        folder=folder,
        total=total,
        seed=(config.seed, "simformer step"),  # dropout and points
        state={"learner": learner, "optimizer": optimizer},
        scaler=loss_scaler(device, dtype),
        curve=Curve(
            folder / "curves.jsonl", CURVE_EVERY, lambda _, means: {"loss": sum(means.values()), **means}, ("loss",)
        ),
        guard=Guard(learner, partial(bad_image_loss, WAY_OUT), partial(bad_weights_left, WAY_OUT)),
        checkpoint_seconds=running.checkpoint_seconds,
        stop_after=running.stop_after,
    )

    def batches(first: int) -> Iterator[Batch]:
        positions = order(len(dataset), seed=config.seed, first=first * inputs, stop=total * inputs)
        for items in read_ahead(dataset, parts_of_batches(positions, inputs, part), workers=running.workers, pin=False):
            yield collate(items, kind, own.augment)

    with trainer.steps(batches) as turns:
        shared = ranks.synchronised(learner)
        for step, batch in turns:
            set_rate(optimizer, learning.lr * rate_factor(step, learning))
            learner.train()
            warm = step < learning.warm_start
            drawn = [] if warm else draw_points(batch, own.pairs, own.distillation, torch.default_generator)
            losses = shared(batch.to(device), [each.to(device) for each in drawn], warm=warm)
            optimizer.zero_grad(set_to_none=True)
            trainer.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
            update(learner, optimizer, trainer.scaler, clip=learning.clip)
            trainer.add(losses, about=batch.ids)
    if ranks.is_first():
        network, similarity = learner.network.state_dict(), learner.similarity_state()
        held = settings(config, FILE_HOLDS)
        save(folder, network, held, similarity=similarity, classes=seen.classes, novel=seen.novel or ())
    return {**figures, **trainer.curve.means}


def rate_factor(step: int, learning: LearningConfig) -> float:
    """Of the learning rate: 1 while the embeddings learn alone, then (1 − t / T)^power."""
    done = max(0, step - learning.warm_start) / learning.steps
    return (1 - done) ** learning.power


def build_optimizer(learner: Learner, learning: LearningConfig) -> torch.optim.Optimizer:
    """AdamW in groups that carry `factor`, by which each step multiplies the learning rate: the backbone learns slower,
    norms and embeddings do not decay."""
    fixed = {
        f"{name}.{inner}"
        for name, module in learner.named_modules()
        if isinstance(module, NORMS)
        for inner, _ in module.named_parameters(recurse=False)
    }

    def factors(name: str, _: nn.Parameter) -> tuple[float, float]:
        rate = learning.backbone if name.startswith("network.backbone.") else 1.0
        return rate, 0.0 if name in fixed else 1.0

    chosen = OptimizerConfig("adamw", lr=learning.lr, betas=[0.9, 0.999], weight_decay=learning.weight_decay)
    return grouped(learner, chosen, factors=factors)
