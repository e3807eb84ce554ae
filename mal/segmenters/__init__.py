"""Instance segmenters for phase 2. The seam is JSON in, JSON out, the same for every backend:

train(annotations=, images=, config=, seed=, folder=, device=) -> None        writes folder/segmenter.pt
predict(checkpoint=, annotations=, images=, config=, device=) -> COCO results
"""

from importlib import import_module
from types import ModuleType

from mal.errors import ConfigError
from mal.segmenters.config import SegmenterConfig

# Tables 1, 2 and 7 of the paper, and three of ours: name → the backend that its config names.
SEGMENTERS = {
    "mask_rcnn_tiny": "torchvision",
    "mask_rcnn_r50": "torchvision",
    "mask_rcnn_timm": "torchvision",
    "mask_rcnn_r101": "torchvision",
    "mask_rcnn_x101_32x4d": "torchvision",
    "mask_rcnn_x101_64x4d": "torchvision",
    "cascade_tiny": "cascade",
    "cascade_convnext_s": "cascade",
    "cascade_convnext_b": "cascade",
    "mask2former_tiny": "transformers",
    "mask2former_swin_s": "transformers",
    "solov2_tiny": "solov2",
    "solov2_r50": "solov2",
    "solov2_r101_dcn": "solov2",
    "solov2_x101_dcn": "solov2",
}

# Backend → what it can build besides, where the config names it: segmenter.backend=detectron2.
ALSO = {
    "detectron2": (
        "mask_rcnn_tiny",
        "mask_rcnn_r50",
        "mask_rcnn_timm",
        "mask_rcnn_r101",
        "mask_rcnn_x101_32x4d",
        "mask_rcnn_x101_64x4d",
        "cascade_tiny",
        "cascade_convnext_s",
        "cascade_convnext_b",
    )
}

MODULES = {  # imported when used: some backends are optional, some take seconds
    "torchvision": "mal.segmenters.rcnn.mask_rcnn",
    "cascade": "mal.segmenters.rcnn.cascade",
    "transformers": "mal.segmenters.mask2former",
    "solov2": "mal.segmenters.solov2",
    "detectron2": "mal.segmenters.rcnn.detectron2",
}
INSTALL = {  # of what no requirement brings
    "detectron2": "is on no package index; get it from its public source (it is compiled, minutes on a free core): "
    "python -m pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2'"
}
R_CNNS = ("torchvision", "cascade", "detectron2")
DEFORMABLE = (*R_CNNS, "solov2")  # backends whose backbones can have deformable convolutions
MASKS_ONLY = ("transformers", "solov2")  # backends that find objects by their masks: without masks they find none


def check_built(config: SegmenterConfig) -> None:
    """Refuse a segmenter that cannot be trained, before any work.

    Raises:
        ConfigError: the name is unknown, or there is none, or it cannot do without a mask head; the backend is not for
            it, or is not installed.
    """
    if config.name == "none":
        raise ConfigError(f"segmenter=none trains nothing; for phase 2 choose one of {', '.join(SEGMENTERS)}")
    if config.name not in SEGMENTERS:
        raise ConfigError(f"segmenter.name={config.name} is unknown; choose one of {', '.join(SEGMENTERS)}")
    backends = [SEGMENTERS[config.name], *(other for other, names in ALSO.items() if config.name in names)]
    if config.backend not in backends:
        raise ConfigError(
            f"segmenter.backend={config.backend} cannot build segmenter={config.name}; use {' or '.join(backends)}"
        )
    if config.backend in MASKS_ONLY and not config.mask_head:
        raise ConfigError(
            f"segmenter={config.name} with segmenter.mask_head=false: its boxes are the extents of its masks, so "
            "without masks nothing is left; for Table 7's detector without masks choose a Mask R-CNN or a Cascade"
        )
    if config.backend in INSTALL:
        _module(config.backend)
    if config.dcn and config.backend not in DEFORMABLE:
        raise ConfigError(f"segmenter={config.name} has no deformable convolutions; use segmenter.dcn=false")


def title(config: SegmenterConfig) -> str:
    """What tables call it: its name, and what a config has changed that the name does not say."""
    dcn = "_dcn" if config.dcn and not config.name.endswith("_dcn") else ""
    other = f" ({config.backend})" if config.backend != SEGMENTERS[config.name] else ""
    return f"{config.name}{dcn}{other}"


def backend(config: SegmenterConfig) -> ModuleType:
    """The module with `train` and `predict` for a segmenter.

    Raises:
        ConfigError: see `check_built`.
    """
    check_built(config)
    return _module(config.backend)


def _module(backend: str) -> ModuleType:
    """
    Raises:
        ConfigError: it needs a package that is optional, and cannot be imported here.
    """
    try:
        return import_module(MODULES[backend])
    except ImportError as error:
        if backend not in INSTALL:
            raise
        raise ConfigError(
            f"segmenter.backend={backend} needs {backend}, which cannot be imported ({error}). It {INSTALL[backend]}"
        ) from error
