"""Every weight of Mask2Former starts as stated here, whatever version of the library builds it."""

import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mal.segmenters import mask2former
from mal.segmenters.mask2former.model import SWINS
from tests.test_segmenter import composed

WIDTH, FEED, CLASSES = 64, 128, 40  # of mask2former_tiny: of queries and pixels, of feed-forward parts; of this test


@dataclass
class Start:
    """A weight's distribution: uniform within ± bound, or normal with a spread, or a constant."""

    bound: float | None = None
    spread: float | None = None
    constant: float | None = None


def xavier(fan_in: int, fan_out: int) -> Start:
    return Start(bound=math.sqrt(6 / (fan_in + fan_out)))


def caffe2(fan_in: int) -> Start:
    return Start(bound=math.sqrt(3 / fan_in))


def torchs(fan_in: int) -> Start:
    return Start(bound=1 / math.sqrt(fan_in))


ZERO, ONE, NORMAL = Start(constant=0.0), Start(constant=1.0), Start(spread=1.0)
QUERIES, PIXELS = r"model\.transformer_module\.", r"model\.pixel_level_module\.decoder\."
LAYER = rf"{QUERIES}decoder\.layers\.\d\."
DEFORMABLE = rf"{PIXELS}encoder\.layers\.\d\."
STARTS = {
    rf"{QUERIES}(queries_features|queries_embedder|level_embed)\.weight": NORMAL,
    rf"{PIXELS}level_embed": NORMAL,
    rf"{LAYER}self_attn\.[qkv]_proj\.weight": xavier(WIDTH, 3 * WIDTH),  # one matrix makes all three in the paper's
    rf"{LAYER}cross_attn\.in_proj_weight": xavier(WIDTH, 3 * WIDTH),
    rf"{LAYER}(self|cross)_attn\.out_proj\.weight": xavier(WIDTH, WIDTH),
    rf"({LAYER}|{DEFORMABLE})fc[12]\.weight": xavier(WIDTH, FEED),
    rf"({LAYER}|{DEFORMABLE}).*bias(?<!sampling_offsets\.bias)(?<!norm\.bias)": ZERO,
    rf"{DEFORMABLE}self_attn\.(sampling_offsets|attention_weights)\.weight": ZERO,
    rf"{DEFORMABLE}self_attn\.(value|output)_proj\.weight": xavier(WIDTH, WIDTH),
    rf"{QUERIES}.*mask_embedder\..*": torchs(WIDTH),  # biases too
    r"class_predictor\.(weight|bias)": torchs(WIDTH),
    rf"{PIXELS}input_projections\.0\.0\.weight": xavier(128, WIDTH),  # strides 32, 16, 8
    rf"{PIXELS}input_projections\.1\.0\.weight": xavier(96, WIDTH),
    rf"{PIXELS}input_projections\.2\.0\.weight": xavier(64, WIDTH),
    rf"{PIXELS}input_projections\.\d\.0\.bias": ZERO,
    rf"{PIXELS}adapter_1\.0\.weight": caffe2(32),
    rf"{PIXELS}layer_1\.0\.weight": caffe2(9 * WIDTH),
    rf"{PIXELS}mask_projection\.weight": caffe2(WIDTH),
    rf"{PIXELS}mask_projection\.bias": ZERO,
    rf"({LAYER}|{DEFORMABLE}|{QUERIES}decoder\.).*norm\.weight": ONE,
    rf"({LAYER}|{DEFORMABLE}|{QUERIES}decoder\.).*norm\.bias": ZERO,
    rf"{PIXELS}(input_projections\.\d|adapter_1|layer_1)\.1\.weight": ONE,
    rf"{PIXELS}(input_projections\.\d|adapter_1|layer_1)\.1\.bias": ZERO,
}


def matches(weight: Tensor, start: Start) -> bool:
    """Within five standard errors of the mean and of the variance, and within the bound."""
    if start.constant is not None:
        return bool((weight == start.constant).all())
    values, count = weight.detach().double().flatten(), weight.numel()
    spread = start.spread or (start.bound or 0) / math.sqrt(3)
    kurtosis = 3.0 if start.spread else 1.8
    mean = abs(values.mean().item()) < 5 * spread / math.sqrt(count)
    variance = abs(values.square().mean().item() / spread**2 - 1) < 5 * math.sqrt((kurtosis - 1) / count)
    return mean and variance and (start.bound is None or values.abs().max().item() <= start.bound * (1 + 1e-6))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return mask2former.build(composed("mask2former_tiny"), classes=CLASSES).network


def test_every_weight_outside_the_backbone_starts_as_the_authors_start_it(network: nn.Module) -> None:
    seen: dict[str, int] = dict.fromkeys(STARTS, 0)
    for name, weight in network.named_parameters():
        if name.startswith("model.pixel_level_module.encoder.") or name.endswith("sampling_offsets.bias"):
            continue
        rules = [rule for rule in STARTS if re.fullmatch(rule, name)]
        assert len(rules) == 1, (name, rules)
        assert matches(weight, STARTS[rules[0]]), (name, weight.std(), STARTS[rules[0]])
        seen[rules[0]] += 1
    assert min(seen.values()) > 0, seen


def test_heads_of_the_deformable_attention_look_in_eight_directions(network: nn.Module) -> None:
    attention = network.model.pixel_level_module.decoder.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.view(attention.n_heads, 3, 4, 2)  # heads, levels, points, xy
    right_down_left_up = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # four heads
    for point in range(4):
        for level in range(3):
            torch.testing.assert_close(offsets[:, level, point], (point + 1) * right_down_left_up, atol=1e-6, rtol=0)


def test_the_tiny_resnet_starts_as_he_et_al_start_theirs(network: nn.Module) -> None:
    backbone, convolutions = network.model.pixel_level_module.encoder, 0
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            outputs = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert matches(module.weight, Start(spread=math.sqrt(2 / outputs)))
            convolutions += 1
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
    assert convolutions == 12


def test_norms_of_a_swins_maps_start_as_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in no published file, so that nothing else sets them."""
    sizes = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
    monkeypatch.setitem(SWINS, "swin_small", ("no/such-model", sizes))
    config = composed("mask2former_tiny", "pyramid.kind=swin", "pyramid.name=swin_small", "pretrained=false")
    norms = mask2former.build(config, classes=2).backbone.hidden_states_norms
    assert len(norms) == 4
    for norm in norms.values():
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
