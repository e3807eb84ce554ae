"""Class maps of the validation images as a trained network sees them, and of the training images for re-training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mal.config import Config
from mal.data.images import load_for
from mal.data.semantic import (
    FILE,
    IGNORED,
    MappedImage,
    SemanticFile,
    map_name,
    write_map,
    write_semantic,
)
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.methods.simformer.classifier import Activations
from mal.methods.simformer.infer import Predictor


def segment(predictor: Predictor, semantic: SemanticFile, images: Path, config: Config, folder: Path) -> None:
    """Write a class map of each image and the file that lists them; goes on where a killed call was.

    Args:
        semantic: which images; their maps are not looked at.
        images: folder of the image files.
    """
    testing = config.simformer.testing

    def predict(image: MappedImage) -> np.ndarray:
        pixels = load_for(image.entry, images)
        return predictor.class_map(pixels, [testing.short_side], long_side=testing.long_side)

    write_all(semantic, predict, folder, name="segment val")


def own_labels(predictor: Predictor, weak: SemanticFile, images: Path, config: Config, folder: Path) -> None:
    """Write the training images' maps for re-training: what the network predicts, as far as it fits what is known."""
    pseudo, long_side = config.simformer.pseudo, config.simformer.testing.long_side

    def predict(image: MappedImage) -> np.ndarray:
        pixels = load_for(image.entry, images)
        found = predictor.scores(pixels, pseudo.short_sides, long_side=long_side, flip=pseudo.flip).argmax(dim=0)
        return kept(found.to(torch.uint8).cpu().numpy(), weak.map_of(image), image.tags or ())

    write_all(weak, predict, folder, name="pseudo-labels")


def cam_labels(network: Activations, weak: SemanticFile, images: Path, config: Config, folder: Path) -> None:
    """Write the maps of the baseline: of an image's tags the one of the highest activation where nothing is known."""
    pseudo, long_side = config.simformer.pseudo, config.simformer.testing.long_side

    def show(image: MappedImage) -> np.ndarray:
        known, tags = weak.map_of(image), image.tags or ()
        guess = np.full(known.shape, IGNORED, dtype=np.uint8)
        if tags:
            pixels = load_for(image.entry, images)
            found = network.of(pixels, pseudo.short_sides, long_side=long_side, flip=pseudo.flip)[list(tags)]
            guess = np.array(tags, dtype=np.uint8)[found.argmax(dim=0).cpu().numpy()]
        return kept(guess, known, tags)

    write_all(weak, show, folder, name="pseudo-labels")


def complement_labels(weak: SemanticFile, folder: Path) -> None:
    """Write what the setting gives away without learning: in an image of one novel tag all that is not base is it."""

    def fill(image: MappedImage) -> np.ndarray:
        known, tags = weak.map_of(image), image.tags or ()
        guess = np.full(known.shape, tags[0] if len(tags) == 1 else IGNORED, dtype=np.uint8)
        return kept(guess, known, tags)

    write_all(weak, fill, folder, name="pseudo-labels")


def kept(predicted: np.ndarray, known: np.ndarray, tags: tuple[int, ...]) -> np.ndarray:
    """A prediction where it is of one of an image's novel classes, base classes as they are known, the rest unlabelled.

    Args:
        predicted: (height, width) uint8.
        known: likewise, base classes and 255.
        tags: the novel classes of the image.
    """
    novel = np.where(np.isin(predicted, tags), predicted, IGNORED).astype(np.uint8)
    return np.where(known != IGNORED, known, novel)


def write_all(semantic: SemanticFile, map_of: Callable[[MappedImage], np.ndarray], folder: Path, *, name: str) -> None:
    """Write a map of each image, several processes in turns, and FILE of all classes last."""
    with Progress(name, total=len(semantic.images), unit="image") as progress:
        for index, image in enumerate(semantic.images):
            path = folder / map_name(index)
            if index % ranks.size() == ranks.rank() and not path.is_file():  # files are whole or absent
                write_map(path, map_of(image))
            progress.advance()
    ranks.wait()
    images = tuple(
        MappedImage(image.id, image.file_name, image.width, image.height, map_name(index))
        for index, image in enumerate(semantic.images)
    )
    written = SemanticFile(semantic.classes, images, folder=folder)
    ranks.on_first(lambda: write_semantic(folder / FILE, written))
