"""SimFormer's network: the library's own MaskFormer to the last bit, its start, its sizes, and half precision."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import MaskFormerForInstanceSegmentation, ResNetConfig

from mal.encoders.config import EncoderConfig
from mal.encoders.pyramid import Pyramid
from mal.errors import ConfigError
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.criterion import criterion
from mal.methods.simformer.network import SimFormer, architecture, semantic_scores

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf" / "encoder"
MOBILE = EncoderConfig(name="mobile", timm="mobilenetv2_050", pretrained=False, freeze_norm=True)
SMALL = NetworkConfig(width=32, queries=7, layers=3, heads=4, feed_forward=48)
CLASSES = 5
STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def network(config: NetworkConfig = SMALL, encoder: EncoderConfig = MOBILE) -> SimFormer:
    return SimFormer(encoder, config, classes=CLASSES)


class _Maps(nn.Module):
    """What transformers' model asks of a backbone, from ours."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid, self.channels = pyramid, pyramid.widths

    def forward(self, images: torch.Tensor) -> "_Maps":
        self.feature_maps = self.pyramid(images)
        return self


def library(ours: SimFormer) -> MaskFormerForInstanceSegmentation:
    """transformers' own model with the same weights."""
    config = architecture(ours.config, classes=CLASSES)
    config.backbone_config = ResNetConfig(hidden_sizes=ours.backbone.widths, depths=[1, 1, 1, 1], out_features=STAGES)
    theirs = MaskFormerForInstanceSegmentation(config)
    theirs.model.pixel_level_module.encoder = _Maps(ours.backbone)
    theirs.model.pixel_level_module.decoder.load_state_dict(ours.pixel_decoder.state_dict())
    theirs.model.transformer_module.load_state_dict(ours.transformer.state_dict())
    theirs.class_predictor.load_state_dict(ours.class_predictor.state_dict())
    theirs.mask_embedder.load_state_dict(ours.mask_embedder.state_dict())
    return theirs.eval()


def test_the_last_of_six_outputs_is_the_librarys_bit_for_bit():
    ours = network(replace(SMALL, layers=6)).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found, theirs = ours(images), library(ours)(images)
    assert len(found.classes) == len(found.masks) == 6
    assert torch.equal(found.classes[-1], theirs.class_queries_logits)
    assert torch.equal(found.masks[-1], theirs.masks_queries_logits)
    assert found.pixels.shape == (2, 32, 16, 24)
    assert [each.shape for each in found.classes] == [(2, 7, 6)] * 6
    assert [each.shape for each in found.masks] == [(2, 7, 16, 24)] * 6


@pytest.mark.parametrize("memory", ["stride32", "stride8"])
def test_each_layer_predicts_what_a_network_that_ends_there_would(memory):
    ours = network(replace(SMALL, memory=memory)).eval()
    images = torch.rand(1, 3, 64, 64)
    layers = ours.transformer.decoder.layers
    with torch.no_grad():
        found = ours(images)
        for last in (0, 1):
            ours.transformer.decoder.layers = layers[: last + 1]
            shorter = ours(images)
            assert len(shorter.classes) == last + 1
            assert torch.equal(shorter.classes[-1], found.classes[last])
            assert torch.equal(shorter.masks[-1], found.masks[last])


def test_the_memory_is_the_map_that_its_setting_names():
    for memory, cells, channels in (("stride32", 2 * 3, 160), ("stride8", 8 * 12, 32)):
        ours, seen = network(replace(SMALL, memory=memory)).eval(), []
        ours.transformer.register_forward_pre_hook(lambda _module, given, seen=seen: seen.append(given[0].shape))
        ours(torch.rand(1, 3, 64, 96))
        (shape,) = seen
        assert shape[2] * shape[3] == cells
        assert shape[1] == channels


def test_it_starts_as_maskformer_does():
    ours = network(NetworkConfig(width=128, queries=100, layers=2, heads=4, feed_forward=256))
    queries = ours.transformer.queries_embedder.weight
    assert queries.std().item() == pytest.approx(1, abs=0.05)
    for part in (ours.pixel_decoder, ours.transformer):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                bound = math.sqrt(3 / (module.in_channels * module.kernel_size[0] ** 2))  # gain 1 for a = 1
                assert 0.9 * bound < module.weight.abs().max().item() <= bound
                assert module.bias is None or not module.bias.any()
    layer = ours.transformer.decoder.layers[1]
    for linear, fan in ((layer.mlp.fc1, 384), (layer.encoder_attn.o_proj, 256), (layer.self_attn.q_proj, 512)):
        bound = math.sqrt(6 / fan)
        assert 0.9 * bound < linear.weight.abs().max().item() <= bound * (1 + 1e-6)
        assert not linear.bias.any()


