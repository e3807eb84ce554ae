"""Point-modulated cross-attention: the page's formula, its limits, and where its gradient ends."""

import math

import pytest
import torch
from partialres_networks import NETWORK, batch, config, inputs, memory, network
from torch import nn

from mal.methods.partialres.attention import Attention, hide
from mal.methods.partialres.config.network import PartsConfig
from mal.methods.partialres.decoder import Decoder
from mal.methods.partialres.pmca import PointModulation, modulation

GRID = (4, 6)


def module(start: str = "xavier", heads: int = 2) -> PointModulation:
    torch.manual_seed(0)
    return PointModulation(16, heads, start=start).double()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_bias_is_the_formula_in_loops_and_leaves_language_alone():
    modulate, states, cells = module(), noise(3, 5, 16), torch.tensor([[6, 3], [3, 4], [6, 4]])
    for layer in modulate.layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)
    found = modulate(states, GRID, cells, 1)
    assert found.shape == (3, 2, 5, 25)
    assert not found[..., 24].any()
    outputs = modulate.layers(states)
    for b in range(3):
        columns, rows = cells[b].tolist()
        for head in range(2):
            for t in range(5):
                ox, oy, sx, sy = outputs[b, t, 4 * head : 4 * head + 4].tolist()
                cx, cy = columns / (1 + math.exp(-ox)), rows / (1 + math.exp(-oy))
                for y in range(4):
                    for x in range(6):
                        expected = -((cx - x - 0.5) ** 2 * sx**2 + (cy - y - 0.5) ** 2 * sy**2) / 8
                        assert found[b, head, t, 6 * y + x].item() == pytest.approx(expected, abs=1e-12)


def test_widths_of_its_layers_are_the_papers():
    shapes = [tuple(each.weight.shape) for each in PointModulation(256, 8, start="xavier").layers[::2]]
    assert shapes == [(128, 256), (64, 128), (32, 64)]


def test_a_large_scale_looks_at_the_cell_of_the_centre_alone():
    centres = torch.tensor([[2.3, 1.8], [5.9, 0.1]], dtype=torch.float64)
    weights = modulation(centres, torch.full_like(centres, 1e4), GRID).softmax(-1)
    assert weights.argmax(-1).tolist() == [1 * 6 + 2, 5]
    assert weights.amax(-1).tolist() == pytest.approx([1, 1])


def test_at_scale_0_it_is_plain_attention():
    attention = Attention(16, 2, dropout=0).double()
    states, keys = noise(3, 5, 16), noise(3, 25, 16)
    bias = module("zero")(states, GRID, torch.tensor([[6, 4]] * 3), 1)
    queries, seen = attention.queries(states), attention.seen(keys, keys)
    assert not bias.any()
    found = attention.attend(queries, seen, bias)
    torch.testing.assert_close(found, attention.attend(queries, seen), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("start", "learns"), [("zero", False), ("xavier", True)])
def test_from_zero_every_gradient_is_0_and_from_xavier_none_is(start, learns):
    torch.manual_seed(0)
    ours = network(parts=PartsConfig(pmca_start=start), dropout=0.0)
    ours(*batch(), inputs("mask")).logsumexp(-1).sum().backward()
    gradients = [
        each.grad for layer in ours.decoder.layers for each in layer.modulation.parameters() if each.grad is not None
    ]
    assert len(gradients) == 2 * 6
    assert all(bool(each.any()) == learns for each in gradients)


def test_the_last_layer_starts_xavier_uniform_with_a_bias_of_0():
    last = PointModulation(256, 8, start="xavier").layers[-1]
    bound = (6 / (64 + 32)) ** 0.5
    assert 0.95 * bound < last.weight.abs().max().item() <= bound
    assert not last.bias.any()


def test_on_padded_maps_the_centre_stays_in_the_valid_part_and_padding_hidden():
    torch.manual_seed(0)
    decoder = Decoder(NETWORK, config().partialres.sequence, PartsConfig()).double().eval()
    read = decoder.read(memory())
    with torch.no_grad():
        for layer in decoder.layers:  # centre at the far corner, sharp
            layer.modulation.layers[-1].weight.zero_()
            layer.modulation.layers[-1].bias.copy_(torch.tensor([50.0, 50, 30, 30] * 2))
    bias = decoder.layers[0].cross_bias(noise(3, 2, 16), read)[..., :24].unflatten(-1, GRID)
    cells = [divmod(int(each), 6) for each in bias[:, 0, 0].flatten(1).argmax(1)]
    assert cells == [(2, 5), (3, 2), (3, 5)]  # rows, columns: the last that are valid
    assert bias[0, :, :, 3].isinf().all()
    assert bias[1, :, :, :, 3:].isinf().all()
    assert torch.equal(read.hidden, hide(memory().padding))
