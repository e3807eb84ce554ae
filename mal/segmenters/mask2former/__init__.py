"""Mask2Former (Cheng et al., 2022) on any size of Swin, or on a tiny ResNet from scratch, by transformers."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mal.engine.precision import network_dtype
from mal.segmenters import loop
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.inference import Detect, Json, load_trained, predict_images
from mal.segmenters.mask2former.model import Mask2Former, load_swin
from mal.segmenters.mask2former.results import detections
from mal.segmenters.precision import lower_precision


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
        AnnotationError, ConfigError, ImageError, WeightsError, TrainingError.
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
        factors=lambda name, parameter: factors(name, parameter, backbone=config.optimizer.backbone),
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
) -> list[Json]:
    """Detections on every image of a COCO file (its annotations are not looked at), as COCO results.

    Returns:
        image_id, category_id (1 if class-agnostic), score, `segmentation` as compressed RLE and `bbox` xywh, its
        extent, in pixels of the original image; by image id, then falling score.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    model, categories = load(checkpoint, config=config, device=device)
    detect = detector(model, categories=categories, config=config)
    return predict_images(
        annotations=annotations, images=images, config=config, detect=detect, device=device, progress=progress
    )


def detector(model: Mask2Former, *, categories: list[int], config: SegmenterConfig) -> Detect:
    """What `predict_images` asks for. categories: category id of each label, from label 0."""

    def detect(entries: list[Json], inputs: list[Tensor]) -> list[Json]:
        pixels = model.batch(inputs)
        class_logits, mask_logits = model(pixels)[-1]
        results: list[Json] = []
        for index, (entry, image) in enumerate(zip(entries, inputs, strict=True)):
            found = detections(
                class_logits[index],
                mask_logits[index],
                padded=(pixels.shape[-2], pixels.shape[-1]),
                size=(image.shape[-2], image.shape[-1]),
                original=(entry["height"], entry["width"]),
                limit=config.test.max_detections,
                threshold=config.test.mask_threshold,
            )
            results += [
                {"image_id": int(entry["id"]), "category_id": categories[item.pop("label")], **item}
                for item in found
                if item["score"] > config.test.score
            ]
        return results

    return detect


def load(checkpoint: Path, *, config: SegmenterConfig, device: torch.device) -> tuple[Mask2Former, list[int]]:
    """A trained segmenter in evaluation mode, and the category id of each of its labels, from label 0.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    model, categories = load_trained(
        checkpoint, config=config, build=lambda classes: build(config, classes=classes, load=False)
    )
    dtype = network_dtype(config.precision, device)
    lower_precision(model.to(device), lowered_parts(config), dtype=dtype, device=device)
    assert isinstance(model, Mask2Former)
    return model, categories


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> Mask2Former:
    """The untrained model; `classes` does not count the background.

    Args:
        load: fill in the backbone's starting weights; false when a trained segmenter's weights will follow.

    Raises:
        ConfigError, WeightsError.
    """
    model = Mask2Former(config, classes=classes)
    if load and config.pyramid.kind == "swin" and (config.pretrained or config.checkpoint is not None):
        load_swin(model, config)
    return model


def losses(model: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
    """The losses of a batch: classes, masks, dice."""
    assert isinstance(model, Mask2Former)
    batch = [sample.to(model.mean.device) for sample in batch]
    pixels = model.batch([sample.image for sample in batch])
    masks, labels = targets(batch, height=pixels.shape[-2], width=pixels.shape[-1])
    return model.losses(model(pixels), [mask.float() for mask in masks], labels)


def targets(batch: list[Sample], *, height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Masks (n, height, width) uint8 and labels (n,) from 0, an image.

    To Mask2Former an object is its mask: what has none here is no target. That is a pseudo-label that found nothing, or
    an object of whose box, but not of whose mask, the jitter's window shows something.
    """
    masks, labels = [], []
    for sample in batch:
        seen = sample.masks.bool().flatten(1).any(dim=1)
        down, across = sample.masks.shape[1:]
        masks.append(nn.functional.pad(sample.masks[seen], (0, width - across, 0, height - down)))
        labels.append(sample.labels[seen] - 1)
    return masks, labels


def factors(name: str, parameter: nn.Parameter, *, backbone: float) -> tuple[float, float]:
    """× learning rate (less for the backbone) and × weight decay (none for biases, norms and embeddings)."""
    embedding = name.endswith(("_embedder.weight", "queries_features.weight", "level_embed", "level_embed.weight"))
    spared = parameter.ndim <= 1 or embedding or name.endswith("relative_position_bias_table")
    return backbone if ".pixel_level_module.encoder." in name else 1.0, float(not spared)


def lowered_parts(_config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision: all. The pixel decoder keeps float32, as the authors have it."""
    return [""]
