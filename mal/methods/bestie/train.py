"""The instance network: classes, centres and offsets, learned from class maps and points."""

from pathlib import Path

import torch

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.engine import ranks
from mal.engine.runtime import seed_everything
from mal.engine.trainer import finished
from mal.methods.bestie.checkpoint import FILE, save
from mal.methods.bestie.data import TrainingImages
from mal.methods.bestie.learners import InstanceLearner
from mal.methods.bestie.learning import learn
from mal.methods.bestie.network import InstanceNetwork


def train(
    coco: CocoDict, images: Path, config: Config, *, maps: Path, folder: Path, device: torch.device
) -> dict[str, float]:
    """Train on a points view and class maps to `checkpoint.FILE` in a folder.

    Args:
        images: folder of the image files. maps: that of their class maps (see `map_files`).

    Returns, raises:
        As `train_classes.train`. MalError: a class map is absent or damaged.
    """
    own, agnostic = config.bestie, config.data.class_agnostic
    dataset = TrainingImages(coco, images, scale=own.scale, seed=config.seed, agnostic=agnostic, maps=maps)
    figures: dict[str, float] = {"steps": own.learning.steps, "images": len(dataset)}
    if finished(folder / FILE):
        return figures
    seed_everything(config.seed, "bestie instances")
    network = InstanceNetwork(config, classes=len(dataset.categories.ids)).to(device)
    dataset.fill = network.features.mean
    learner, steps = InstanceLearner(network, own), own.learning.steps
    means = learn(learner, dataset, config, name="train bestie", steps=steps, folder=folder, device=device)
    if ranks.is_first():
        save(folder / FILE, network, dataset.categories, config)
    return {**figures, **means}
