"""Step 1: the cheapest tokens of all assignments, and the losses by hand."""

from itertools import permutations
from math import log

import pytest
import torch

from mal.methods.attentionshift.config.network import QueryingConfig
from mal.methods.attentionshift.querying import Points, matched, querying_losses

CONFIG = QueryingConfig()


def cost(logit: float, place: list[float], point: list[float]) -> float:
    p = 1 / (1 + 2.718281828459045**-logit)
    focal = 0.25 * (1 - p) ** 2 * -log(p) - 0.75 * p**2 * -log(1 - p)
    return focal + 10 * (abs(place[0] - point[0]) + abs(place[1] - point[1]))


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_the_cheapest_of_all(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64) * 3
    places = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 0.2  # so near that classes matter
    points = Points(
        torch.rand(3, 2, generator=generator) * torch.tensor([50.0, 20.0]), torch.tensor([2, 0, 2]), (100, 250)
    )
    known = points.places.tolist()

    def total(tokens: tuple[int, ...]) -> float:
        return sum(cost(float(logits[t, points.labels[i]]), places[t].tolist(), known[i]) for i, t in enumerate(tokens))

    found = matched(logits, places, points, CONFIG)
    assert total(tuple(found.tolist())) == pytest.approx(min(map(total, permutations(range(6), 3))))


def test_losses_are_focal_over_all_tokens_and_distances_of_the_matched() -> None:
    logits = torch.tensor([[[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0]]], dtype=torch.float64)
    places = torch.tensor([[[0.1, 0.2], [0.9, 0.9], [0.5, 0.5]]], dtype=torch.float64)
    points = [Points(torch.tensor([[20.0, 20.0], [100.0, 55.0]]), torch.tensor([1, 0]), (100, 200))]
    focal, apart = querying_losses(logits, places, points, [torch.tensor([2, 0])], CONFIG)
    expected = 0.0
    for token, row in enumerate(logits[0].tolist()):
        for label, logit in enumerate(row):
            p = 1 / (1 + 2.718281828459045**-logit)
            wanted = (token, label) in {(2, 1), (0, 0)}
            expected += 0.25 * (1 - p) ** 2 * -log(p) if wanted else 0.75 * p**2 * -log(1 - p)
    assert float(focal) == pytest.approx(expected)
    assert float(apart) == pytest.approx(10 * ((0.4 + 0.3) + (0.4 + 0.35)))


def test_an_image_without_points_teaches_its_tokens_that_they_are_nothing() -> None:
    empty = [Points(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), (10, 10))]
    logits, places = torch.zeros(1, 3, 2, requires_grad=True), torch.full((1, 3, 2), 0.5, requires_grad=True)
    tokens = [matched(logits[0], places[0], empty[0], CONFIG)]
    focal, apart = querying_losses(logits, places, empty, tokens, CONFIG)
    assert len(tokens[0]) == 0
    assert float(focal.detach()) == pytest.approx(6 * 0.75 * 0.25 * log(2))
    assert float(apart.detach()) == 0
    (focal + apart).backward()
    assert places.grad is not None
