"""torchvision's published Mask R-CNN (R-50 FPN, COCO: box AP 37.9, mask AP 34.6) as ours."""

from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from mal.errors import ConfigError, WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published.files import read
from mal.segmenters.published.setting import asked
from mal.segmenters.rcnn.mask_rcnn import build
from mal.segmenters.weights import COUNTER, refuse

WEIGHTS = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
LABELS = len(WEIGHTS.meta["categories"]) - 1  # 90: label and category id are the same number


def fetch(config: SegmenterConfig) -> Path:
    """torchvision's file in torch's own cache, downloaded if it is not there.

    Raises:
        ConfigError: the segmenter is not the published one.
        WeightsError: it cannot be downloaded.
    """
    if (config.pyramid.kind, config.pyramid.name) != ("resnet", "resnet50"):
        raise ConfigError(
            f"segmenter.weights=published: torchvision publishes no weights for a Mask R-CNN on {config.pyramid.name}; "
            "choose segmenter=mask_rcnn_r50, or give a whole model's file with segmenter.checkpoint=FILE"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(WEIGHTS.url).name
    try:
        if not path.exists():
            WEIGHTS.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # hubs fail in as many ways as there are networks
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"the published weights of torchvision's maskrcnn_resnet50_fpn cannot be reached ({reason}); put their "
            f"file {path.name} into {path.parent}, or name it with segmenter.checkpoint=FILE"
        ) from error
    return path


def state(config: SegmenterConfig, file: Path) -> dict[str, Any]:
    """What segmenter.pt holds, from a file of torchvision's maskrcnn_resnet50_fpn.

    Raises:
        WeightsError: the weights are not those of this segmenter; lists the keys.
    """
    own = build(config, classes=LABELS, load=False).state_dict()
    counters = {key: value for key, value in own.items() if key.endswith(COUNTER)}
    weights = read(file, setting=asked(config).file)
    given = {_ours(key): value for key, value in weights.tensors.items() if not key.endswith(COUNTER)} | counters
    faults = {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
            for key, value in given.items()
            if key in own and value.shape != own[key].shape
        ],
    }
    way_out = f"give torchvision's file {Path(WEIGHTS.url).name}, and leave the settings of mask_rcnn_r50 as they are"
    refuse(faults, source=weights.source, model=f"segmenter {config.name}", way_out=way_out)
    return {"model": given, "category_ids": list(range(1, LABELS + 1)), "classes": LABELS}


def _ours(key: str) -> str:
    """Our backbone keeps the ResNet one level deeper."""
    return key.replace("backbone.body.", "backbone.body.model.", 1)
