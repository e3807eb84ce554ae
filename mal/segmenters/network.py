"""What the module of a backend gives, for `training` and `inference` to use: its `NETWORK`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mal.engine.precision import network_dtype
from mal.segmenters.config import OptimizerConfig, SegmenterConfig
from mal.segmenters.layer_decay import layer_factors
from mal.segmenters.loop import Drive, Losses
from mal.segmenters.optimizer import Factors
from mal.segmenters.precision import lower_precision

Json = dict[str, Any]
# a batch's entries of the COCO file and its images, (3, h, w) uint8 RGB on the CPU → COCO results, in pixels of the
# original images, the entries' order kept; called in inference mode
Detect = Callable[[list[Json], list[Tensor]], list[Json]]


@dataclass(frozen=True)
class Network:
    """How a backend builds its models, trains them and detects with them.

    Attributes:
        build: (config, classes=, load=True) → the untrained model. `classes` does not count the background; load: fill
            in the backbone's starting weights, false where a trained segmenter's weights follow. It raises ConfigError
            and WeightsError.
        losses: (model, batch) → name → loss.
        detector: (model, categories=, config=) → what detects on a batch. The model is in evaluation mode, on its
            device; categories: ids, by label.
        lowered_parts: the submodules that may run in lower precision.
        factors: of the learning rate and the weight decay of each parameter.
        drive: config → what takes the steps of `loop.train` itself, for libraries that bring a trainer of their own; it
            raises ConfigError where that cannot train.
        resizes_published: it gets images as they are stored where `config.weights` is published, and resizes them as
            its library does.
    """

    build: Callable[..., nn.Module]
    losses: Losses
    detector: Callable[..., Detect]
    lowered_parts: Callable[[SegmenterConfig], list[str]]
    factors: Callable[[OptimizerConfig], Factors] = layer_factors
    drive: Callable[[SegmenterConfig], Drive] | None = None
    resizes_published: bool = False

    def lowered(self, model: nn.Module, config: SegmenterConfig, *, device: torch.device) -> nn.Module:
        """The same model, changed in place to compute as `config.precision` says."""
        dtype = network_dtype(config.precision, device)
        return lower_precision(model, self.lowered_parts(config), dtype=dtype, device=device)
