"""Instance segmenters for phase 2. The seam is JSON in, JSON out, the same for every backend:

training.train(annotations=, images=, config=, seed=, folder=, device=) -> None        writes folder/segmenter.pt
inference.predict(checkpoint=, annotations=, images=, config=, device=) -> COCO results

A new segmenter is its config in experiments/conf/segmenter/ and its name in a backend's record (`backends`). One that
no backend can build is, besides, a module with a `NETWORK` (`network.Network`) and a record of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mal.errors import ConfigError
from mal.segmenters.backends import BACKENDS, SEGMENTERS, Backend
from mal.segmenters.config import SegmenterConfig

if TYPE_CHECKING:
    from mal.segmenters.network import Network


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
    able = {name: each for name, each in BACKENDS.items() if config.name in each.segmenters + each.also}
    if config.backend not in able:
        raise ConfigError(
            f"segmenter.backend={config.backend} cannot build segmenter={config.name}; use {' or '.join(able)}"
        )
    backend = able[config.backend]
    if backend.masks_only and not config.mask_head:
        raise ConfigError(
            f"segmenter={config.name} with segmenter.mask_head=false: its boxes are the extents of its masks, so "
            "without masks nothing is left; for Table 7's detector without masks choose a Mask R-CNN or a Cascade"
        )
    if backend.install:
        _imported(backend)
    if config.dcn and not backend.deformable:
        raise ConfigError(f"segmenter={config.name} has no deformable convolutions; use segmenter.dcn=false")


def title(config: SegmenterConfig) -> str:
    """What tables call it: its name, and what a config has changed that the name does not say."""
    dcn = "_dcn" if config.dcn and not config.name.endswith("_dcn") else ""
    other = f" ({config.backend})" if config.backend != SEGMENTERS[config.name] else ""
    return f"{config.name}{dcn}{other}"


def find(config: SegmenterConfig) -> "Network":
    """What builds a segmenter, trains it and predicts with it.

    Raises:
        ConfigError: see `check_built`.
    """
    check_built(config)
    return _imported(BACKENDS[config.backend])


def _imported(backend: Backend) -> "Network":
    """
    Raises:
        ConfigError: it needs a package that is optional, and cannot be imported here.
    """
    try:
        return import_module(backend.module).NETWORK
    except ImportError as error:
        if not backend.install:
            raise
        raise ConfigError(
            f"segmenter.backend={backend.name} needs {backend.name}, which cannot be imported ({error}). "
            f"It {backend.install}"
        ) from error
