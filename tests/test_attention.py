"""Attention maps: against softmax(qk) computed by hand, and against timm without fused attention."""

import math

import pytest
import torch
from test_encoders import entry, small
from torch import Tensor

from mal.attention import attention_maps, attention_picture
from mal.encoders import Encoder
from mal.errors import ConfigError

PLAIN = ["deit_s", "deit3_s", "mae_b", "dinov2_s", "dinov3_s", "siglip2_b", "eva02_s", "sam_b", "vit_nano"]


def build(name: str, **changes: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(entry(name, **({"options": small(name)} if name != "vit_nano" else {}), **changes), image_size=56)


@pytest.mark.parametrize("name", ["deit_s", "deit3_s", "siglip2_b", "vit_nano"])
def test_a_map_is_the_softmax_of_q_times_k(name):
    encoder, images = build(name).eval(), torch.rand(2, 3, 56, 56)
    found = attention_maps(encoder, images, [2])[2]
    model, seen = encoder.backbone, {}
    with torch.no_grad():
        model.blocks[1].norm1.register_forward_hook(lambda _m, _i, out: seen.update(x=out))
        encoder(images)
        attention = model.blocks[1].attn
        heads, size = attention.num_heads, attention.head_dim
        q, k, _ = (seen["x"] @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)
        for row in range(2):
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                expected = (q[row, :, part] @ k[row, :, part].T / math.sqrt(size)).softmax(dim=-1)
                torch.testing.assert_close(found[row, head], expected)


@pytest.mark.parametrize("name", PLAIN)
def test_maps_times_values_are_what_fused_attention_gives(name):
    """Recording changes nothing: each layer's map is of the shape and sum it must be, and the output is the same."""
    encoder, images = build(name), torch.rand(2, 3, 56, 56)
    layers = [2] if name == "sam_b" else [1, 2]
    encoder.eval()
    with torch.no_grad():
        before = encoder(images).last
    encoder.train()
    fused = [block.attn.fused_attn for block in encoder.backbone.blocks]
    found = attention_maps(encoder, images, layers)
    assert encoder.training
    assert [block.attn.fused_attn for block in encoder.backbone.blocks] == fused
    tokens = getattr(encoder.backbone, "num_prefix_tokens", 0) + before.shape[-1] ** 2
    for layer in layers:
        heads = encoder.backbone.blocks[layer - 1].attn.num_heads
        assert found[layer].shape == (2, heads, tokens, tokens)
        torch.testing.assert_close(found[layer].sum(-1), torch.ones(2, heads, tokens))
    for block in encoder.backbone.blocks:
        block.attn.fused_attn = False
    kept: list[Tensor] = []
    last = encoder.backbone.blocks[layers[-1] - 1].attn
    last.attn_drop.register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0]))
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).last, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[layers[-1]], kept[0].reshape(found[layers[-1]].shape))


@pytest.mark.parametrize(("name", "layers", "words"), [
    ("swin_b", [1], "SwinTransformer"),
    ("convnext_b", [1], "ConvNeXt"),
    ("vit_nano", [4], "layers 1 to 3"),
    ("vit_nano", [0], "layers 1 to 3"),
    ("sam_b", [1], r"windows of 14 × 14; use \[2\]"),
])  # fmt: skip
def test_a_layer_without_a_map_is_refused_by_name(name, layers, words):
    with pytest.raises(ConfigError, match=words):
        attention_maps(build(name), torch.rand(1, 3, 56, 56), layers)


def test_a_picture_is_the_mean_of_what_its_queries_look_at():
    maps = torch.rand(2, 3, 2 + 16, 2 + 16).softmax(-1)
    centre = attention_picture(maps, prefix=2, query="centre")
    rows = [2 + 5, 2 + 6, 2 + 9, 2 + 10]  # of a 4 × 4 grid
    expected = sum(maps[:, head, row, 2:] for head in range(3) for row in rows) / 12
    torch.testing.assert_close(centre, expected.reshape(2, 4, 4))
    torch.testing.assert_close(
        attention_picture(maps, prefix=2, query="class"), maps[:, :, 0, 2:].mean(1).reshape(2, 4, 4)
    )
    torch.testing.assert_close(
        attention_picture(maps, prefix=2, query="mean"), maps[:, :, 2:, 2:].mean((1, 2)).reshape(2, 4, 4)
    )
    odd = attention_picture(torch.eye(9).expand(1, 1, 9, 9), prefix=0, query="centre")
    assert odd[0].flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_class_token_that_is_not_there_cannot_be_asked():
    with pytest.raises(ConfigError, match="no class token"):
        attention_picture(torch.rand(1, 1, 4, 4), prefix=0, query="class")
