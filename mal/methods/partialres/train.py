"""Learning boxes (REC), contours (RES), both in one sequence, or the rival's boxes and pixels: one loop for all."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard, bad_image_loss, bad_weights_left
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import seed_everything
from mal.engine.snapshots import Snapshots
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.errors import ConfigError
from mal.methods.partialres.checkpoint import FILE, save
from mal.methods.partialres.data import Batch, TrainingObjects, collate
from mal.methods.partialres.learner import Learner
from mal.methods.partialres.lessons import learning_of
from mal.methods.partialres.objects import Referred, referred
from mal.methods.partialres.schedule import (
    Average,
    build_optimizer,
    freeze_backbone,
    kept_share,
    rate_factor,
    total_steps,
)
from mal.methods.partialres.starting import starting_network
from mal.methods.partialres.text.unknown import say_unread
from mal.segmenters.batch_norm import share_batch_norms
from mal.segmenters.data import order, parts_of_batches
from mal.segmenters.reading import read_ahead

Masks = Mapping[int, NDArray[np.bool_]]
CURVE_EVERY = 10  # steps averaged into one line of curves.jsonl


def train(
    view: CocoDict,
    images: Path,
    config: Config,
    *,
    task: str,
    folder: Path,
    device: torch.device,
    masks: Masks | None = None,
    start: Path | None = None,
) -> dict[str, float]:
    """Train on a view of expressions to `checkpoint.FILE` in a folder, going on from folder/checkpoint.pt where there
    is one.

    The same arguments give the same bits on a CPU, however often the run was killed: order, expression and augmentation
    follow (seed, epoch, index), and what a step draws follows (seed, step). Several processes get equal parts of each
    batch.

    Args:
        images: folder of the image files.
        config: as `lessons` gives it for the task.
        task: box | mask | taskwise.
        masks: annotation id → mask (H, W) of the objects whose masks may be learned.
        start: folder of the network that it starts from.

    Returns:
        Figures of the run: steps, objects, the last mean losses.

    Raises:
        ConfigError: no object has an expression, or a mask; the batch cannot be shared equally by the processes.
        TrainingError: a loss is not a finite number, or a weight.
        WeightsError: the encoder, the text encoder or the start cannot be had, or do not fit.
        Stopped: by a signal or after `train.stop_after` steps; the checkpoint is written.
    """
    own, running = config.partialres, config.train
    part_of_config = "rec" if task == "box" else "res"
    learning = learning_of(own, task)
    part = ranks.own_part(learning.batch, f"partialres.{part_of_config}.batch")
    everything = referred(view)
    objects = learned_from(everything, masks or {}, task)
    steps = total_steps(learning, len(objects))
    figures: dict[str, float] = {"steps": steps, "objects": len(objects)}
    snapshots = Snapshots(folder, 0 if task == "box" else own.res.snapshots, steps)
    if finished(folder / FILE) and snapshots.are_whole():
        return figures
    texts = [words for each in everything for words in each.expressions]
    ranks.on_first(lambda: say_unread(texts, own.network.text.words, whose="training"))
    seed_everything(config.seed, "partialres", task)
    dtype = network_dtype(running.precision, device)
    allow_tf32(device, dtype)
    network, lexicon = starting_network(config, everything, rec=task == "box", start=start)
    if learning.backbone == 0:
        freeze_backbone(network)
    dataset = TrainingObjects(objects, images, own, lexicon, task=task, masks=masks or {}, seed=config.seed)
    learner = Learner(network, smoothing=own.res.smoothing, dtype=dtype).to(device)
    average = Average(network)
    if ranks.size() > 1:  # the copy is made: it must not see others' batches
        share_batch_norms(network)
    optimizer = build_optimizer(network, learning, text=own.network.text.rate)
    way_out = f"Lower partialres.{part_of_config}.lr, or use train.precision=fp32"

    def write(path: Path) -> None:
        states = {"raw": network.state_dict(), "ema": average.module.state_dict()}
        save(path, config=config, lexicon=lexicon, task=task, **states)

    trainer = Trainer(
        name=f"train {part_of_config}",
        folder=folder,
        total=steps,
        seed=(config.seed, "partialres step", task),  # dropout
        state={"network": network, "average": average, "optimizer": optimizer},
        scaler=loss_scaler(device, dtype),
        curve=Curve(
            folder / "curves.jsonl", CURVE_EVERY, lambda _, means: {"loss": sum(means.values()), **means}, ("loss",)
        ),
        guard=Guard(learner, partial(bad_image_loss, way_out), partial(bad_weights_left, way_out)),
        checkpoint_seconds=running.checkpoint_seconds,
        stop_after=running.stop_after,
        snapshots=snapshots,
        write=write,
    )

    def batches(first: int) -> Iterator[Batch]:
        size = learning.batch
        positions = order(len(dataset), seed=config.seed, first=first * size, stop=steps * size)
        for items in read_ahead(dataset, parts_of_batches(positions, size, part), workers=running.workers, pin=False):
            yield collate(items)

    with trainer.steps(batches) as turns:
        shared = ranks.synchronised(learner)
        for step, batch in turns:
            set_rate(optimizer, learning.lr * rate_factor(step, steps, learning))
            learner.train()
            losses = shared(batch.to(device))
            optimizer.zero_grad(set_to_none=True)
            trainer.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
            update(learner, optimizer, trainer.scaler, clip=learning.clip)
            average.update(network, kept=kept_share(step, learning.ema))
            trainer.add(losses, about=batch.ids)
    if ranks.is_first():
        write(folder / FILE)
    return {**figures, **trainer.curve.means}


def learned_from(objects: list[Referred], masks: Masks, task: str) -> list[Referred]:
    """The objects that an epoch goes through: all for boxes, for masks alone those whose masks are known.

    Raises:
        ConfigError: none.
    """
    found = [each for each in objects if each.id in masks] if task == "mask" else objects
    if not found:
        raise ConfigError(
            "no object with an expression has a mask to learn from; raise partialres.few.percent, or give masks to "
            "more of the training objects"
        )
    return found
