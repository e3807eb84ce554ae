"""Our attention is torch's, with positions on queries and keys alone; the encoder is torch's layers."""

import pytest
import torch
from torch import nn

from mal.methods.partialres.attention import Attention, causal, hide
from mal.methods.partialres.config.network import NetworkConfig
from mal.methods.partialres.encoder import Encoder, EncoderLayer

B, HEADS, L, S, D = 2, 3, 4, 5, 12


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(dtype: torch.dtype = torch.float64) -> tuple[Attention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours = Attention(D, HEADS, dropout=0.1).to(dtype).eval()
    nn.init.normal_(ours.joined.bias)
    nn.init.normal_(ours.out.bias)
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True).to(dtype).eval()
    names = {"in_proj_weight": ours.joined.weight, "in_proj_bias": ours.joined.bias}
    theirs.load_state_dict(names | {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias})
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_agrees_with_torchs_under_a_bias_of_its_own_for_each_head_and_query(dtype):
    ours, theirs = pair(dtype)
    queries, keys, values = (noise(B, n, D, seed=i).to(dtype) for i, n in enumerate((L, S, S)))
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    bias = noise(B, HEADS, L, S, seed=3).to(dtype) + hide(padding).to(dtype)
    expected, weights = theirs(queries, keys, values, attn_mask=bias.flatten(0, 1), average_attn_weights=False)
    seen = ours.seen(keys, values)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(ours.attend(ours.queries(queries), seen, bias), expected, rtol=0, atol=tolerance)
    found = ours.weights(ours.queries(queries), seen, bias)
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-7)
    assert not found[1, :, :, 3:].any()


def test_positions_reach_queries_and_keys_and_never_values():
    ours, theirs = pair()
    states, positions = noise(B, S, D), noise(S, D, seed=1)
    placed = states + positions
    expected, _ = theirs(placed, placed, states)
    torch.testing.assert_close(ours(states, positions), expected, rtol=0, atol=1e-12)


def test_projecting_all_three_at_once_is_projecting_each():
    ours, _ = pair()
    states, placed = noise(B, S, D), noise(B, S, D, seed=1)
    queries, seen = ours.projected(placed, states)
    torch.testing.assert_close(queries, ours.queries(placed), rtol=0, atol=1e-12)
    for found, expected in zip(seen, ours.seen(placed, states), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_causal_bias_hides_what_comes_later():
    ours, _ = pair()
    queries, seen = ours.projected(noise(B, S, D), noise(B, S, D))
    weights = ours.weights(queries, seen, causal(S, torch.device("cpu")))
    assert not weights.triu(1).any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, S, dtype=torch.float64))


def test_the_joined_matrix_starts_xavier_uniform():
    ours = Attention(128, 4, dropout=0)
    bound = (6 / (128 + 3 * 128)) ** 0.5
    assert 0.98 * bound < ours.joined.weight.abs().max().item() <= bound
    assert not ours.joined.bias.any()


def test_a_layer_without_positions_is_torchs_post_norm_layer():
    config = NetworkConfig(width=D, heads=HEADS, feed_forward=7, dropout=0.1)
    torch.manual_seed(0)
    ours = EncoderLayer(config).double().eval()
    theirs = nn.TransformerEncoderLayer(D, HEADS, 7, batch_first=True, dtype=torch.float64).eval()
    first, second = ours.feed_forward[0], ours.feed_forward[-1]
    state = {
        "self_attn.in_proj_weight": ours.attention.joined.weight,
        "self_attn.in_proj_bias": ours.attention.joined.bias,
        "self_attn.out_proj.weight": ours.attention.out.weight,
        "self_attn.out_proj.bias": ours.attention.out.bias,
        "linear1.weight": first.weight,
        "linear1.bias": first.bias,
        "linear2.weight": second.weight,
        "linear2.bias": second.bias,
    }
    norms = {f"norm{i + 1}.{part}": getattr(ours.norms[i], part) for i in (0, 1) for part in ("weight", "bias")}
    theirs.load_state_dict(state | norms)
    states, padding = noise(B, S, D), torch.tensor([[False] * 5, [False, False, False, True, True]])
    expected = theirs(states, src_key_padding_mask=hide(padding)[:, 0, 0].double())
    found = ours(states, torch.zeros_like(states), hide(padding))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_encoder_is_its_layers_one_after_another_and_padding_reaches_nothing():
    torch.manual_seed(0)
    encoder = Encoder(NetworkConfig(width=D, heads=HEADS, encoder_layers=2, feed_forward=7)).double().eval()
    states, positions = noise(B, S, D), noise(B, S, D, seed=1)
    bias = hide(torch.tensor([[False] * 5, [False, False, False, True, True]]))
    expected = states
    for layer in encoder.layers:
        expected = layer(expected, positions, bias)
    found = encoder(states, positions, bias)
    assert torch.equal(found, expected)
    other = states.clone()
    other[1, 3:] = 100
    torch.testing.assert_close(encoder(other, positions, bias)[1, :3], found[1, :3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_a_large_bias_overflows_nothing(dtype):
    ours, _ = pair(torch.float32)
    states = noise(B, S, D).float().requires_grad_()
    bias = torch.full((B, HEADS, S, S), -1e6)
    bias[..., 2] = -9e5
    with torch.autocast("cpu", dtype=dtype):
        found = ours(states, torch.zeros_like(states), bias)
        found.float().sum().backward()
    assert found.isfinite().all()
    assert states.grad is not None
    assert states.grad.isfinite().all()
