"""Initial weights of an R-CNN's new layers: those that no pre-trained backbone brings.

U(b) is uniform between −b and b, N(v) normal with mean 0 and variance v. `in` and `out` count a layer's inputs and
outputs (of a convolution, channels). Biases start at 0 except where the table names them.

| layer | mmdetection | detectron2 | torchvision |
|---|---|---|---|
| fully connected layers of box heads | U(√(6 / (in + out))) (Xavier) | U(√(3 / in)) | U(√(1 / in)), biases too |
| class scores | N(.01²) | N(.01²) | U(√(1 / in)), biases too |
| box deltas | N(.001²) | N(.001²) | U(√(1 / in)), biases too |
| transposed convolution of mask heads | N(2 / (4 · in)) | N(2 / (4 · in)) | the same; biases U(√(1 / (4 · out))) |
| mask scores | N(2 / classes) | N(.001²) | N(2 / (classes + 1)); biases U(√(1 / in)) |

All three start the layers of region proposals with N(.01²), and the 3 × 3 convolutions of box and mask heads with
N(2 / (9 · out)). The feature pyramid has a setting of its own, `PyramidConfig.fpn_start`. A cascade's class scores and
box deltas start as in MMDetection, whichever is chosen. MMDetection's 2 / classes suits COCO's 80 categories and LVIS's
1,203: with one or two, the first mask losses are 2 to 9 instead of log 2.

Sources: MMDetection's ConvFCBBoxHead, BBoxHead and FCNMaskHead; detectron2's FastRCNNConvFCHead, FastRCNNOutputLayers
and MaskRCNNConvUpsampleHead.
"""

import math
from collections.abc import Iterable

from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads

SCORE_STD, BOX_STD, MASK_STD = 0.01, 0.001, 0.001


def start_heads(stages: Iterable[RoIHeads], start: str) -> None:
    """Draw the initial weights of RoI heads, in place, from torch's generator.

    Args:
        stages: torchvision's RoI heads, or the stages of a cascade, as their constructors made them.
        start: see `HeadConfig.start`; torchvision draws nothing.
    """
    if start == "torchvision":
        return
    for heads in stages:
        for layer in heads.box_head.modules():
            if isinstance(layer, nn.Linear):
                _fully_connected(layer, start)
        for layer, std in zip(heads.box_predictor.children(), (SCORE_STD, BOX_STD), strict=True):
            _normal(layer, std)
        if heads.has_mask():
            nn.init.zeros_(heads.mask_predictor.conv5_mask.bias)
            logits = heads.mask_predictor.mask_fcn_logits
            classes = logits.out_channels - 1  # the references have no mask of the background
            _normal(logits, MASK_STD if start == "detectron2" else math.sqrt(2 / classes))


def _fully_connected(layer: nn.Linear, start: str) -> None:
    if start == "detectron2":
        nn.init.kaiming_uniform_(layer.weight, a=1)
    else:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def _normal(layer: nn.Module, std: float) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
