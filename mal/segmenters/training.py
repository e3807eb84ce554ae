"""From a COCO file to a trained segmenter, whatever the backend."""

from pathlib import Path

import torch

from mal import segmenters
from mal.segmenters import loop
from mal.segmenters.config import SegmenterConfig


def train(
    *, annotations: Path, images: Path, config: SegmenterConfig, seed: int, folder: Path, device: torch.device
) -> None:
    """Train on a COCO file, human or pseudo, to folder/segmenter.pt; see `loop.train`.

    Raises:
        AnnotationError, ConfigError, ImageError, WeightsError, TrainingError.
    """
    network = segmenters.find(config)
    loop.train(
        annotations=annotations,
        images=images,
        config=config,
        seed=seed,
        folder=folder,
        device=device,
        build=lambda classes: network.lowered(network.build(config, classes=classes), config, device=device),
        losses=network.losses,
        factors=network.factors(config.optimizer),
        drive=None if network.drive is None else network.drive(config),
    )
