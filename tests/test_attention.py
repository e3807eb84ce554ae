"""Attention maps: against softmax(qk) computed by hand, and against timm without fused attention."""

import math

import pytest
import torch
from test_encoders import entry, small
from torch import Tensor, nn
from torch.nn import functional as F

from mal.encoders.attention import attention_maps, attention_picture, check_query
from mal.encoders.encoder import Encoder
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


def values_of(attention: nn.Module, x: Tensor) -> Tensor:
    """(B, N, C) → the values of all heads, (B, N, C), by timm's weights: of q, k and v together, or EVA's, apart."""
    if attention.qkv is None:
        return attention.v_proj(x)
    weight = attention.qkv.weight
    bias = attention.qkv.bias if attention.qkv.bias is not None else getattr(attention, "v_bias", None)
    return F.linear(x, weight[-(len(weight) // 3) :], None if bias is None else bias[-(len(weight) // 3) :])


@pytest.mark.parametrize("name", PLAIN)
def test_maps_times_values_are_what_fused_attention_gives(name):
    """A layer's map mixes its values as its fused attention does; recording leaves the encoder as it was."""
    encoder, images = build(name), torch.rand(2, 3, 56, 56)
    layers = [2] if name == "sam_b" else [1, 2]
    last, seen = encoder.backbone.blocks[layers[-1] - 1].attn, {}
    last.register_forward_pre_hook(lambda _m, inputs: seen.setdefault("x", inputs[0]))
    last.proj.register_forward_pre_hook(lambda _m, inputs: seen.setdefault("mixed", inputs[0]))
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
    with torch.no_grad():
        values = values_of(last, seen["x"].reshape(2, tokens, -1)).unflatten(-1, (last.num_heads, -1)).transpose(1, 2)
        mixed = getattr(last, "norm", nn.Identity())((found[layers[-1]] @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, seen["mixed"].reshape(mixed.shape), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.eval()(images).last, before)


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
    """Registers, as this encoder would have left, are none."""
    encoder = build("dinov3_s")
    check_query(encoder, "class")
    assert encoder.backbone.num_prefix_tokens == 5
    encoder.backbone.cls_token = None
    check_query(encoder, "centre")
    with pytest.raises(ConfigError, match="no class token"):
        check_query(encoder, "class")
    with pytest.raises(ConfigError, match="no class token"):
        check_query(build("siglip2_b"), "class")
