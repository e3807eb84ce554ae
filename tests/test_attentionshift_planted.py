"""Steps 5, 7 and 8 on an object of three planted parts: what key-point shift finds, and its rivals do not."""

import math
from functools import cache

import pytest
import torch
from scipy.stats import fisher_exact, t

from mal.methods.attentionshift.config.steps import StepsConfig
from mal.methods.attentionshift.maps import instance_maps
from mal.methods.attentionshift.teaching import parts_of

SEEDS = 40
METHODS = ("shift", "kmeans_star", "kmeans")
# coverage of shift, K-Means* and K-Means at a noise of .8, by the parts' cosine, measured when the method was specified
MEASURED = {0.5: (0.90, 0.61, 0.73), 0.6: (0.97, 0.80, 0.83), 0.7: (0.97, 0.85, 0.84)}
# the share of 30 seeds in which all three parts had a key-point without noise, likewise
SURVIVED = {0.4: 0.03, 0.5: 0.20, 0.6: 0.33, 0.7: 0.90, 0.8: 1.0}


def planted(c: float, sigma: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (32, 12, 16) and the part of each patch (12, 16), −1 on the background.

    Parts are 8×3 patches side by side, √c·s + √(1 − c)·e_p; the background is orthogonal to them; all have noise of
    variance σ²/32 in each channel.
    """
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=draw))[0]
    truth = torch.full((12, 16), -1)
    truth[2:10, 3:12] = torch.arange(3).repeat_interleave(3)
    looks = torch.cat([c**0.5 * basis[:1] + (1 - c) ** 0.5 * basis[1:4], basis[4:5]])
    noise = sigma / 32**0.5 * torch.randn(32, 12, 16, generator=draw)
    return looks[truth].permute(2, 0, 1) + noise, truth


def found(c: float, sigma: float, seed: int, methods: tuple[str, ...] = METHODS) -> list[tuple[float, float]]:
    """Per method: the share of parts with a key-point, and the share of key-points on the object."""
    features, truth = planted(c, sigma, seed)
    attention = (truth >= 0).float().repeat_interleave(16, 0).repeat_interleave(16, 1)[None]
    box, point = torch.tensor([[16.0, 16, 223, 175]]), torch.tensor([[120.0, 96]])
    config = StepsConfig()
    draws = torch.Generator().manual_seed(1000 + seed)
    maps = instance_maps(features, attention, box, point, patch=16, generator=draws, config=config.maps)
    measured = []
    for method in methods:
        config.shift.method = method
        columns, rows = (parts_of(maps.foreground, features, box, patch=16, config=config)[0].key_points // 16).long().T
        hit = truth[rows, columns]
        measured.append((len(hit[hit >= 0].unique()) / 3, float((hit >= 0).float().mean())))
    return measured


@cache
def figures(c: float, sigma: float) -> torch.Tensor:
    """(seeds, methods, 2): coverage and precision."""
    return torch.tensor([found(c, sigma, seed) for seed in range(SEEDS)], dtype=torch.float64)


def interval(differences: torch.Tensor) -> tuple[float, float]:
    """The 95 % interval of a mean."""
    half = float(t.ppf(0.975, len(differences) - 1)) * float(differences.std()) / math.sqrt(len(differences))
    return float(differences.mean()) - half, float(differences.mean()) + half


@pytest.mark.parametrize(
    ("sigma", "c"),
    [
        (0.8, 0.5),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((0.8, 0.6), (0.8, 0.7), (1.0, 0.5), (1.0, 0.6), (1.0, 0.7))
        ),
    ],
)
def test_shift_covers_more_parts_than_kmeans_and_is_as_precise(sigma, c):
    coverage, precision = figures(c, sigma).unbind(2)
    gain = coverage[:, 0] - coverage[:, 1]
    assert float(gain.mean()) >= 0.08
    assert interval(gain)[0] > 0
    assert precision[:, :2].mean(0).tolist() == pytest.approx([1, 1], abs=0.01)
    assert interval(precision[:, 0] - precision[:, 2])[0] > 0  # what no filter has seen lies beside the object too


@pytest.mark.parametrize("c", [0.5, *(pytest.param(c, marks=pytest.mark.slow) for c in (0.6, 0.7))])
def test_coverage_is_what_was_measured_before(c):
    """Two means of 40 seeds with standard deviations of .25 differ by .11 in one of twenty cases."""
    coverage, precision = figures(c, 0.8).mean(0).unbind(1)
    assert coverage.tolist() == pytest.approx(MEASURED[c], abs=0.11)
    assert 0.8 <= float(precision[2]) <= 0.95


@pytest.mark.slow
def test_with_little_noise_shift_has_no_lead():
    """Parts are then lost before, in step 5."""
    coverage = figures(0.5, 0.5)[..., 0]
    low, high = interval(coverage[:, 0] - coverage[:, 1])
    assert low < 0 < high
    assert coverage[:, :2].mean(0).tolist() == pytest.approx([0.43, 0.43], abs=0.11)


@pytest.mark.slow
def test_unlike_parts_are_lost_in_step_5():
    """Less so the more alike they are; the counts differ from those measured before by no more than chance."""
    shares = []
    for c, before in SURVIVED.items():
        whole = sum(found(c, 0, seed, METHODS[:1])[0][0] == 1 for seed in range(30))
        earlier = round(30 * before)
        assert fisher_exact([[whole, 30 - whole], [earlier, 30 - earlier]]).pvalue > 0.01, (c, whole)
        shares.append(whole / 30)
    assert shares[-1] == 1
    assert max(shares[:2]) < min(shares[3:])
