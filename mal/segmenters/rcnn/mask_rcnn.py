"""Mask R-CNN (He et al., 2017) from torchvision's parts, on a ResNet, a timm pyramid or a tiny network from scratch."""

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.network import Network
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.rcnn.heads_start import start_heads
from mal.segmenters.rcnn.parts import Prepared, detector, do_as_published, losses, region_proposals, roi_pool
from mal.segmenters.rcnn.roi_heads import MaskHeads


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
    if config.weights == "published":
        do_as_published(model, config)
    return model.to(memory_format=torch.channels_last)  # 1.5 × as fast on a CPU


def lowered_parts(config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision."""
    masks = ["roi_heads.mask_head", "roi_heads.mask_predictor"] if config.mask_head else []
    return ["backbone", "rpn.head", "roi_heads.box_head", *masks]


NETWORK = Network(build, losses, detector, lowered_parts, resizes_published=True)
