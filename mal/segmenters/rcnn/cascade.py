"""Cascade Mask R-CNN (Cai & Vasconcelos, 2018) on torchvision's region proposals and RoI parts."""

import torch
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.network import Network
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.rcnn.cascade_heads import CascadeHeads
from mal.segmenters.rcnn.heads_start import start_heads
from mal.segmenters.rcnn.parts import Prepared, detector, losses, region_proposals


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


NETWORK = Network(build, losses, detector, lowered_parts)
