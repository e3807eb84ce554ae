"""Cascade Mask R-CNN (Cai & Vasconcelos, 2018) on torchvision's region proposals and RoI parts."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from mal.engine.precision import network_dtype
from mal.segmenters import loop
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.inference import load_trained, predict_images
from mal.segmenters.layer_decay import layer_factors
from mal.segmenters.precision import lower_precision
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.rcnn.cascade_heads import CascadeHeads
from mal.segmenters.rcnn.heads_start import start_heads
from mal.segmenters.rcnn.parts import Prepared, detector, losses, region_proposals


def train(
    *,
    annotations: Path,
    images: Path,
    config: SegmenterConfig,
    seed: int,
    folder: Path,
    device: torch.device,
    progress: str = "train segmenter",
) -> None:
    """Train on a COCO file, human or pseudo, to folder/segmenter.pt; see `loop.train`.

    Raises:
        AnnotationError, ImageError, WeightsError, TrainingError.
    """
    loop.train(
        annotations=annotations,
        images=images,
        config=config,
        seed=seed,
        folder=folder,
        device=device,
        build=lambda classes: lower_precision(
            build(config, classes=classes),
            lowered_parts(config),
            dtype=network_dtype(config.precision, device),
            device=device,
        ),
        losses=losses,
        factors=layer_factors(config.optimizer),
        progress=progress,
    )


def predict(
    *,
    checkpoint: Path,
    annotations: Path,
    images: Path,
    config: SegmenterConfig,
    device: torch.device,
    progress: str = "predict",
) -> list[dict[str, Any]]:
    """Detections on every image of a COCO file, as COCO results; see `mask_rcnn.predict`.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    model, categories = load_trained(
        checkpoint, config=config, build=lambda classes: build(config, classes=classes, load=False)
    )
    dtype = network_dtype(config.precision, device)
    lower_precision(model.to(device), lowered_parts(config), dtype=dtype, device=device)
    detect = detector(model, categories=categories, config=config, device=device)
    return predict_images(
        annotations=annotations, images=images, config=config, detect=detect, device=device, progress=progress
    )


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> nn.Module:
    """The untrained model; `classes` does not count the background. See `build_pyramid` for `load`.

    Raises:
        ConfigError, WeightsError.
    """
    pyramid = build_pyramid(config, load=load)
    heads = CascadeHeads(config, classes=classes)
    model = GeneralizedRCNN(pyramid, region_proposals(config), heads, Prepared(config))
    if load:
        start_heads(heads.ordered(), config.heads.start)
    return model.to(memory_format=torch.channels_last)  # 1.5 × as fast on a CPU


def lowered_parts(config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision."""
    heads = ["box_head", *(["mask_head", "mask_predictor"] if config.mask_head else [])]
    stages = [f"roi_heads.stages.{number}" for number in range(len(config.cascade.ious))]
    return ["backbone", "rpn.head", *(f"{stage}.{head}" for stage in stages for head in heads)]
