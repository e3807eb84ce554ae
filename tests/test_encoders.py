"""Every encoder of the menu: its weights' name, its size, and its maps beside timm's own forward."""

from pathlib import Path
from typing import Any

import pytest
import timm
import timm.layers.weight_init
import timm.models._builder
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch.nn import functional as F

from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import Encoder
from mal.encoders.normalise import IMAGENET_MEAN
from mal.errors import WeightsError

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf" / "encoder"
CLIP = (0.48145466, 0.4578275, 0.40821073)
HALF = (0.5, 0.5, 0.5)
IMAGENET = tuple(IMAGENET_MEAN)
# name: channels and side of the last map of a 512² crop, millions of parameters published without a head, mean
MENU = {
    "convnext_b": (1024, 16, 87.6, IMAGENET),
    "convnextv2_b": (1024, 16, 87.7, IMAGENET),
    "swin_b": (1024, 16, 86.7, IMAGENET),
    "deit_s": (384, 32, 21.7, IMAGENET),
    "deit_b": (768, 32, 85.8, IMAGENET),
    "deit3_s": (384, 32, 21.7, IMAGENET),
    "deit3_b": (768, 32, 85.8, IMAGENET),
    "mae_b": (768, 32, 85.8, IMAGENET),
    "mae_l": (1024, 32, 303.3, IMAGENET),
    "dinov2_s": (384, 37, 22.1, IMAGENET),
    "dinov2_b": (768, 37, 86.6, IMAGENET),
    "dinov3_s": (384, 32, 21.6, IMAGENET),
    "dinov3_b": (768, 32, 85.6, IMAGENET),
    "siglip2_b": (768, 32, 86.4, HALF),
    "eva02_s": (384, 37, 21.6, CLIP),
    "eva02_b": (768, 37, 85.8, CLIP),
    "sam_b": (256, 32, 89.7, IMAGENET),
}
NANO = {
    "vit_nano": (96, 8),
    "vit_nano16": (96, 16),
    "swin_nano": (128, 16),
    "convnext_nano": (128, 16),
}  # channels, stride
OTHERS = {
    "mobilenetv2",
    "resnet50",
    "pyramid_nano",
    "resnet10_nano",
    "darknet53",
    "timm",
    "mae_s",
}  # the last comes as a file that timm does not have


def entry(name: str, **changes: Any) -> EncoderConfig:
    """A yaml of the menu, without weights."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return EncoderConfig(**{**values, "pretrained": False, **changes})


def small(name: str) -> dict[str, Any]:
    """Options that shrink an entry and leave its kind of patches, positions, tokens and norms as they are."""
    if name.startswith("convnext"):
        return {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    if name.startswith("swin"):
        return {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
    return {"embed_dim": 48, "depth": 2, "num_heads": 3} | ({"global_attn_indexes": [1]} if name == "sam_b" else {})


def test_the_menu_is_this_table():
    assert {path.stem for path in CONF.glob("*.yaml")} == MENU.keys() | NANO.keys() | OTHERS


@pytest.mark.parametrize("name", MENU)
def test_the_tag_names_published_weights(name):
    assert entry(name).timm in timm.list_pretrained()
    assert OmegaConf.load(CONF / f"{name}.yaml").get("pretrained", True)


@pytest.mark.parametrize("name", MENU)
def test_every_entry_builds_at_its_real_size(name, monkeypatch):
    monkeypatch.setattr(timm.layers.weight_init, "_trunc_normal_", lambda tensor, *_: tensor)  # half the time
    channels, side, millions, mean = MENU[name]
    with torch.device("meta"):
        encoder = Encoder(entry(name), image_size=512)
        found = encoder(torch.zeros(1, 3, 512, 512)).last
    assert found.shape == (1, channels, side, side)
    assert encoder.last_channels == channels
    assert encoder.mean == pytest.approx(mean)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def expected_map(reference: Any, images: torch.Tensor) -> torch.Tensor:
    """timm's forward_features as a map: prefix tokens dropped, tokens to rows and columns, NHWC to NCHW."""
    found = reference.forward_features(images)
    family = type(reference).__name__
    if family == "SwinTransformer":
        return found.permute(0, 3, 1, 2)
    if family in ("ConvNeXt", "VisionTransformerSAM"):
        return found
    if family == "Eva" and isinstance(reference.norm, torch.nn.Identity):
        found = reference.fc_norm(found)  # timm's EVA-02 normalises what it pools
    found = found[:, reference.num_prefix_tokens :]
    side = round(found.shape[1] ** 0.5)
    return found.transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("name", MENU)
