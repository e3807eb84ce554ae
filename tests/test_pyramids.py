"""Backbones keep what they are told to keep, and deform what they are told to deform."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mal.config import Config
from mal.errors import ConfigError
from mal.segmenters.config_checks import check
from mal.segmenters.deformable import DeformableConv
from mal.segmenters.pyramids import Pyramid, build_pyramid

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


def test_map_norms_normalise_the_channels_of_each_map(compose: Compose) -> None:
    pyramid = small_pyramid(compose, "mask_rcnn_timm", "convnext_atto", "segmenter.pyramid.map_norm=true")
    [maps] = [pyramid.body(torch.randn(1, 3, 64, 64))]
    for norm, level in zip(pyramid.map_norms, maps, strict=True):
        normalised = norm(3 * level + 2)
        torch.testing.assert_close(normalised.mean(dim=1), torch.zeros_like(level[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(normalised.square().mean(dim=1), torch.ones_like(level[:, 0]), atol=1e-2, rtol=0)
