"""Steps 2 to 4: rollout, candidate boxes and the choice among them."""

import math

import numpy as np
import pytest
import torch

from mal.errors import ConfigError
from mal.methods.attentionshift.boxes import candidate_boxes, cells_inside
from mal.methods.attentionshift.config.steps import BoxesConfig
from mal.methods.attentionshift.mil import mil_loss
from mal.methods.attentionshift.rollout import rolled_out
from mal.methods.attentionshift.scaling import min_max, over_max, upsample
from tests import attentionshift_brute as brute

MODES = ("expand", "min_max")


def stochastic(count: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return list(torch.rand(count, size, size, generator=draw, dtype=torch.float64).softmax(2))


def test_uniform_attention_rolls_out_to_a_share_of_the_identity():
    size, rows = 9, torch.tensor([8, 2])
    found = rolled_out([torch.full((size, size), 1 / size, dtype=torch.float64)] * 12, rows, depth=7)
    for k in range(1, 8):
        expected = 2.0**-k * torch.eye(size, dtype=torch.float64) + (1 - 2.0**-k) / size
        torch.testing.assert_close(found[k - 1], expected[rows])


def test_the_last_block_stands_leftmost_in_the_product():
    """Three unlike matrices: no other order, and no other end to start from, gives the same."""
    blocks = stochastic(3, 4)
    a, b, c = ((block + torch.eye(4)) / 2 for block in blocks)
    found = rolled_out(blocks, torch.arange(4), depth=3)
    torch.testing.assert_close(found, torch.stack([c, c @ b, c @ b @ a]))


def test_rollout_of_some_rows_is_that_of_whole_matrices():
    blocks = stochastic(5, 6, seed=1)
    found = rolled_out(blocks, torch.tensor([5, 0, 5]), depth=4)
    np.testing.assert_allclose(found, brute.unfolded([5, 0, 5], [block.tolist() for block in blocks], 4), rtol=1e-12)
    assert rolled_out(blocks, torch.tensor([], dtype=torch.long), depth=4).shape == (4, 0, 6)


def test_a_rollout_deeper_than_the_network_is_refused():
    with pytest.raises(ConfigError, match=r"rollout.depth=3 is more than the encoder's 2 blocks; choose at most 2"):
        rolled_out(stochastic(2, 4), torch.tensor([0]), depth=3)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (2, 5), (3, 7)])
def test_box_of_a_block_of_patches(a, b):
    maps = torch.zeros(1, 12, 12, dtype=torch.float64)
    maps[0, a : b + 1, a : b + 1] = 1
    maps = upsample(maps, 16)[None]
    point = torch.full((1, 2), 8.0 * (a + b + 1), dtype=torch.float64)
    expected = {"min_max": (16 * a - 5, 16 * b + 20), "expand": (16 * a - 5, 16 * b + 21)}
    for mode, (low, high) in expected.items():
        found = candidate_boxes(maps, point, patch=16, config=BoxesConfig(mode=mode))
        assert found.tolist() == [[[low, low, high, high]]]


def test_expanded_boxes_of_perfect_extents_have_a_mean_iou_of_the_square_of_ln_2():
    """Points uniform on the object; the mean along one axis is ∫ du / 2max(u, 1 − u) = ln 2."""
    side, steps = 41, 20
    extent = torch.zeros(120, 120)
    extent[40 : 40 + side, 40 : 40 + side] = 1
    along = 40 + (torch.arange(steps) + 0.5) / steps * (side - 1)
    points = torch.cartesian_prod(along, along)
    maps = extent.expand(1, len(points), -1, -1)
    found = candidate_boxes(maps, points, patch=16, config=BoxesConfig(mode="expand"))[0]
    whole = candidate_boxes(maps[:, :1], points[:1], patch=16, config=BoxesConfig(mode="min_max"))[0, 0]
    assert whole.tolist() == [40, 40, 80, 80]
    area = (found[:, 2:] - found[:, :2]).prod(1)
    assert float(((side - 1) ** 2 / area).mean()) == pytest.approx(math.log(2) ** 2, abs=5e-4)  # of the midpoint rule
    central = candidate_boxes(maps[:, :1], torch.tensor([[60.0, 60.0]]), patch=16, config=BoxesConfig(mode="expand"))
    assert central[0, 0].tolist() == whole.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_those_of_a_flood_fill(mode, keep, seed):
    draw = torch.Generator().manual_seed(seed)
    maps = upsample(torch.rand(4, 6, 5, generator=draw, dtype=torch.float64) ** 3, 3).reshape(2, 2, 18, 15)
    points = torch.rand(2, 2, generator=draw, dtype=torch.float64) * torch.tensor([15.0, 18.0])
    config = BoxesConfig(mode=mode, threshold=0.4, keep=keep)
    found = candidate_boxes(maps, points, patch=3, config=config)
    for k in range(2):
        for i in range(2):
            expected = brute.box_of(
                maps[k, i].numpy(), points[i].tolist(), patch=3, mode=mode, threshold=0.4, keep=keep
            )
            np.testing.assert_allclose(found[k, i], expected)