def test_the_papers_encoder_is_torchvisions_resnet_with_frozen_norms_and_all_else_trained():
    values = OmegaConf.to_container(OmegaConf.load(CONF / "resnet50.yaml"))
    assert values["timm"] in timm.list_pretrained()
    pyramid = Pyramid(EncoderConfig(**{**values, "pretrained": False}))
    assert pyramid.widths == [256, 512, 1024, 2048]
    norms = {name for name, module in pyramid.named_modules() if isinstance(module, nn.BatchNorm2d)}
    fixed = {name.rpartition(".")[0] for name, weight in pyramid.named_parameters() if not weight.requires_grad}
    assert fixed == norms
    assert not any(pyramid.get_submodule(name).training for name in norms)
    assert sum(weight.numel() for weight in pyramid.parameters()) == 23_508_032  # torchvision's, the classifier apart


def test_it_has_the_size_that_maskformer_reports():
    """41 million parameters on a ResNet-50 for ADE20K (Cheng et al., 2021, Table 1)."""
    encoder = EncoderConfig(name="resnet50", timm="resnet50", pretrained=False)
    ours = SimFormer(encoder, NetworkConfig(), classes=150)
    assert round(sum(weight.numel() for weight in ours.parameters()) / 1e6) == 41


def test_frozen_statistics_stay_in_training():
    ours = network().train()
    norm = next(module for module in ours.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    ours(torch.rand(2, 3, 32, 32))
    assert torch.equal(norm.running_mean, before)


def test_any_pyramid_of_timm_serves_at_any_size():
    swin = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "strict_img_size": False}
    for name, options in (
        ("swin_tiny_patch4_window7_224", swin),
        ("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}),
    ):
        pyramid = Pyramid(EncoderConfig(name=name, timm=name, pretrained=False, options=options))
        for height, width in ((64, 64), (96, 160)):
            shapes = [tuple(found.shape[2:]) for found in pyramid(torch.rand(1, 3, height, width))]
            assert shapes == [(height // stride, width // stride) for stride in (4, 8, 16, 32)]


def test_what_cannot_serve_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"gives maps of strides \[16\]; a pyramid needs"):
        Pyramid(EncoderConfig(name="vit", timm="vit_tiny_patch16_224", pretrained=False))
    with pytest.raises(ConfigError, match="strict_img_size=false"):
        Pyramid(EncoderConfig(name="swin", timm="swin_tiny_patch4_window7_224", pretrained=False))
    with pytest.raises(ConfigError, match=r"width=48 is no multiple of 32"):
        network(replace(SMALL, width=48))
    with pytest.raises(ConfigError, match=r"heads=5 do not divide"):
        network(replace(SMALL, heads=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", ["stride32", "stride8"])
def test_a_step_in_each_precision_moves_every_trained_weight(dtype, memory):
    ours = network(replace(SMALL, memory=memory)).train()
    labels = torch.full((2, 64, 64), 255)
    labels[:, :32] = torch.tensor([0, 1])[:, None, None]
    inside = torch.ones(2, 64, 64, dtype=torch.bool)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        outputs = ours(torch.rand(2, 3, 64, 64))
        losses = criterion(outputs.float(), labels, inside, [[0, 1], [0, 1]], [[3], [2, 4]], LossesConfig())
    assert {name: loss.dtype for name, loss in losses.items()} == dict.fromkeys(
        ("cls", "mask", "complement"), torch.float32
    )
    torch.stack(list(losses.values())).sum().backward()
    still = {name for name, weight in ours.named_parameters() if weight.requires_grad and weight.grad is None}
    assert still == set()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters() if weight.requires_grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_stay_whole_in_half_precision(dtype):
    ours = network()
    whole = ours.transformer.position_embedder((1, 32, 5, 7), "cpu", torch.float32)
    half = ours.transformer.position_embedder((1, 32, 5, 7), "cpu", dtype)
    assert half.dtype == torch.float32
    assert torch.equal(whole, half)


def test_scores_by_hand():
    classes = torch.log(torch.tensor([[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]]))
    masks = torch.logit(torch.tensor([[[[0.9, 0.2]], [[0.4, 0.7]]]]))
    expected = [[0.5 * 0.9 + 0.1 * 0.4, 0.5 * 0.2 + 0.1 * 0.7], [0.2 * 0.9 + 0.6 * 0.4, 0.2 * 0.2 + 0.6 * 0.7]]
    torch.testing.assert_close(semantic_scores(classes, masks), torch.tensor(expected)[None, :, None])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(semantic_scores(classes, masks), torch.tensor(expected)[None, :, None])
