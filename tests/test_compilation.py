"""torch.compile of an encoder's blocks: which they are, and that a compiled encoder is the same encoder."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from mal.data.rois import PHOTOMETRIC_DRAWS
from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import Encoder
from mal.engine.compilation import compile_blocks, repeated_blocks
from mal.methods.mal import augment
from mal.methods.mal.config import AugmentConfig

SMALL = {  # timm name → options that make it small
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4},
    "convnext_atto": {"depths": [2, 2, 2, 2], "dims": [8, 16, 16, 16]},
    "resnet18": {},
}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are traced whole, and then run by torch's own operators: what a GPU's compiler would be given."""
    original = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **o: original(self, backend="aot_eager", fullgraph=True, **o)
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_base_patch16_224", 12), ("swin_base_patch4_window7_224", 24), ("convnext_base", 36), ("resnet18", 8)],
)
def test_the_blocks_are_those_that_a_model_repeats(name: str, count: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert len(repeated_blocks(model)) == count


@pytest.mark.parametrize(
    "name", [name if name.startswith("vit") else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
@pytest.mark.usefixtures("traced")
def test_a_compiled_encoder_is_the_same_encoder(name: str) -> None:
    torch.manual_seed(0)
    config = EncoderConfig("small", name, pretrained=False, options=SMALL[name])
    encoder, images = Encoder(config, image_size=64).eval(), torch.rand(2, 3, 64, 64)
    names = list(encoder.state_dict())
    expected = encoder(images).last
    expected.sum().backward()
    gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    torch._dynamo.reset()
    assert compile_blocks(encoder.backbone) > 0
    found = encoder(images).last
    assert list(encoder.state_dict()) == names
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    again = [p.grad for p in encoder.parameters() if p.grad is not None]
    for mine, theirs in zip(again, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_photometrics_of_all_are_traced_whole() -> None:
    config = AugmentConfig([0.4, 0.4, 0.2, 0.1], 0.5, 0.2, [0.1, 2.0], 0.5)
    images, draws = torch.rand(8, 3, 16, 16), torch.rand(8, PHOTOMETRIC_DRAWS)
    compiled = torch.compile(
        partial(augment.photometrics_of_all, config=config), backend="aot_eager", fullgraph=True, dynamic=False
    )
    torch.testing.assert_close(compiled(images, draws), augment.photometrics(images, draws, config), atol=2e-6, rtol=0)
