"""Steps 5 and 6: foreground and background maps, and the points drawn from them."""

import numpy as np
import pytest
import torch

from mal.methods.attentionshift.config.steps import MapsConfig, MaskPointsConfig, RawPointsConfig
from mal.methods.attentionshift.maps import InstanceMaps, instance_maps
from mal.methods.attentionshift.raw_points import attention_points, crop_of, raw_points
from mal.methods.attentionshift.scaling import eroded, eroded_by_sums, upsample
from tests import attentionshift_brute as brute

PATCH = 4


def scene(seed: int, objects: int = 2, size: tuple[int, int] = (6, 7)) -> tuple[torch.Tensor, ...]:
    """Features (C, h, w), attention (n, H, W), boxes and points of random things at patches of 4."""
    draw = torch.Generator().manual_seed(seed)
    height, width = size
    features = torch.randn(5, height, width, generator=draw, dtype=torch.float64) + 0.5
    attention = upsample(torch.rand(objects, height, width, generator=draw, dtype=torch.float64) ** 2, PATCH)
    corners = torch.rand(objects, 2, 2, generator=draw, dtype=torch.float64).sort(1).values
    boxes = (corners * torch.tensor([width * PATCH, height * PATCH])).flatten(1)
    return features, attention, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps_of(*parts: torch.Tensor, patch: int = PATCH, config: MapsConfig | None = None) -> InstanceMaps:
    return instance_maps(*parts, patch=patch, generator=generator(), config=config or MapsConfig())


