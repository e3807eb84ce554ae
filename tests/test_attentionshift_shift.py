"""Steps 7 and 8, and Table 1's K-Means: prototypes, parts and key-points."""

import math

import numpy as np
import pytest
import torch

from mal.methods.attentionshift.config.steps import PartsConfig, ShiftConfig, StepsConfig
from mal.methods.attentionshift.kmeans import kmeans
from mal.methods.attentionshift.parts import find_parts, merged
from mal.methods.attentionshift.scaling import upsample
from mal.methods.attentionshift.shift import core_of, key_point_shift, seeds
from mal.methods.attentionshift.similarity import cosines, patch_rows, unit
from mal.methods.attentionshift.teaching import parts_of
from tests import attentionshift_brute as brute

PATCH = 4


def scene(seed: int, size: tuple[int, int] = (7, 8)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (C, h, w) of three looks and noise, the foreground (n, H, W), and boxes, at patches of 4."""
    draw = torch.Generator().manual_seed(seed)
    height, width = size
    looks = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    kind = torch.arange(width).expand(height, width) * 3 // width
    features = looks[kind].permute(2, 0, 1) + 0.3 * torch.randn(5, height, width, generator=draw, dtype=torch.float64)
    foreground = upsample(torch.rand(2, height, width, generator=draw, dtype=torch.float64) ** 0.3, PATCH)
    boxes = torch.tensor([[3.0, 5, 25, 22], [8, 0, 31, 27]], dtype=torch.float64)
    return features, foreground / foreground.amax((1, 2), keepdim=True), boxes


@pytest.mark.parametrize("height", [0.48, 0.486, 0.488, 0.532, 0.535, 1.0])
def test_an_edge_patch_survives_erosion_by_its_height(height):
    """Whole from .533 of the maximum, half from .487: bilinear heights 5 pixels beyond the patch's centre pixels."""
    cells = torch.zeros(1, 5, 9, dtype=torch.float64)
    cells[0, :, :4] = 1
    cells[0, :, 4] = height
    found = core_of(upsample(cells, 16), (5, 9), patch=16, config=ShiftConfig())[0, 2]
    share = 1.0 if height >= 0.35 * 16 / 10.5 else 0.5 if height >= 0.35 * 16 / 11.5 else 0.0
    assert found.tolist() == [1, 1, 1, 1, share, 0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_core_and_seeds_are_those_of_loops(seed):
    _features, foreground, boxes = scene(seed)
    config = ShiftConfig()
    core = core_of(foreground, (7, 8), patch=PATCH, config=config)
    expected = [brute.core(each.numpy(), (7, 8), side=3) for each in foreground]
    np.testing.assert_allclose(core, expected)
    assert seeds(core, boxes, patch=PATCH, config=config).tolist() == [
        brute.seeds(each, box, patch=PATCH) for each, box in zip(expected, boxes.tolist(), strict=True)
    ]


def test_seeds_of_many_few_and_no_patches():
    config = ShiftConfig(prototypes=4)
    core = torch.zeros(3, 4, 5)
    core[0, :2] = 0.5  # ten patches
    core[1, 3, 1] = core[1, 0, 4] = 1
    core[2] = 0.35  # not above
    boxes = torch.tensor([[0.0, 0, 79, 63]] * 3)
    found = seeds(core, boxes, patch=16, config=config).tolist()
    assert found == [[0, 2, 4, 6], [4, 16, 4, 16], [7] * 4]
    corner = torch.tensor([[79.0, 63, 80, 64]])
    assert seeds(core[2:], corner, patch=16, config=config).tolist() == [[19] * 4]


@pytest.mark.parametrize("outside", ["zero", "exclude"])
@pytest.mark.parametrize("rounds", [0, 1, 2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_shift_is_that_of_loops(seed, rounds, outside):
    features, foreground, boxes = scene(seed)
    config = ShiftConfig(rounds=rounds, outside=outside)
    core = core_of(foreground, (7, 8), patch=PATCH, config=config)
    found = key_point_shift(features, core, boxes, patch=PATCH, config=config)
    for each, inside, box in zip(found, core.numpy(), boxes.tolist(), strict=True):
        expected = brute.shifted(
            features.numpy(), inside, box, patch=PATCH, rounds=rounds, exclude=outside == "exclude"
        )
        # what sums to zero but for rounding has no direction
        np.testing.assert_allclose(each, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_is_that_of_loops(seed):
    features, foreground, boxes = scene(seed)
    config = ShiftConfig(method="kmeans")
    core = core_of(foreground, (7, 8), patch=PATCH, config=config)
    found = kmeans(features, core, boxes, patch=PATCH, config=config)
    for each, inside, box in zip(found, core.numpy(), boxes.tolist(), strict=True):
        np.testing.assert_allclose(each, brute.clustered(features.numpy(), inside, box, patch=PATCH), atol=1e-10)


@pytest.mark.parametrize("most", [1, 6])
@pytest.mark.parametrize("seed", range(6))
def test_parts_are_those_of_loops(seed, most):
    features, foreground, boxes = scene(seed)
    config = StepsConfig()
    core = core_of(foreground, (7, 8), patch=PATCH, config=config.shift)
    core = core.clamp(min=0.8)  # so that the filter leaves some
    prototypes = key_point_shift(features, core, boxes, patch=PATCH, config=config.shift)
    found = find_parts(features, prototypes, core, boxes, patch=PATCH, config=PartsConfig(most=most))
    for i, parts in enumerate(found):
        expected, points = brute.parts(
            features.numpy(), prototypes[i].numpy(), core[i].numpy(), boxes[i].tolist(), patch=PATCH, most=most
        )
        np.testing.assert_allclose(parts.prototypes, np.array(expected).reshape(-1, 5), rtol=1e-9)
        np.testing.assert_allclose(parts.key_points, np.array(points).reshape(-1, 2), rtol=1e-9)
        maps = cosines(parts.prototypes, unit(patch_rows(features))).clamp(min=0).reshape(-1, 7, 8)
        torch.testing.assert_close(parts.maps, maps)
    assert sum(len(parts.prototypes) for parts in found) > 0


def planted_parts(count: int, c: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An object of equal exact parts of 4×3 patches side by side, mutual cosine c, before a background unlike it."""
    basis = torch.eye(count + 2, dtype=dtype)
    looks = c**0.5 * basis[0] + (1 - c) ** 0.5 * basis[1 : count + 1]
    features = basis[-1].expand(8, 3 * count + 4, -1).clone()
    features[2:6, 2:-2] = looks.repeat_interleave(3, 0)
    inside = (features[..., -1] == 0).to(dtype)[None]
    box = torch.tensor([[16.0, 16, 16 * (3 * count + 3) - 1, 111]], dtype=dtype)
    return features.permute(2, 0, 1), inside, box


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("outside", ["zero", "exclude"])
@pytest.mark.parametrize("c", [0.0, 0.3, 0.6, 0.8, 0.84, 0.86, 0.95])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_equal_exact_parts_have_a_key_point_each_below_a_cosine_of_85_hundredths(count, c, outside, dtype):
    """Below: `count` key-points of cosine 1 to their parts. Above: one prototype of cosine √((1 + (P − 1)c) / P)."""
    features, inside, box = planted_parts(count, c, dtype)
    config = StepsConfig()
    config.shift.outside = outside
    found = parts_of(upsample(inside, 16), features, box, patch=16, config=config)[0]
    separate = c < 0.85
    assert len(found.key_points) == (count if separate else 1)
    cosine = 1 if separate else math.sqrt((1 + (count - 1) * c) / count)
    centres = features[:, 3, 3:-2:3].T
    best = cosines(found.prototypes, unit(centres)).amax(0)
    torch.testing.assert_close(best, torch.full_like(best, cosine), rtol=1e-4, atol=1e-4)
    if separate:
        assert sorted(found.key_points.tolist()) == [[32 + 24 + 48 * part, 64] for part in range(count)]


def test_a_prototype_that_owns_nothing_becomes_zero_and_later_gathers_what_is_left():
    """Two seeds on one patch: the first takes it all; the second gathers the patch that resembles neither."""
    basis = torch.eye(3, dtype=torch.float64)
    features = torch.stack([basis[0], basis[0], basis[1], basis[2]], 1).reshape(3, 1, 4)
    core = torch.tensor([[[1.0, 0, 0, 0]]], dtype=torch.float64)
    box = torch.tensor([[0.0, 0, 63, 15]], dtype=torch.float64)
    found = [
        key_point_shift(features, core, box, patch=16, config=ShiftConfig(prototypes=2, rounds=rounds))[0]
        for rounds in (0, 1, 2)
    ]
    torch.testing.assert_close(found[0], basis[[0, 0]])
    assert not found[1][1].any()
    torch.testing.assert_close(unit(found[2]), unit(torch.stack([basis[0], basis[1] + basis[2]])))


def test_merging_averages_in_order_with_all_later_ones():
    """The third resembles both the first and the second, which are unlike each other: it enters both averages."""
    angles = torch.tensor([0.0, 50, 25, 120], dtype=torch.float64).deg2rad()
    prototypes = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [2], [3], [4]])
    a, b, c, d = prototypes
    torch.testing.assert_close(merged(prototypes, 0.85), torch.stack([(a + c) / 2, (b + c) / 2, d]))
    torch.testing.assert_close(merged(prototypes, 1.0), prototypes)
    assert merged(prototypes[:0], 0.85).shape == (0, 2)


def test_the_six_largest_parts_are_kept() -> None:
    """Seven unlike patches that are parts each, the last of which is as large as two."""
    features = torch.cat([torch.eye(7, dtype=torch.float64), torch.eye(7, dtype=torch.float64)[6:]]).T.reshape(7, 1, 8)
    core, box = torch.ones(1, 1, 8, dtype=torch.float64), torch.tensor([[0.0, 0, 127, 15]])
    prototypes = patch_rows(features)[None, :7]
    (found,) = find_parts(features, prototypes, core, box, patch=16, config=PartsConfig())
    assert found.maps.flatten(1).argmax(1).tolist() == [6, 0, 1, 2, 3, 4]


def test_a_peak_outside_the_box_gives_no_key_point_and_equal_peaks_their_mean():
    features = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 0.9]]).reshape(2, 1, 4)
    core, box = torch.ones(1, 1, 4), torch.tensor([[0.0, 0, 31, 15]])
    found = find_parts(features, torch.eye(2)[None], core, box, patch=16, config=PartsConfig())[0]
    assert found.peaks.tolist() == [
        [16, 8],
        [48, 8],
    ]  # a cosine does not see that the last patch's features are shorter
    assert found.key_points.tolist() == [[16, 8]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["shift", "kmeans_star", "kmeans"])
def test_empty_foregrounds_boxes_of_one_patch_and_zero_features_stay_finite(method, dtype):
    features = torch.randn(5, 4, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    foreground = torch.zeros(3, 64, 96, dtype=dtype)
    foreground[1] = 1
    boxes = torch.tensor([[0.0, 0, 96, 64], [90, 60, 96, 64], [16, 16, 31, 31]], dtype=dtype)
    config = StepsConfig()
    config.shift.method = method
    for given in (features, torch.zeros_like(features), features * 1e-20):
        for each in parts_of(foreground, given, boxes, patch=16, config=config):
            assert each.prototypes.isfinite().all()
            assert each.maps.isfinite().all()
            assert each.peaks.isfinite().all()
    assert parts_of(foreground[:0], features, boxes[:0], patch=16, config=config) == []


def test_cosines_of_tiny_and_zero_vectors():
    vectors = torch.tensor([[3e-30, 4e-30], [0, 0], [3e20, 4e20]])
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.6, 0.8], [0, 0], [0.6, 0.8]]))
