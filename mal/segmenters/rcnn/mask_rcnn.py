"""Mask R-CNN (He et al., 2017) from torchvision's parts, on a ResNet, a timm pyramid or a tiny network from scratch."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from mal.engine.precision import network_dtype
from mal.segmenters import loop
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.inference import load_trained, predict_images
from mal.segmenters.layer_decay import layer_factors
from mal.segmenters.precision import lower_precision
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.rcnn.heads_start import start_heads
from mal.segmenters.rcnn.parts import Prepared, detector, do_as_published, losses, region_proposals, roi_pool
from mal.segmenters.rcnn.roi_heads import MaskHeads


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
    """Detections on every image of a COCO file (which needs no annotations), as COCO results.

    Returns:
        image_id, category_id (1 if class-agnostic), score, `bbox` xywh and, with a mask head, `segmentation` as
        compressed RLE, in pixels of the original image; by image id, then falling score.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    model, categories = load(checkpoint, config=config, device=device)
    detect = detector(model, categories=categories, config=config, device=device)
    return predict_images(
        annotations=annotations,
        images=images,
        config=config,
        detect=detect,
        device=device,
        progress=progress,
        whole=config.weights == "published",
    )


def load(checkpoint: Path, *, config: SegmenterConfig, device: torch.device) -> tuple[nn.Module, list[int]]:
    """A trained segmenter in evaluation mode, and the category id of each of its labels, from label 1.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    model, categories = load_trained(
        checkpoint, config=config, build=lambda classes: build(config, classes=classes, load=False)
    )
    if config.weights == "published":
        do_as_published(model, config)
    dtype = network_dtype(config.precision, device)
    return lower_precision(model.to(device), lowered_parts(config), dtype=dtype, device=device), categories


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> nn.Module:
    """The untrained model; `classes` does not count the background. See `build_pyramid` for `load`.

    Raises:
        ConfigError, WeightsError.
    """
    pyramid, channels, heads = build_pyramid(config, load=load), config.pyramid.channels, config.heads
    masks: dict[str, nn.Module] = {}
    if config.mask_head:
        masks = {
            "mask_roi_pool": roi_pool(config, cells=heads.mask_cells),
            "mask_head": MaskRCNNHeads(channels, heads.mask_widths, dilation=1),
            "mask_predictor": MaskRCNNPredictor(heads.mask_widths[-1], heads.mask_up_width, classes + 1),
        }
    roi_heads = MaskHeads(
        roi_pool(config, cells=heads.box_cells),
        TwoMLPHead(channels * heads.box_cells**2, heads.box_width),
        FastRCNNPredictor(heads.box_width, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=heads.sampled,
        positive_fraction=heads.positive,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=config.test.score,
        nms_thresh=config.test.nms,
        detections_per_img=config.test.max_detections,
        aligned=heads.aligned,
        binary=heads.mask_targets == "binary",
        box_beta=heads.box_beta,
        **masks,
    )
    model = GeneralizedRCNN(pyramid, region_proposals(config), roi_heads, Prepared(config))
    if load:
        start_heads([roi_heads], heads.start)
    return model.to(memory_format=torch.channels_last)  # 1.5 × as fast on a CPU


def lowered_parts(config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision."""
    masks = ["roi_heads.mask_head", "roi_heads.mask_predictor"] if config.mask_head else []
    return ["backbone", "rpn.head", "roi_heads.box_head", *masks]