def test_the_last_map_is_timms_own(name):
    options = small(name)
    encoder = Encoder(entry(name, options=options), image_size=90).eval()
    side, _ = encoder.image_size
    assert 90 <= side < 90 + 32
    sized = {} if name.startswith(("convnext", "sam", "dinov3")) else {"img_size": side}
    torch.manual_seed(1)
    reference = timm.create_model(entry(name).timm, **options, **sized).eval()
    lacking = encoder.backbone.load_state_dict(reference.state_dict(), strict=False)
    assert not lacking.missing_keys
    assert all(key.startswith(("head", "attn_pool")) for key in lacking.unexpected_keys)
    images = torch.rand(2, 3, 90, 90)
    cfg = reference.pretrained_cfg
    resized = F.interpolate(images, size=(side, side), mode="bilinear") if side != 90 else images
    normal = (resized - torch.tensor(cfg["mean"])[:, None, None]) / torch.tensor(cfg["std"])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).last, expected_map(reference, normal), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")  # Swin's position biases, resized
@pytest.mark.parametrize("name", MENU)
def test_a_file_of_the_published_form_loads_at_another_side_and_every_parameter_trains(name, tmp_path):
    torch.manual_seed(2)
    published = timm.create_model(entry(name).timm, **small(name))  # at its own input size, with its own head
    save_file({key: value.contiguous() for key, value in published.state_dict().items()}, tmp_path / "w.safetensors")
    encoder = Encoder(entry(name, options=small(name), checkpoint=str(tmp_path / "w.safetensors")), image_size=64)
    theirs = published.state_dict()
    for key, value in encoder.backbone.state_dict().items():
        if "pos_embed" not in key and "relative_position" not in key:
            assert torch.equal(value, theirs[key]), key
    encoder(torch.rand(1, 3, 64, 64)).last.square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("name", "prefix"), [("deit_s", 1), ("deit3_s", 0), ("siglip2_b", 0), ("dinov2_s", 1)])
def test_position_embeddings_are_resampled_to_the_grid(name, prefix, tmp_path):
    published = timm.create_model(entry(name).timm, **small(name))
    save_file({key: value.contiguous() for key, value in published.state_dict().items()}, tmp_path / "w.safetensors")
    encoder = Encoder(entry(name, options=small(name), checkpoint=str(tmp_path / "w.safetensors")), image_size=72)
    before, after = published.pos_embed[0].detach(), encoder.backbone.pos_embed[0].detach()
    cells = encoder.image_size[0] // encoder.backbone.patch_embed.patch_size[0]
    old = round((len(before) - prefix) ** 0.5)
    grid = before[prefix:].T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(cells, cells), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(after[prefix:], grid.flatten(2)[0].T)
    assert torch.equal(after[:prefix], before[:prefix])


@pytest.mark.parametrize("spoil", [lambda s: s.pop("norm.weight"), lambda s: s.update(extra=torch.zeros(1))])
def test_published_weights_that_fit_in_part_are_refused(spoil, monkeypatch):
    state = timm.create_model("deit_small_patch16_224", **small("deit_s")).state_dict()
    state["pos_embed"] = state["pos_embed"].clone()
    spoil(state)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *_a, **_k: dict(state))
    with pytest.raises(WeightsError, match=r"encoder=deit_s .*do not fit"):
        Encoder(entry("deit_s", options=small("deit_s"), pretrained=True), image_size=64)


def test_published_weights_arrive(monkeypatch):
    state = timm.create_model("deit_small_patch16_224", **small("deit_s")).state_dict()
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *_a, **_k: dict(state))
    encoder = Encoder(entry("deit_s", options=small("deit_s"), pretrained=True), image_size=64)
    assert torch.equal(encoder.backbone.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])
    assert encoder.backbone.pos_embed.shape == (1, 17, 48)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (72, 72), (96, 96), (100, 100), (64, 96), (100, 40)])
@pytest.mark.parametrize("name", NANO)
def test_the_small_ones_run_at_any_size(name, size):
    channels, stride = NANO[name]
    encoder = Encoder(entry(name), image_size=size)
    cells = tuple(-(-side // stride) for side in size)
    assert encoder.image_size == tuple(count * stride for count in cells)
    found = encoder(torch.rand(2, 3, *size)).last
    assert found.shape == (2, channels, *cells)
    found.square().mean().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


def test_the_small_ones_are_of_one_size():
    """MAL's, which tables compare; AttentionShift's has a block more."""
    sizes = {
        n: sum(p.numel() for p in Encoder(entry(n), image_size=64).parameters()) for n in NANO if n != "vit_nano16"
    }
    assert max(sizes.values()) / min(sizes.values()) < 1.2, sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", MENU)
def test_one_real_step_at_real_size(name):
    """Small models at 512², base and large ones at 224²: all at 512² would take a core more than five minutes."""
    side = 512 if name.endswith("_s") else 224
    torch.manual_seed(0)
    encoder = Encoder(entry(name), image_size=side)
    found = encoder(torch.rand(1, 3, side, side)).last
    stride = {16: 32, 32: 16, 37: 14}[MENU[name][1]]
    assert found.shape == (1, MENU[name][0], -(-side // stride), -(-side // stride))
    found.square().mean().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert found.isfinite().all()
    assert found.std() > 0.01