@pytest.mark.parametrize("objects", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_instance_maps_are_those_of_loops(objects, seed):
    parts = scene(seed, objects)
    found = maps_of(*parts)
    foreground, background = brute.instance_maps(*(part.numpy() for part in parts), patch=PATCH, generator=generator())
    np.testing.assert_allclose(found.foreground, foreground, atol=1e-10)
    np.testing.assert_allclose(found.background, background, atol=1e-10)


@pytest.mark.parametrize("shares", [(0.5, 0.35, 0.15), (0.4, 0.35, 0.25), (0.8, 0.1, 0.1)])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_part_is_seen_by_its_share_of_the_prototype_and_dropped_below_nine_tenths(rounds, shares):
    """Shares q, mutual cosine c: cosine to part j ∝ c + (1 − c)·q_j; parts below .9 of the best leave the average."""
    c = 0.6
    basis = torch.eye(5, dtype=torch.float64)
    looks = c**0.5 * basis[0] + (1 - c) ** 0.5 * basis[1:4]
    features = torch.stack([*looks, basis[4]], 1).reshape(5, 1, 4)
    # 19 pixels above the threshold and, for the 20th, the point in the first part: nothing is left to chance
    attention = torch.zeros(1, 21, 84, dtype=torch.float64)
    attention[0, :, :63] = 0.15  # the object is no background either
    for part, share in enumerate(shares):
        attention[0, : round(20 * share) - (part == 0), 21 * part] = 1
    box, point = torch.tensor([[0.0, 0, 83, 20]], dtype=torch.float64), torch.tensor([[10.0, 10]], dtype=torch.float64)
    found = maps_of(features, attention, box, point, patch=21, config=MapsConfig(rounds=rounds))

    seen = [c + (1 - c) * share for share in shares]
    for _ in range(rounds):
        weight = [value if value >= 0.9 * max(seen) else 0 for value in seen]
        seen = [c + (1 - c) * value / sum(weight) for value in weight]
    expected = torch.tensor([*(value / max(seen) for value in seen), 0], dtype=torch.float64)
    torch.testing.assert_close(found.foreground[0, 10, 10::21], expected)


def test_a_patch_belongs_to_the_instance_that_it_resembles_more():
    """Two objects of unlike features side by side, each with its box over both."""
    basis = torch.eye(3, dtype=torch.float64)
    features = basis[torch.tensor([[0, 0, 1, 1, 2, 2]])].permute(2, 0, 1)
    attention = upsample(torch.tensor([[[1.0, 1, 0, 0, 0, 0]], [[0, 0, 1, 1, 0, 0]]], dtype=torch.float64), 5)
    boxes = torch.tensor([[0.0, 0, 19, 4]] * 2, dtype=torch.float64)
    points = torch.tensor([[5.0, 2], [15, 2]], dtype=torch.float64)
    found = maps_of(features, attention, boxes, points, patch=5).foreground[:, 2, 2::5]
    assert (found[0] > 0.5).tolist() == [True, True, False, False, False, False]
    assert (found[1] > 0.5).tolist() == [False, False, True, True, False, False]


def test_nothing_outside_the_box_is_foreground_but_by_interpolation():
    features, attention, _, points = scene(1, 1)
    box = torch.tensor([[9.0, 5, 14, 11]], dtype=torch.float64)  # patches 2…3 across, 1…2 down
    found = maps_of(features, attention, box, points).foreground[0]
    reached = torch.zeros(24, 28, dtype=torch.bool)
    reached[4 - 2 : 12 + 2, 8 - 2 : 16 + 2] = True
    assert not found[~reached].any()
    assert found.max() == 1


@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_constant_attention_gives_finite_maps(attention):
    features, _, boxes, points = scene(2)
    found = maps_of(features, torch.full((2, 24, 28), attention, dtype=torch.float64), boxes, points)
    assert found.foreground.isfinite().all()
    assert found.background.isfinite().all()


def test_two_objects_of_one_point_get_finite_maps():
    features, attention, boxes, points = scene(3)
    twice = torch.tensor([0, 0])
    found = maps_of(features, attention[twice], boxes[twice], points[twice])
    assert found.foreground.isfinite().all()
    assert (found.background.amax((1, 2)) == 1).all()
    # no pixel is both's: a tie goes to the first
    cells = found.foreground[:, 2::4, 2::4] > 0.9
    assert not (cells[0] & cells[1]).any()


def test_features_unlike_every_prototype_give_an_empty_foreground():
    """The point's patch has zero features: no cosine is positive."""
    features, attention, boxes, points = scene(0, 1)
    found = maps_of(torch.zeros_like(features), attention, boxes, points)
    assert not found.foreground.any()
    assert (found.background == 1).all()


def test_an_image_without_instances_and_one_of_few_pixels():
    features, attention, boxes, points = scene(0)
    assert maps_of(features, attention[:0], boxes[:0], points[:0]).foreground.shape == (0, 24, 28)
    tiny = maps_of(features[:, :1, :2], attention[:, :2, :4], boxes * 0, points * 0, patch=2)  # 8 pixels, 20 draws
    assert tiny.foreground.isfinite().all()


def test_erosion_is_that_of_loops_and_scales_with_the_patch():
    masks = torch.rand(3, 17, 23, generator=generator()) > 0.1
    for patch, size, side in ((16, 5, 5), (16, 1, 1), (8, 11, 5), (8, 21, 11), (4, 21, 5), (2, 11, 1), (24, 3, 5)):
        expected = [brute.worn(each.numpy(), side) for each in masks]
        np.testing.assert_array_equal(eroded(masks, size, patch=patch), expected)
        np.testing.assert_array_equal(eroded_by_sums(masks, side), expected)  # what a GPU does
    assert eroded(torch.ones(1, 4, 4, dtype=torch.bool), 21, patch=16).all()  # the border does not erode
    assert eroded(masks[:0], 21, patch=16).shape == (0, 17, 23)


@pytest.mark.parametrize("seed", range(6))
def test_raw_points_are_those_of_loops(seed):
    parts = scene(seed, 3)
    maps, boxes = maps_of(*parts), parts[2]
    found = raw_points(maps, boxes, patch=PATCH, generator=generator(seed), config=RawPointsConfig(erosion=11))
    same = generator(seed)
    for (positives, negatives), foreground, background, box in zip(
        found, maps.foreground.numpy(), maps.background.numpy(), boxes.tolist(), strict=True
    ):
        expected = brute.raw_points(foreground, background, box, side=3, generator=same)
        assert positives.tolist() == expected[0]
        assert negatives.tolist() == expected[1]


def test_the_mix_of_points_follows_the_areas():
    foreground = torch.zeros(1, 40, 40, dtype=torch.float64)
    foreground[0, :, :20] = 1
    background = torch.zeros_like(foreground)
    background[0, :10, 30:] = 1  # 100 pixels beside 800
    box = torch.tensor([[0.0, 0, 39, 39]])
    settings = RawPointsConfig(count=90, erosion=1)
    positives, negatives = raw_points(
        InstanceMaps(foreground, background), box, patch=16, generator=generator(), config=settings
    )[0]
    assert len(positives) + len(negatives) == 90
    assert 3 <= len(negatives) <= 18  # 10 ± 2.6 standard deviations of 2.8
    assert (positives[:, 0] < 20).all()
    assert ((negatives[:, 0] > 30) & (negatives[:, 1] < 10)).all()
    assert len(torch.cat([positives, negatives]).unique(dim=0)) == 90


def test_few_pixels_are_repeated_and_none_give_no_points():
    foreground = torch.zeros(2, 16, 16)
    foreground[0, 8, 4] = foreground[0, 8, 5] = 1
    background = torch.zeros(2, 16, 16)
    background[0, 1, 1] = 1
    boxes = torch.tensor([[0.0, 0, 15, 15]] * 2)
    found = raw_points(
        InstanceMaps(foreground, background), boxes, patch=16, generator=generator(), config=RawPointsConfig(erosion=1)
    )
    points, times = torch.cat(found[0]).unique(dim=0, return_counts=True)
    assert points.tolist() == [[1.5, 1.5], [4.5, 8.5], [5.5, 8.5]]
    assert sorted(times.tolist()) == [3, 3, 4]
    assert [len(points) for points in found[1]] == [0, 0]


def test_a_crop_stays_in_the_image_and_has_a_pixel():
    assert crop_of([15.9, 3.0, 16.0, 9.5], torch.Size((10, 16))) == ((slice(3, 10), slice(15, 16)), (15, 3))


def test_the_baselines_points_come_from_the_attention_itself():
    attention = torch.zeros(1, 64, 64)
    attention[0, 16:48, 16:48] = 0.3
    attention[0, 0, 0] = 1
    attention[0, :8] = 0.1  # neither object nor background
    box = torch.tensor([[4.0, 4, 59, 59]])
    positives, negatives = attention_points(
        attention, box, patch=16, generator=generator(), erosion=21, config=MaskPointsConfig()
    )[0]
    assert len(positives) + len(negatives) == 20
    assert ((positives >= 26.5) & (positives <= 37.5)).all()
    outside = (negatives < 16).any(1) | (negatives > 48).any(1)
    assert outside.all()
    assert (negatives[:, 1] > 8).all()
    assert ((negatives > 4) & (negatives < 60)).all()
