"""A pyramid that is asked for some strides has their maps as the whole one gives them, and no stage behind."""

import pytest
import torch

from mal.encoders.config import EncoderConfig
from mal.encoders.pyramid import STRIDES, Pyramid
from mal.errors import ConfigError

SMALL = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "strict_img_size": False}
MODELS = {
    "convnext_tiny": SMALL,
    "swin_tiny_patch4_window7_224": SWIN,
    "resnet18": {},
    "mobilenetv2_100": {},
    "darknet53": {},
}


def pyramid(name: str, **more: object) -> Pyramid:
    torch.manual_seed(0)
    return Pyramid(EncoderConfig(name=name, timm=name, pretrained=False, options=MODELS[name]), **more)


@pytest.mark.parametrize("strides", [(4, 8), (4, 16), (8,)])
@pytest.mark.parametrize("name", MODELS)
def test_some_maps_are_those_of_the_whole_pyramid_without_the_stages_behind(name: str, strides: tuple) -> None:
    whole, some = pyramid(name), pyramid(name, strides=strides)
    held = whole.state_dict()
    state = some.state_dict()
    assert state.keys() < held.keys()
    some.load_state_dict({key: held[key] for key in state})
    wanted = [STRIDES.index(stride) for stride in strides]
    assert some.widths == [whole.widths[i] for i in wanted]
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        every, found = whole.eval()(images), some.eval()(images)
    for place, each in zip(wanted, found, strict=True):
        assert torch.equal(each, every[place])
    sum(each.square().sum() for each in some.train()(images)).backward()
    assert [key for key, weight in some.named_parameters() if weight.grad is None] == []


def test_convolutions_are_channels_last_and_compute_the_same() -> None:
    fast, images = pyramid("mobilenetv2_100").eval(), torch.rand(2, 3, 64, 96)
    kernels = [weight for weight in fast.parameters() if weight.ndim == 4]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    with torch.no_grad():
        found = fast(images)
        wanted = fast.double().to(memory_format=torch.contiguous_format)(images.double())
    for map_, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(map_.double(), exact, rtol=1e-4, atol=1e-4)


def test_all_four_are_the_default() -> None:
    assert pyramid("convnext_tiny", strides=STRIDES).state_dict().keys() == pyramid("convnext_tiny").state_dict().keys()


def test_the_strides_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigError, match=r"gives maps of strides \[16\]; a pyramid needs \[4, 8\]"):
        Pyramid(EncoderConfig(name="vit", timm="vit_tiny_patch16_224", pretrained=False), strides=(4, 8))