def test_small_components_are_left_out_and_diagonal_pixels_hang_together():
    maps = torch.zeros(1, 1, 20, 20)
    maps[0, 0, 2:4, 2:4] = maps[0, 0, 4:6, 4:6] = 1  # eight pixels, joined at a corner
    maps[0, 0, 10, 10:14] = 0.5  # four: half of them, kept
    maps[0, 0, 18, 16:19] = 1  # three: left out
    found = candidate_boxes(maps, torch.tensor([[3.0, 3.0]]), patch=4, config=BoxesConfig(mode="min_max"))
    assert found.tolist() == [[[2, 2, 13, 10]]]


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_map_has_the_box_of_its_points_patch(value):
    maps = torch.full((1, 2, 32, 40), value)
    points = torch.tensor([[20.0, 9.0], [39.9, 31.9]])
    found = candidate_boxes(maps, points, patch=16, config=BoxesConfig(mode="min_max"))
    assert found.tolist() == [[[16, 0, 31, 15], [32, 16, 39, 31]]]
    grown = candidate_boxes(maps, points, patch=16, config=BoxesConfig(mode="expand"))
    torch.testing.assert_close(grown, torch.tensor([[[9.0, 0, 31, 18], [31.999, 15.999, 40, 32]]]), atol=0.2, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_an_object_at_the_border_has_a_box_within_the_image(mode):
    maps = torch.zeros(1, 1, 32, 48)
    maps[0, 0, :20, :30] = 1
    found = candidate_boxes(maps, torch.tensor([[1.0, 1.0]]), patch=16, config=BoxesConfig(mode=mode))
    assert found.tolist() == [[[0, 0, 29, 19]]]
    maps = maps.flip(2, 3)
    found = candidate_boxes(maps, torch.tensor([[47.0, 31.0]]), patch=16, config=BoxesConfig(mode=mode))
    assert found.tolist() == [[[18, 12, *((48, 32) if mode == "expand" else (47, 31))]]]


def test_patches_of_a_box_include_both_ends():
    found = cells_inside(torch.tensor([[16.0, 0, 31, 16], [0, 47.9, 80, 64]]), (4, 5), patch=16)
    assert found.nonzero().tolist() == [[0, 0, 1], [0, 1, 1], *([1, i, j] for i in (2, 3) for j in range(5))]


def test_maps_are_enlarged_bilinearly_and_normalised():
    maps = torch.randn(2, 3, 4, dtype=torch.float64)
    np.testing.assert_allclose(upsample(maps, 5), [brute.enlarged(each.numpy(), 5) for each in maps], atol=1e-12)
    np.testing.assert_allclose(min_max(maps), [brute.normalised(each.numpy()) for each in maps])
    np.testing.assert_allclose(over_max(maps), [brute.by_max(each.numpy()) for each in maps])
    assert not over_max(-maps.abs()).any()
    assert not min_max(torch.full((1, 2, 2), 7.0)).any()
    assert upsample(maps[:0], 5).shape == (0, 15, 20)


def test_mil_loss_of_equal_logits():
    """All bags are 1/20: −(ln .05 + 19 ln .95) / 20."""
    loss, _ = mil_loss(torch.zeros(3, 7, 20), torch.zeros(3, 7, 20), torch.tensor([0, 5, 19]))
    assert float(loss) == pytest.approx(0.1985, abs=5e-5)


def test_mil_loss_and_choice_are_those_of_loops():
    draw = torch.Generator().manual_seed(3)
    scores, boxes = torch.randn(2, 4, 7, 5, generator=draw, dtype=torch.float64) * 3
    labels = torch.tensor([4, 0, 0, 2])
    loss, chosen = mil_loss(scores, boxes, labels)
    expected, best = brute.mil(scores.numpy(), boxes.numpy(), labels.tolist())
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert chosen.tolist() == best


def test_bags_stay_clear_of_certainty():
    """All 7 boxes say class 0: the bag of class 0 is clamped to 1 − 10⁻⁶, the other one to 10⁻⁶."""
    scores = torch.tensor([200.0, 0.0], dtype=torch.float64).expand(1, 7, 2)
    wrong, _ = mil_loss(scores, torch.zeros_like(scores), torch.tensor([1]))
    assert float(wrong) == pytest.approx(-math.log(1e-6), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mil_trains_under_autocast_and_without_instances(dtype):
    scores, boxes = (torch.randn(2, 3, 4).to(dtype).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss, _ = mil_loss(scores, boxes, torch.tensor([1, 3]))
        nothing, chosen = mil_loss(scores[:0], boxes[:0], torch.tensor([], dtype=torch.long))
    assert loss.dtype == torch.float32
    (loss + nothing).backward()
    assert scores.grad.abs().sum() > 0
    assert nothing.item() == 0
    assert chosen.shape == (0,)
