"""Parts of the reference programs' networks that are options here: where a ResNet halves, what else is deformable."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mal.errors import ConfigError
from mal.segmenters import training
from mal.segmenters.config_checks import check
from mal.segmenters.deformable import DeformableConv
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.solov2.head import Solov2
from tests.small_segmenters import small
from tests.test_segmenter import CPU, composed, make_dataset

EARLY = ["pyramid.stride_in_1x1=true", "pyramid.channels=8", "pretrained=false"]
DEFORMED = [
    "dcn=true", "grid.deform_out=true", "pyramid.kind=resnet", "pyramid.name=resnet18", "pyramid.channels=8",
    "grid.width=8", "grid.mask_width=8", "grid.kernel=4", "pretrained=false",
]  # fmt: skip


def strides(body: Any) -> list[tuple[int, int]]:
    first = [getattr(body.model, f"layer{stage}")[0] for stage in (1, 2, 3, 4)]
    return [(block.conv1.stride[0], block.conv2.stride[0]) for block in first]


def test_the_stride_moves_to_the_first_convolution_of_a_bottleneck() -> None:
    early = build_pyramid(composed("mask_rcnn_r50", *EARLY), load=False)
    late = build_pyramid(composed("mask_rcnn_r50", *EARLY, "pyramid.stride_in_1x1=false"), load=False)
    assert strides(early.body) == [(1, 1), (2, 1), (2, 1), (2, 1)]
    assert strides(late.body) == [(1, 1), (1, 2), (1, 2), (1, 2)]
    early.load_state_dict(late.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        mine, other = early.eval()(images), late.eval()(images)
    assert [map_.shape for map_ in mine.values()] == [map_.shape for map_ in other.values()]
    assert not torch.allclose(mine["3"], other["3"])


def test_the_last_convolution_of_the_mask_features_is_deformable_if_asked() -> None:
    torch.manual_seed(0)
    plain = Solov2(composed("solov2_tiny", *DEFORMED, "grid.deform_out=false"), classes=2, load=False).eval()
    deformed = Solov2(composed("solov2_tiny", *DEFORMED), classes=2, load=False).eval()
    last = deformed.mask_features.out[0]
    assert isinstance(last, DeformableConv)
    assert last.sampling.weight.shape == (3, 8, 1, 1)  # y, x and strength of its one tap
    assert type(plain.mask_features.out[0]) is nn.Conv2d
    assert deformed.load_state_dict(plain.state_dict(), strict=False).missing_keys == [
        "mask_features.out.0.sampling.weight",
        "mask_features.out.0.sampling.bias",
    ]
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():  # it starts as the plain one
        torch.testing.assert_close(deformed(images).features, plain(images).features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_both_train_under_autocast(dtype: torch.dtype) -> None:
    images = torch.randn(1, 3, 32, 32)
    pyramid = build_pyramid(composed("mask_rcnn_r50", *EARLY), load=False).eval()  # batch norms need more than a pixel
    solo = Solov2(composed("solov2_tiny", *DEFORMED), classes=2, load=False).eval()
    with torch.autocast("cpu", dtype=dtype):
        maps = list(pyramid(images).values())
        outputs = solo(images)
    assert maps[0].dtype == dtype
    (sum(map_.float().square().mean() for map_ in maps) + outputs.features.float().square().mean()).backward()
    last: Any = solo.mask_features.out[0]
    for weight in (pyramid.body.model.layer4[0].conv1.weight, last.weight, last.sampling.weight):
        assert torch.isfinite(weight.grad).all()
        assert weight.grad.abs().sum() > 0


def test_exact_anchors_train_in_every_precision(tmp_path: Path) -> None:
    """The first step's loss is fp32's but for rounding. (Which anchors are drawn afterwards hangs on the weights.)"""
    data, losses = make_dataset(tmp_path / "data", images=4), {}
    for precision in ("fp32", "bf16", "fp16"):
        config = small("mask_rcnn_tiny", "proposals.exact_anchors=true", "schedule.steps=1", f"precision={precision}")
        paths = {"annotations": data / "annotations.json", "images": data / "images"}
        training.train(**paths, config=config, seed=0, folder=tmp_path / precision, device=CPU)
        losses[precision] = json.loads((tmp_path / precision / "curves.jsonl").read_text().splitlines()[0])["loss"]
    assert len(set(losses.values())) == 3
    assert [losses["bf16"], losses["fp16"]] == pytest.approx([losses["fp32"]] * 2, rel=0.02)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("mask_rcnn_timm", "pyramid.stride_in_1x1=true", "needs the bottlenecks of torchvision's ResNets"),
        ("solov2_r50", "grid.deform_out=true", r"deform_out=true needs segmenter\.dcn=true"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name: str, change: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check(composed(name, change))
