"""Layer-wise learning rates: the nearer a layer lies to the image, the less it moves from its loaded weights."""

from torch import nn

from mal.errors import ConfigError
from mal.segmenters.config import OptimizerConfig
from mal.segmenters.optimizer import Factors, usual_factors

BODY = "backbone.body.model."  # a timm model inside a pyramid inside a detector
BLOCKS = 3  # of ConvNeXt's third stage, to a layer


def layer_factors(config: OptimizerConfig) -> Factors:
    """Factors of the learning rate and of the weight decay of each parameter: lr × decay^(layers above it).

    Biases and norms do not decay.

    Args:
        config: `layer_decay` and `layers` are used.
    """
    if config.layer_decay == 1:
        return usual_factors

    def factors(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        above = config.layers + 1 - layer(name, layers=config.layers)
        return config.layer_decay**above, float(parameter.ndim > 1)

    return factors


def layer(name: str, *, layers: int) -> int:
    """The layer a parameter of a detector on ConvNeXt belongs to, as ConvNeXt's own detectors count.

    0 is the stem, 1 and 2 the first two stages, then every three blocks of the third make one; `layers` (12 for
    ConvNeXt-S and larger, 6 for -T) is the last stage, `layers` + 1 all that is no backbone. What halves the map
    before a stage counts with the stage's first block.

    Raises:
        ConfigError: the backbone is no ConvNeXt, or has more layers.
    """
    if not name.startswith(BODY):
        return layers + 1
    part, *rest = name.removeprefix(BODY).split(".")
    if part in ("stem", "head"):  # the head's norm, which is left over and unused, is no part of the backbone
        return 0 if part == "stem" else layers + 1
    if part != "stages":
        raise ConfigError(
            f"segmenter.optimizer.layer_decay knows the layers of ConvNeXt, not those of this backbone ({name}); set 1"
        )
    stage, kind, block, *_ = rest
    if stage != "2":
        return {"0": 1, "1": 2, "3": layers}[stage]
    number = 3 + (int(block) // BLOCKS if kind == "blocks" else 0)
    if number >= layers:
        raise ConfigError(
            f"segmenter.optimizer.layers={layers} is too few: block {block} of the third stage is in layer {number}, "
            "and the last stage comes after it; set 12 for ConvNeXt-S, -B and larger, 6 for -T"
        )
    return number
