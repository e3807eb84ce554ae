"""Layer-wise learning rates are those of ConvNeXt's detectors."""

import pytest
import timm
from torch import nn

from mal.engine.trainer import set_rate
from mal.errors import ConfigError
from mal.segmenters.config import OptimizerConfig
from mal.segmenters.layer_decay import BODY, layer, layer_factors
from mal.segmenters.optimizer import build_optimizer

# Layer by block of the third stage of ConvNeXt-S and -B, written out: 27 blocks, nine layers of three.
THIRD_STAGE = [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11, 11]


class Detector(nn.Module):
    """Names its parameters as a detector on timm's ConvNeXt-S does; narrow."""

    def __init__(self) -> None:
        super().__init__()
        model = timm.create_model("convnext_small", num_classes=0, dims=(2, 4, 6, 8))
        self.backbone = nn.ModuleDict({"body": nn.ModuleDict({"model": model}), "fpn": nn.Conv2d(2, 2, 1)})
        self.roi_heads = nn.Linear(2, 3)


def expected_layer(name: str) -> int:
    """ConvNeXt's own rule, read off its blocks."""
    if "body" not in name or ".head." in name:
        return 13
    parts = name.removeprefix(BODY).split(".")
    if parts[0] == "stem":
        return 0
    stage = int(parts[1])
    if parts[2] == "downsample":
        return {1: 2, 2: 3, 3: 12}[stage]
    return {0: 1, 1: 2, 2: THIRD_STAGE[int(parts[3])], 3: 12}[stage]


def test_every_parameter_of_convnext_s_has_its_layer() -> None:
    names = [name for name, _ in Detector().named_parameters()]
    assert {name: layer(name, layers=12) for name in names} == {name: expected_layer(name) for name in names}
    assert {layer(name, layers=12) for name in names} == set(range(14))


@pytest.mark.parametrize("decay", [0.7, 0.8])
def test_each_group_has_the_rate_of_its_layer_and_norms_do_not_decay(decay: float) -> None:
    config = OptimizerConfig(name="adamw", lr=2e-4, weight_decay=0.05, layer_decay=decay, layers=12)
    model = Detector()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, config, factors=layer_factors(config))
    set_rate(optimizer, 1e-4)  # in the middle of a warm-up
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name, seen = names[id(parameter)], seen + 1
            assert group["lr"] == pytest.approx(1e-4 * decay ** (13 - expected_layer(name))), name
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), name
    assert seen == len(names)


def test_without_layer_decay_all_train_alike() -> None:
    config = OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.1)
    groups = build_optimizer(Detector(), config, factors=layer_factors(config)).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.1), (1e-3, 0.0)]


def test_other_backbones_and_other_depths_are_refused() -> None:
    with pytest.raises(ConfigError, match="knows the layers of ConvNeXt"):
        layer(f"{BODY}layer1.0.conv1.weight", layers=12)
    with pytest.raises(ConfigError, match=r"segmenter\.optimizer\.layers=6 is too few"):
        layer(f"{BODY}stages.2.blocks.9.gamma", layers=6)
    assert layer(f"{BODY}stages.2.blocks.8.gamma", layers=6) == 5  # ConvNeXt-T's last
