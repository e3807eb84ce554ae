"""The class network: where the classes are, learned from the points; and its maps of the training images."""

from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.data.images import load_for
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.engine.runtime import seed_everything
from mal.engine.trainer import finished
from mal.errors import MalError
from mal.methods.bestie.checkpoint import CLASSES_FILE, Trained, save
from mal.methods.bestie.data import TrainingImages, known_of, objects_of, present_in
from mal.methods.bestie.learners import ClassLearner
from mal.methods.bestie.learning import learn
from mal.methods.bestie.looking import class_map
from mal.methods.bestie.map_files import path_of, read_map, write_map
from mal.methods.bestie.network import ClassNetwork


def train(coco: CocoDict, images: Path, config: Config, *, folder: Path, device: torch.device) -> dict[str, float]:
    """Train on a points view to `checkpoint.CLASSES_FILE` in a folder.

    Args:
        images: folder of the image files.

    Returns:
        Figures of the run: steps, images, the last mean losses.

    Raises:
        AnnotationError: see `TrainingImages`.
        ConfigError, TrainingError, Stopped: see `learn`. WeightsError: see `Features`.
    """
    own = config.bestie
    dataset = TrainingImages(coco, images, scale=own.scale, seed=config.seed, agnostic=config.data.class_agnostic)
    figures: dict[str, float] = {"steps": own.learning.class_steps, "images": len(dataset)}
    if finished(folder / CLASSES_FILE):
        return figures
    seed_everything(config.seed, "bestie classes")
    network = ClassNetwork(config, classes=len(dataset.categories.ids)).to(device)
    dataset.fill = network.features.mean
    learner, steps = ClassLearner(network, own), own.learning.class_steps
    means = learn(learner, dataset, config, name="train class maps", steps=steps, folder=folder, device=device)
    if ranks.is_first():
        save(folder / CLASSES_FILE, network, dataset.categories, config)
    return {**figures, **means}


def write_maps(trained: Trained[ClassNetwork], coco: CocoDict, images: Path, config: Config, folder: Path) -> int:
    """Write a class map of each image that has points; goes on where a killed call was. Processes take turns.

    Returns:
        The number of maps.
    """
    labels, entries = trained.categories.labels_of(coco, source="the training file"), objects_of(coco)
    present = present_in(coco, labels, classes=len(trained.categories.ids))
    with Progress("class maps", total=len(entries), unit="image") as bar:
        for number, (entry, annotations) in enumerate(entries):
            if number % ranks.size() == ranks.rank() and not _is_there(folder, entry):
                known = known_of(entry, annotations, present[entry["id"]], labels)
                found = class_map(trained, load_for(entry, images), known, config, entry)
                write_map(folder, entry, found.cpu().numpy())
            bar.advance()
    ranks.wait()
    return len(entries)


def _is_there(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether a killed call left the map of an image."""
    try:
        return path_of(folder, entry).is_file() and read_map(folder, entry) is not None
    except MalError:
        return False
