"""Backbones keep what they are told to keep, and deform what they are told to deform."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from mal.config import Config
from mal.errors import ConfigError
from mal.segmenters.config import PyramidConfig
from mal.segmenters.config_checks import check
from mal.segmenters.deformable import DeformableConv
from mal.segmenters.pyramids import Pyramid, ResnetBody, TimmBody, build_pyramid
from mal.segmenters.weights import load_backbone
from tests.test_segmenter import composed

Compose = Callable[..., Config]
SMALL = ("segmenter.pyramid.channels=8", "segmenter.pretrained=false")
RESNETS = {
    "torchvision, plain": ("mask_rcnn_r50", "resnet18"),
    "torchvision, grouped": ("mask_rcnn_r50", "resnext50_32x4d"),
    "timm, grouped": ("mask_rcnn_timm", "resnext50_32x4d"),
}


def small_pyramid(compose: Compose, segmenter: str, name: str, *overrides: str) -> Pyramid:
    config = compose(f"segmenter={segmenter}", f"segmenter.pyramid.name={name}", *SMALL, *overrides).segmenter
    torch.manual_seed(0)
    return build_pyramid(config, load=True).eval()


def deformed(pyramid: Pyramid) -> list[str]:
    return [name for name, module in pyramid.body.named_modules() if isinstance(module, DeformableConv)]


@pytest.mark.parametrize(("segmenter", "name"), RESNETS.values(), ids=RESNETS.keys())
def test_dcn_deforms_stages_3_to_5_and_starts_as_the_plain_network(
    compose: Compose, segmenter: str, name: str, tmp_path: Path
) -> None:
    plain = small_pyramid(compose, segmenter, name)
    torch.save(plain.body.model.state_dict(), tmp_path / "weights.pth")
    with_dcn = small_pyramid(
        compose, segmenter, name, "segmenter.dcn=true", f"segmenter.checkpoint={tmp_path / 'weights.pth'}"
    )
    three_by_three = [
        key
        for key, module in plain.body.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert deformed(with_dcn) == [key for key in three_by_three if key.split(".")[1] in ("layer2", "layer3", "layer4")]
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for expected, level in zip(plain.body(images), with_dcn.body(images), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-3, atol=1e-4)


def test_networks_without_such_convolutions_refuse_dcn(compose: Compose) -> None:
    with pytest.raises(ConfigError, match="timm's convnext_atto is none"):
        small_pyramid(compose, "mask_rcnn_timm", "convnext_atto", "segmenter.dcn=true")
    with pytest.raises(ConfigError, match=r"segmenter\.pyramid\.kind=tiny is none"):
        check(compose("segmenter=mask_rcnn_tiny", "segmenter.dcn=true").segmenter)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("resnext50_32x4d", {"conv1", "bn1", "layer1"}),
        ("convnext_atto", {"stem", "stages.0"}),
    ],
)
def test_timm_backbones_keep_their_first_stages(compose: Compose, tmp_path: Path, name: str, kept: set[str]) -> None:
    scratch = small_pyramid(compose, "mask_rcnn_timm", name, "segmenter.pyramid.frozen_stages=2")
    assert all(parameter.requires_grad for parameter in scratch.parameters())  # nothing loaded, nothing to keep
    torch.save(scratch.body.model.state_dict(), tmp_path / "weights.pth")
    pyramid = small_pyramid(
        compose,
        "mask_rcnn_timm",
        name,
        "segmenter.pyramid.frozen_stages=2",
        f"segmenter.checkpoint={tmp_path / 'weights.pth'}",
    )
    for key, parameter in pyramid.body.model.named_parameters():
        assert parameter.requires_grad != any(key.startswith(f"{part}.") for part in kept), key


@pytest.mark.parametrize(("segmenter", "name"), RESNETS.values(), ids=RESNETS.keys())
def test_batch_norms_can_keep_their_statistics_and_learn_their_affine(
    compose: Compose, segmenter: str, name: str, tmp_path: Path
) -> None:
    scratch = small_pyramid(compose, segmenter, name)
    for module in scratch.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.ones_(module.weight)  # timm's last of a block are 0, so that nothing would reach the others
    torch.save(scratch.body.model.state_dict(), tmp_path / "weights.pth")
    loaded = ("segmenter.pyramid.norm=affine", "segmenter.pyramid.frozen_stages=2")
    pyramid = small_pyramid(compose, segmenter, name, *loaded, f"segmenter.checkpoint={tmp_path / 'weights.pth'}")
    state = {key: value.clone() for key, value in pyramid.body.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    expected = pyramid.body(images)[-1].detach()
    nn.ModuleList([pyramid]).train()  # as a part of something larger
    optimizer = torch.optim.SGD(pyramid.parameters(), lr=0.1)
    found = pyramid.body(images)[-1]
    torch.testing.assert_close(found, expected)  # by the loaded statistics in training too
    found.square().mean().backward()
    optimizer.step()
    norms = [key for key, module in pyramid.body.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 15
    for norm in norms:
        kept = norm.removeprefix("model.").startswith(("bn1", "layer1"))
        for part in ("running_mean", "running_var", "num_batches_tracked", "weight", "bias"):
            same = torch.equal(pyramid.body.state_dict()[f"{norm}.{part}"], state[f"{norm}.{part}"])
            assert same is (kept or part not in ("weight", "bias")), f"{norm}.{part}"


def test_a_backbone_from_scratch_learns_its_statistics_whatever_norm_says(compose: Compose) -> None:
    pyramid = small_pyramid(compose, "mask_rcnn_r50", "resnet18", "segmenter.pyramid.norm=affine").train()
    pyramid.body(torch.randn(2, 3, 64, 64))
    assert pyramid.body.model.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("start", ["kaiming", "xavier"])
def test_the_pyramids_convolutions_start_as_either_reference_has_them(compose: Compose, start: str) -> None:
    overrides = ("segmenter.pyramid.channels=64", f"segmenter.pyramid.fpn_start={start}")
    pyramid = small_pyramid(compose, "mask_rcnn_r50", "resnet50", *overrides)
    for blocks, area in ((pyramid.fpn.inner_blocks, 1), (pyramid.fpn.layer_blocks, 9)):
        for block in blocks:
            out, into = block[0].weight.shape[:2]
            variance = {"kaiming": 1 / (area * into), "xavier": 2 / (area * (into + out))}[start]
            bound = (3 * variance) ** 0.5
            assert bound * 0.99 < block[0].weight.abs().max() <= bound
            assert not block[0].bias.any()


def test_timms_resnext_is_torchvisions_to_the_name() -> None:
    """So that weights of either fit: a smaller one of the kind. X-101-64x4d itself is slow to build, see below."""
    same_outputs("resnext50_32x4d", "resnext50_32x4d.gluon_in1k")


@pytest.mark.slow
def test_timms_x101_64x4d_is_torchvisions_to_the_name() -> None:
    same_outputs("resnext101_64x4d", "resnext101_64x4d.gluon_in1k")


def same_outputs(torchvisions: str, timms: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(torchvisions, weights=None).double().eval()
    body = TimmBody(PyramidConfig(kind="timm", name=timms)).double().eval()
    load_backbone(body.model, theirs.state_dict(), head=body.head, source="torchvision")
    reference = ResnetBody(PyramidConfig(name=torchvisions)).double().eval()
    load_backbone(reference.model, theirs.state_dict(), head=reference.head, source="torchvision")
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        for found, expected in zip(body(images), reference(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_model_can_start_from_other_weights_of_its_authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the cascades do: from a file in the layout that ConvNeXt's authors publish, wherever it lies."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
    made = timm.create_model("convnext_tiny", num_classes=1000, **sizes).state_dict()
    renamed = {}
    for key, value in made.items():
        key = key.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.").replace("head.fc.", "head.")
        key = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)
        key = re.sub(r"stages\.(\d)\.blocks\.(\d)\.", r"stages.\1.\2.", key).replace("conv_dw", "dwconv")
        renamed[key.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")] = value
    assert "stages.2.1.dwconv.weight" in renamed
    torch.save({"model": renamed}, tmp_path / "published.pth")
    overlay = {"hf_hub_id": None, "url": (tmp_path / "published.pth").as_uri()}
    options = {**sizes, "pretrained_cfg_overlay": overlay}
    body = TimmBody(PyramidConfig(kind="timm", name="convnext_tiny.fb_in1k", options=options))
    given = body.published()
    assert given.keys() == body.model.state_dict().keys()
    assert all(torch.equal(value, made[key]) for key, value in given.items())
    torch.save(made, tmp_path / "timm.pth")
    for name in ("published.pth", "timm.pth"):  # and without a network, as files
        config = composed("mask_rcnn_timm", "pyramid.channels=8", f"checkpoint={tmp_path / name}")
        config.pyramid.name, config.pyramid.options = "convnext_tiny.fb_in1k", sizes
        loaded = build_pyramid(config, load=True).body.model.state_dict()
        assert all(torch.equal(value, made[key]) for key, value in loaded.items())


@pytest.mark.parametrize("size", ["s", "b"])
def test_the_cascades_start_from_the_weights_before_averaging(size: str) -> None:
    config = composed(f"cascade_convnext_{size}", "pretrained=false").pyramid
    cfg = TimmBody(config).model.pretrained_cfg
    word = {"s": "small", "b": "base"}[size]
    assert cfg["url"] == f"https://dl.fbaipublicfiles.com/convnext/convnext_{word}_1k_224.pth"
    assert not cfg.get("hf_hub_id")
    assert timm.get_pretrained_cfg(config.name).url == cfg["url"].replace(".pth", "_ema.pth")


def test_map_norms_normalise_the_channels_of_each_map(compose: Compose) -> None:
    pyramid = small_pyramid(compose, "mask_rcnn_timm", "convnext_atto", "segmenter.pyramid.map_norm=true")
    [maps] = [pyramid.body(torch.randn(1, 3, 64, 64))]
    for norm, level in zip(pyramid.map_norms, maps, strict=True):
        normalised = norm(3 * level + 2)
        torch.testing.assert_close(normalised.mean(dim=1), torch.zeros_like(level[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(normalised.square().mean(dim=1), torch.ones_like(level[:, 0]), atol=1e-2, rtol=0)
