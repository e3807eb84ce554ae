"""The baseline behind `cam*`: a network that tells an image's classes, and whose activations show where they are."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.config import Config
from mal.data.semantic import read_semantic
from mal.encoders.pyramid import STRIDES, Pyramid
from mal.engine import ranks
from mal.engine.curves import Curve
from mal.engine.guard import Guard, bad_image_loss, bad_weights_left
from mal.engine.precision import allow_tf32, autocast, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint, seed_everything, sent
from mal.engine.trainer import Trainer, finished, loss_scaler, set_rate, update
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.data import Batch, TrainingImages, collate
from mal.methods.simformer.infer import averaged, padded_input
from mal.methods.simformer.train import CURVE_EVERY
from mal.segmenters.config import OptimizerConfig
from mal.segmenters.data import order, parts_of_batches
from mal.segmenters.optimizer import build_optimizer
from mal.segmenters.reading import read_ahead

FILE = "classifier.pt"
WAY_OUT = "Lower simformer.pseudo.cam_lr, or use train.precision=fp32"


class Classifier(nn.Module):
    """An encoder and a 1 × 1 convolution on one of its maps; a class's logit is the mean of its activations.

    Args:
        config: `encoder` and `simformer.pseudo` are used.
    """

    def __init__(self, config: Config, *, classes: int, load: bool = True) -> None:
        super().__init__()
        self.backbone = Pyramid(config.encoder, load=load)
        self.level = STRIDES.index(config.simformer.pseudo.cam_stride)
        self.head = nn.Conv2d(self.backbone.widths[self.level], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → activations (B, C, h, w)."""
        return self.head(self.backbone(images)[self.level])


def train(view: Path, images: Path, config: Config, *, folder: Path, device: torch.device) -> dict[str, float]:
    """Train on the weak view's tags, and on the base classes that its maps show, to FILE in a folder.

    Raises:
        See `mal.methods.simformer.train.train`.
    """
    own, running, seen = config.simformer, config.train, read_semantic(view)
    size, total = own.learning.batch, own.pseudo.cam_steps
    part = ranks.own_part(size, "simformer.learning.batch")
    # released rules look at hidden masks, which this baseline is not shown
    augment = replace(own.augment, tags="image", redraw="paper", true_masks_after=None)
    dataset = TrainingImages(seen, images, pairs=PairsConfig(kind="none"), augment=augment, seed=config.seed)
    figures: dict[str, float] = {"steps": total, "images": len(seen.images)}
    if finished(folder / FILE):
        return figures
    seed_everything(config.seed, "simformer classifier")
    dtype = network_dtype(running.precision, device)
    allow_tf32(device, dtype)
    network = Classifier(config, classes=len(seen.classes)).to(device)
    chosen = OptimizerConfig("adamw", lr=own.pseudo.cam_lr, weight_decay=own.learning.weight_decay)
    optimizer = build_optimizer(network, chosen)
    trainer = Trainer(
        name="train classifier",
        folder=folder,
        total=total,
        seed=(config.seed, "simformer classifier step"),
        state={"network": network, "optimizer": optimizer},
        scaler=loss_scaler(device, dtype),
        curve=Curve(folder / "curves.jsonl", CURVE_EVERY, lambda _, means: means, ("classes",)),
        guard=Guard(network, partial(bad_image_loss, WAY_OUT), partial(bad_weights_left, WAY_OUT)),
        checkpoint_seconds=running.checkpoint_seconds,
        stop_after=running.stop_after,
    )

    def batches(first: int) -> Iterator[Batch]:
        positions = order(len(dataset), seed=config.seed, first=first * size, stop=total * size)
        for items in read_ahead(dataset, parts_of_batches(positions, size, part), workers=running.workers, pin=False):
            yield collate(items, "none", augment)

    with trainer.steps(batches) as turns:
        shared = ranks.synchronised(network)
        for step, batch in turns:
            set_rate(optimizer, own.pseudo.cam_lr * (1 - step / total) ** own.learning.power)
            network.train()
            there = sent(present(batch, len(seen.classes)), device)
            inside = sent(batch.inside, device)[:, None].float()
            with autocast(device, dtype):
                activations = shared(sent(batch.images, device))
            weight = F.adaptive_avg_pool2d(inside, activations.shape[-2:])  # padding is no part of an image
            logits = (activations.float() * weight).sum((2, 3)) / weight.sum((2, 3))
            loss = F.binary_cross_entropy_with_logits(logits, there)
            optimizer.zero_grad(set_to_none=True)
            trainer.scaler.scale(loss).backward()
            update(network, optimizer, trainer.scaler)
            trainer.add({"classes": loss}, about=batch.ids)
    if ranks.is_first():
        save_checkpoint(folder / FILE, {"network": network.state_dict(), "classes": list(seen.classes)})
    return {**figures, **trainer.curve.means}


def present(batch: Batch, classes: int) -> Tensor:
    """(B, classes) float32 of 0 and 1: base classes with pixels in the crop, and the novel ones that are said to be."""
    found = torch.zeros(len(batch.ids), classes)
    for row, base, tags in zip(found, batch.base, batch.tags, strict=True):
        row[base + tags] = 1
    return found


class Activations:
    """A trained classifier's class activation maps.

    Args:
        folder: that `train` wrote to.

    Raises:
        MalError: the file is absent or cannot be read.
    """

    def __init__(self, folder: Path, config: Config, device: torch.device) -> None:
        state = load_checkpoint(folder / FILE, parts=("network", "classes"))
        self.network = Classifier(config, classes=len(state["classes"]), load=False)
        self.network.load_state_dict(state["network"])
        self.network.eval().to(device)
        self.device, self.dtype = device, network_dtype(config.train.precision, device)

    @torch.inference_mode()
    def of(self, image: Tensor, short_sides: list[int], *, long_side: int, flip: bool) -> Tensor:
        """(C, height, width) of an image (3, height, width) uint8; each class's largest is 1, none is below 0."""
        found = averaged(image, short_sides, self._of_one, long_side=long_side, flip=flip).clamp(min=0)
        return found / found.amax((1, 2), keepdim=True).clamp(min=1e-6)

    def _of_one(self, image: Tensor) -> Tensor:
        whole = padded_input(image.to(self.device), self.network.backbone.mean)
        with autocast(self.device, self.dtype):
            found = self.network(whole[None])
        size = (int(whole.shape[-2]), int(whole.shape[-1]))
        found = F.interpolate(found.float(), size=size, mode="bilinear", align_corners=False)
        return found[0, :, : image.shape[-2], : image.shape[-1]]
