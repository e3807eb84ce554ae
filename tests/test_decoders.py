"""Decoders fc, fcn and query (Table 3): each against the same computation written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from mal.encoders.encoder import Features
from mal.errors import ConfigError
from mal.methods.mal.config import DecoderConfig, FcConfig, QueryConfig
from mal.methods.mal.decoders import DECODERS, gather
from mal.methods.mal.decoders.query import QueryLayer, blocked_tokens, sine_places

BASE = DecoderConfig("attention", 8, "mean", 2, 4, "released", fc=FcConfig(12, 3, 10), query=QueryConfig(2, 2, 5))
SIZES = torch.tensor([0, 1, 2, 2, 0])


def build(name: str, *, last: int = 6, fine: int = 6, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    return DECODERS[name](replace(BASE, name=name, **changes), last_channels=last, fine_channels=fine).double()


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("side", [64, 72, 112, 518])
@pytest.mark.parametrize("name", DECODERS)
def test_every_crop_gets_a_mask_at_any_side(name, side):
    found = maps(5, 6, side // 16, side // 16)
    groups = build(name)(Features(found, found), SIZES, image_size=side)
    assert sorted(torch.cat([chosen for chosen, _ in groups]).tolist()) == [0, 1, 2, 3, 4]
    assert gather(groups, 5, side // 2).shape == (5, side // 2, side // 2)
    if name != "fc":
        assert [logits.shape[-1] for _, logits in groups] == [2 * (side // stride) for stride in (32, 16, 8)]


@pytest.mark.parametrize("name", DECODERS)
def test_a_mask_does_not_depend_on_the_rest_of_the_batch(name):
    decoder, last, fine = build(name, fine=4), maps(5, 6, 4, 4), maps(5, 4, 8, 8)
    together = gather(decoder(Features(last, fine), SIZES, image_size=64), 5, 32)
    for row in range(5):
        alone = decoder(Features(last[row : row + 1], fine[row : row + 1]), SIZES[row : row + 1], image_size=64)
        torch.testing.assert_close(gather(alone, 1, 32)[0], together[row])


@pytest.mark.parametrize("combine", ["score", "max", "mean"])
@pytest.mark.parametrize("name", DECODERS)
def test_gradients_reach_every_parameter(name, combine):
    decoder = build(name, query=QueryConfig(3, 2, 5, 2, combine))
    last, fine = maps(5, 6, 4, 4).requires_grad_(), maps(5, 6, 8, 8).requires_grad_()
    logits = gather(decoder(Features(last, fine), SIZES, image_size=64), 5, 32)
    (logits * maps(5, 32, 32)).sum().backward()
    without = [key for key, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert fine.grad.any()
    assert last.grad is None if name in ("fc", "fcn") else last.grad.any()


@pytest.mark.parametrize("name", DECODERS)
def test_a_small_gain_starts_near_one_half(name):
    found = Features(maps(5, 6, 4, 4), maps(5, 6, 4, 4))
    plain, small = (gather(build(name, key_gain=g)(found, SIZES, image_size=64), 5, 32) for g in (1.0, 0.01))
    torch.testing.assert_close(small, plain * 0.01) if name == "attention" else None
    assert small.abs().max() < 0.05 * plain.abs().max()


def test_fc_sees_the_pooled_map_and_fills_a_fixed_one():
    decoder, fine = build("fc"), maps(2, 6, 6, 6)
    ((chosen, logits),) = decoder(Features(fine[:, :, :2, :2], fine), torch.tensor([0, 2]), image_size=512)
    first, _, last = decoder.layers
    assert chosen.tolist() == [0, 1]
    for row in range(2):
        pooled = [[fine[row, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for y in range(3) for x in range(3)]
                  for c in range(6)]  # fmt: skip
        hidden = (first.weight @ torch.tensor(pooled, dtype=torch.double).flatten() + first.bias).clamp(min=0)
        torch.testing.assert_close(logits[row], (last.weight @ hidden + last.bias).reshape(10, 10))


def test_fcn_is_v_and_a_1_by_1_convolution():
    decoder, fine = build("fcn"), maps(1, 6, 4, 4)
    ((_, logits),) = decoder(Features(fine, fine), torch.tensor([1]), image_size=64)
    value = fine
    for place, convolution in enumerate(decoder.value, start=1):
        value = F.interpolate(value, scale_factor=2, mode="bilinear") if place == 4 else value
        value = convolution(value).relu()
    weight, bias = decoder.last.weight[0, :, 0, 0], decoder.last.bias[0]
    torch.testing.assert_close(logits[0], (weight[:, None, None] * value[0]).sum(0) + bias)


def attend(attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor, blocked: Tensor) -> Tensor:
    """Multi-head attention of one example, one query, one head and one token at a time."""
    width, heads = attention.embed_dim, attention.num_heads
    size = width // heads
    parts = zip(
        attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), (queries, keys, values), strict=True
    )
    q, k, v = (x @ weight.T + bias for weight, bias, x in parts)
    out = torch.zeros(len(q), width, dtype=q.dtype)
    for i in range(len(q)):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            allowed = [t for t in range(len(k)) if not blocked[i, t]]
            scores = [math.exp(float(q[i, part] @ k[t, part]) / math.sqrt(size)) for t in allowed]
            for t, score in zip(allowed, scores, strict=True):
                out[i, part] += score / sum(scores) * v[t, part]
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def test_a_layer_is_masked_cross_attention_then_self_attention_then_feed_forward():
    torch.manual_seed(0)
    layer = QueryLayer(8, heads=2, hidden=16).double()
    queries, places, tokens, token_places = maps(2, 3, 8), maps(3, 8), maps(2, 6, 8), maps(6, 8)
    blocked = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    blocked[:, :, 0] = False
    with torch.no_grad():
        found = layer(queries, places, tokens, token_places, blocked=blocked)
        for row in range(2):
            x = queries[row]
            x = layer.norms[0](
                x + attend(layer.cross, x + places, tokens[row] + token_places, tokens[row], blocked[row])
            )
            x = layer.norms[1](x + attend(layer.inner, x + places, x + places, x, torch.zeros(3, 3)))
            first, _, last = layer.forward_layers
            x = layer.norms[2](x + last(first(x).clamp(min=0)))
            torch.testing.assert_close(found[row], x)


def test_a_blocked_token_changes_nothing():
    layer = QueryLayer(8, heads=2, hidden=16).double()
    queries, places, tokens, token_places = maps(1, 3, 8), maps(3, 8), maps(1, 6, 8), maps(6, 8)
    blocked = torch.zeros(1, 3, 6, dtype=torch.bool)
    blocked[:, :, 4] = True
    other = tokens.clone()
    other[:, 4] += 100
    first, second = (layer(queries, places, t, token_places, blocked=blocked) for t in (tokens, other))
    torch.testing.assert_close(first, second)


def test_a_query_looks_inside_its_mask_and_everywhere_where_it_has_none():
    logits = torch.tensor([[[1.0, -1.0, 0.0], [-1.0, -2.0, -3.0]]])
    assert blocked_tokens(logits).tolist() == [[[False, True, False], [False, False, False]]]


def test_query_masks_drive_the_attention_layer_by_layer():
    """The whole decoder against its parts, the masks resized as Mask2Former does: after the product, not before."""
    decoder, last, fine = build("query"), maps(1, 6, 4, 4), maps(1, 6, 8, 8)
    ((_, logits),) = decoder(Features(last, fine), torch.tensor([2]), image_size=64)
    pixels = decoder.pixels(decoder.value(fine))
    tokens = decoder.memory(last).flatten(2).transpose(1, 2)
    queries = decoder.queries[None]
    for layer in decoder.layers:
        masks = torch.einsum("nqc,nchw->nqhw", decoder.embed(decoder.norm(queries)), pixels)
        seen = F.interpolate(masks, size=(4, 4), mode="bilinear", align_corners=False).sigmoid().flatten(2)
        queries = layer(queries, decoder.places, tokens, sine_places(last[:, :4].repeat(1, 2, 1, 1)),
                        blocked=blocked_tokens(seen - 0.5))  # fmt: skip
    queries = decoder.norm(queries)
    masks = torch.einsum("nqc,nchw->nqhw", decoder.embed(queries), pixels)[0]
    weights = decoder.score(queries)[0, :, 0].exp()
    torch.testing.assert_close(logits[0], (weights[:, None, None] * masks).sum(0) / weights.sum())


@pytest.mark.parametrize("combine", ["score", "max", "mean"])
def test_one_query_is_the_mask(combine):
    decoder, found = build("query", query=QueryConfig(2, 2, 1, 2, combine)), maps(1, 6, 4, 4)
    plain = build("query", query=QueryConfig(2, 2, 1, 2, "mean"))
    first, second = (d(Features(found, found), SIZES[:1], image_size=64)[0][1] for d in (decoder, plain))
    torch.testing.assert_close(first, second)
    assert decoder.score is None


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5)])
def test_positions_are_mask2formers(height, width):
    theirs = Mask2FormerSinePositionEmbedding(8, normalize=True)(
        torch.Size((1, 16, height, width)), torch.device("cpu"), torch.float32
    )
    ours = sine_places(torch.zeros(1, 16, height, width))
    expected = theirs[0].flatten(1).T if theirs.dim() == 4 else theirs[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("width", "heads"), [(10, 5), (8, 3)])
def test_a_width_that_heads_or_positions_do_not_divide_is_refused(width, heads):
    with pytest.raises(ConfigError, match=f"decoder.width={width}"):
        build("query", width=width, query=QueryConfig(2, heads, 5))
