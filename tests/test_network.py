"""Encoders, the attention decoder, and the teacher."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import Encoder, Features
from mal.errors import ConfigError, WeightsError
from mal.methods.mal.config import DecoderConfig
from mal.methods.mal.decoders import STRIDES, AttentionDecoder, build_decoder, gather
from mal.methods.mal.network import MaskNetwork, Teacher
from tests.conftest import CONF

NANO = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
VIT = EncoderConfig("vit_nano", "vit_tiny_patch16_224", pretrained=False, options=NANO)
MOBILE = EncoderConfig(
    "mobilenetv2", "mobilenetv2_100", pretrained=False, freeze_norm=True, options={"pad_type": "same"}
)
PAPER = DecoderConfig("attention", 32, "max", 1, 3, "released")
RELEASED = DecoderConfig("attention", 32, "mean", 2, 4, "released")


def test_a_plain_vit_gives_its_normed_patch_tokens():
    torch.manual_seed(0)
    encoder = Encoder(VIT, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    with torch.no_grad():
        found = encoder(images)
        tokens = encoder.backbone.forward_features((images - mean) / std)  # class token first, norm applied
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, 48, 8, 8)
    torch.testing.assert_close(found.last, expected)
    assert found.fine is found.last


@pytest.mark.parametrize(
    ("name", "size", "channels", "side"),
    [
        ("swin_tiny_patch4_window7_224", 96, 768, 3),
        ("convnext_atto", 96, 320, 3),
        ("vit_tiny_patch16_224", 64, 192, 4),
        ("mobilenetv2_100", 64, 320, 2),
        ("resnet18", 64, 512, 2),
    ],
)
def test_any_timm_model_gives_channels_first_maps(name, size, channels, side):
    encoder = Encoder(EncoderConfig("timm", name, pretrained=False), image_size=size)
    assert encoder.last_channels == channels
    assert encoder(torch.rand(2, 3, size, size)).last.shape == (2, channels, side, side)


def test_a_side_that_is_no_multiple_of_the_stride_loses_no_edge():
    options = {"patch_size": 14, "embed_dim": 48, "depth": 1, "num_heads": 3}
    encoder = Encoder(EncoderConfig("x", "vit_tiny_patch16_224", pretrained=False, options=options), image_size=64)
    assert encoder.image_size == (70, 70)
    assert encoder(torch.rand(1, 3, 64, 64)).last.shape[-1] == 5


def test_fused_levels_have_the_finest_stride_and_the_asked_width():
    encoder = Encoder(replace(MOBILE, levels=[4, 8, 16, 32], width=24), image_size=64)
    found = encoder(torch.rand(2, 3, 64, 64))
    assert found.fine.shape == (2, 24, 16, 16)
    assert found.last.shape == (2, 320, 2, 2)
    assert encoder.fine_channels == 24


def test_levels_may_leave_out_the_last_stage():
    encoder = Encoder(replace(MOBILE, levels=[8, 16], width=24), image_size=64)
    found = encoder(torch.rand(1, 3, 64, 64))
    assert found.fine.shape == (1, 24, 8, 8)
    assert found.last.shape == (1, 320, 2, 2)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(VIT, levels=[8, 16]), "plain ViT"),
        (replace(MOBILE, levels=[5]), r"has strides \[2, 4, 8, 16, 32\]"),
        (replace(VIT, timm="vit_gigantic_of_nowhere"), "no model of timm's"),
        (replace(VIT, options={"patch_sise": 8}), "cannot be built"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused_by_name(config, words):
    with pytest.raises(ConfigError, match=words):
        Encoder(config, image_size=64)


def test_unreachable_weights_name_both_ways_out(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*_arguments, pretrained=False, **_options):
        if pretrained:
            raise OSError("no network here")
        return original(*_arguments, **_options)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(WeightsError, match=r"encoder=deit_s.*encoder\.checkpoint=FILE.*encoder\.pretrained=false"):
        Encoder(EncoderConfig("deit_s", "deit_small_patch16_224.fb_in1k"), image_size=64)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_checkpoint_file_loads_every_tensor(tmp_path, ending):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=11, img_size=32, **NANO)
    path = tmp_path / f"weights.{ending}"
    save_file(source.state_dict(), path) if ending == "safetensors" else torch.save(
        {"model": source.state_dict()}, path
    )
    encoder = Encoder(replace(VIT, checkpoint=str(path)), image_size=64)  # another side: positions are resampled
    theirs = source.state_dict()
    for key, value in encoder.backbone.state_dict().items():
        if key != "pos_embed":
            assert torch.equal(value, theirs[key]), key
    assert encoder.backbone.state_dict()["pos_embed"].shape == (1, 65, 48)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("norm.weight"), "norm.weight"),
        (lambda s: s.update({"extra.weight": torch.zeros(2)}), "extra.weight"),
        (lambda s: s.update({"blocks.0.attn.proj.bias": torch.zeros(7)}), "blocks.0.attn.proj.bias"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_partial_checkpoint_is_an_error_that_lists_the_keys(tmp_path, spoil, words):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, **NANO).state_dict()
    spoil(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=words):
        Encoder(replace(VIT, checkpoint=str(tmp_path / "w.safetensors")), image_size=64)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            Encoder(replace(VIT, checkpoint=str(tmp_path / name)), image_size=64)


def test_mobilenet_weights_fill_the_backbone(mobilenet_weights):
    encoder = Encoder(replace(MOBILE, checkpoint=str(mobilenet_weights)), image_size=96)
    from safetensors.torch import load_file

    state = load_file(mobilenet_weights)
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_frozen_batch_norms_keep_their_statistics_in_training():
    encoder = Encoder(MOBILE, image_size=64).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())
    assert not any(
        p.requires_grad for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()
    )


@pytest.mark.parametrize("scale", ["released", "paper"])
def test_mask_maps_are_twice_the_resized_map_for_each_size(scale):
    decoder = AttentionDecoder(replace(PAPER, scale=scale), last_channels=16, fine_channels=16)
    maps = torch.rand(6, 16, 32, 32)
    groups = decoder(Features(maps, maps), torch.tensor([0, 1, 2, 2, 0, 1]), image_size=512)
    assert [chosen.tolist() for chosen, _ in groups] == [[0, 4], [1, 5], [2, 3]]
    assert [logits.shape[-1] for _, logits in groups] == [2 * 512 // stride for stride in STRIDES[scale]]


@pytest.mark.parametrize("config", [PAPER, RELEASED], ids=["paper", "released"])
def test_the_logit_is_the_inner_product_of_key_and_value(config):
    torch.manual_seed(0)
    decoder = AttentionDecoder(config, last_channels=8, fine_channels=8).double()
    maps = torch.rand(1, 8, 4, 4, dtype=torch.double)
    ((_, logits),) = decoder(Features(maps, maps), torch.tensor([1]), image_size=64)
    pooled = maps.amax((2, 3)) if config.pool == "max" else maps.mean((2, 3))
    value = maps
    for place, convolution in enumerate(decoder.value, start=1):
        if place == config.upsample_before:
            value = F.interpolate(value, scale_factor=2, mode="bilinear")
        value = convolution(value).relu()
    expected = (decoder.key(pooled)[:, :, None, None] * value).sum(1)
    torch.testing.assert_close(logits, expected)
    assert len([m for m in decoder.key.modules() if isinstance(m, torch.nn.Linear)]) == config.key_layers


def test_gather_puts_every_group_back_in_its_place():
    groups = [(torch.tensor([2, 0]), torch.full((2, 4, 4), 5.0)), (torch.tensor([1]), torch.full((1, 8, 8), 7.0))]
    whole = gather(groups, 3, 8)
    assert whole.amax((1, 2)).tolist() == [5.0, 7.0, 5.0]


REGISTERED = sorted(path.stem for path in (CONF / "encoder").glob("*.yaml") if path.stem != "timm")


@pytest.mark.parametrize(
    "name",
    [name if name.endswith(("_nano", "_s")) else pytest.param(name, marks=pytest.mark.slow) for name in REGISTERED],
)
def test_an_unchanged_student_leaves_the_teacher_as_it_is(compose, name):
    """Bit for bit, whole numbers too: Swin's table of relative positions, a batch norm's count of batches."""
    config = compose("profile=smoke", f"encoder={name}", "encoder.pretrained=false").encoder
    student = Encoder(config, image_size=32)
    teacher = Teacher(student, 0.996)
    teacher.update(student)
    ours, theirs = teacher.module, student
    for tensors in ("named_parameters", "named_buffers"):
        pairs = zip(getattr(ours, tensors)(), getattr(theirs, tensors)(), strict=True)
        assert all(torch.equal(mine, other) for (_, mine), (_, other) in pairs)


def test_whole_numbers_are_copied_to_the_teacher():
    student = torch.nn.BatchNorm1d(3)
    teacher = Teacher(student, 0.5)
    student(torch.rand(4, 3))
    teacher.update(student)
    assert teacher.module.num_batches_tracked == 1


def test_the_teacher_starts_as_a_copy_and_follows_by_its_momentum():
    encoder = Encoder(replace(MOBILE, freeze_norm=False), image_size=32)
    student = MaskNetwork(encoder, build_decoder(PAPER, encoder))
    teacher = Teacher(student, 0.996)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    inner = teacher.module
    assert all(torch.equal(v, before[k]) for k, v in inner.state_dict().items())
    with torch.no_grad():
        for value in (*student.parameters(), *student.buffers()):
            if value.is_floating_point():
                value.add_(1.0)
    teacher.update(student)
    for key, value in inner.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.996 * before[key] + 0.004 * (before[key] + 1), msg=key)
