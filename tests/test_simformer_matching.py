"""SimFormer's targets and matching, against every permutation, in float64."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.matching import assign, matching_costs
from mal.methods.simformer.targets import Targets, by_emptiness, shrunk, targets_of

CONFIG = LossesConfig()
HIGH, WIDE = 12, 20  # of the images; a quarter of it is the logits' size


def drawn(seed: int, queries: int, base: int, novel: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(seed)
    classes = 2 * torch.randn(queries, base + novel + 3, generator=generator, dtype=torch.float64)
    masks = 3 * torch.randn(queries, HIGH // 4, WIDE // 4, generator=generator, dtype=torch.float64)
    truth = torch.rand(base + novel, HIGH, WIDE, generator=generator) < 0.4
    labels = torch.randperm(base + novel + 2, generator=generator)[: base + novel]
    truth[base:] = False
    return classes, masks, Targets(labels, truth, base)


def match(classes: torch.Tensor, masks: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    return assign(matching_costs(classes, masks, targets, CONFIG))


def cost(classes: np.ndarray, mask: np.ndarray, label: int, novel: bool, truth: np.ndarray) -> float:
    """Of one query and one target, pixel by pixel."""
    odds = np.exp(classes - classes.max())
    value = -odds[label] / odds.sum()
    if novel:
        return value
    focal, overlap, area = 0.0, 0.0, 0.0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            share, is_on = 1 / (1 + np.exp(-mask[row, column])), bool(truth[4 * row, 4 * column])
            right = share if is_on else 1 - share
            focal -= (0.25 if is_on else 0.75) * (1 - right) ** 2 * np.log(right)
            overlap += share * is_on
            area += share + is_on
    return value + 20 * focal / mask.size + 1 - (2 * overlap + 1) / (area + 1)


def brute(classes: torch.Tensor, masks: torch.Tensor, targets: Targets) -> np.ndarray:
    return np.array(
        [
            [
                cost(one.numpy(), mask.numpy(), int(label), number >= targets.base, truth.numpy())
                for number, (label, truth) in enumerate(zip(targets.labels, targets.masks, strict=True))
            ]
            for one, mask in zip(classes, masks, strict=True)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 3), st.integers(0, 2))
def test_matching_is_the_cheapest_of_all_permutations(seed, queries, base, novel):
    classes, masks, targets = drawn(seed, queries, base, novel)
    rows, columns = match(classes, masks, targets)
    costs, count = brute(classes, masks, targets), base + novel
    assert len(rows) == min(queries, count)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    if queries >= count:
        every = [sum(costs[q, t] for t, q in enumerate(chosen)) for chosen in permutations(range(queries), count)]
    else:
        every = [sum(costs[q, t] for q, t in enumerate(chosen)) for chosen in permutations(range(count), queries)]
    assert costs[rows.numpy(), columns.numpy()].sum() == pytest.approx(min(every), abs=1e-9)


def test_costs_are_those_of_loops_over_pixels():
    classes, masks, targets = drawn(1, 4, 3, 2)
    np.testing.assert_allclose(matching_costs(classes, masks, targets, CONFIG), brute(classes, masks, targets))
    several = matching_costs(torch.stack([classes, classes / 2]), torch.stack([masks, -masks]), targets, CONFIG)
    np.testing.assert_allclose(several[0], brute(classes, masks, targets))
    np.testing.assert_allclose(several[1], brute(classes / 2, -masks, targets))


def test_costs_of_novel_targets_ignore_masks():
    classes, masks, targets = drawn(2, 5, 2, 3)
    base = matching_costs(classes, masks, targets, CONFIG)
    other = matching_costs(classes, -7 * masks, targets, CONFIG)
    assert torch.equal(base[:, 2:], other[:, 2:])
    assert not torch.isclose(base[:, :2], other[:, :2]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_costs_stay_whole_in_half_precision(dtype):
    classes, masks, targets = drawn(3, 5, 2, 2)
    classes, masks = classes.to(dtype), masks.to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        costs = matching_costs(classes, masks, targets, CONFIG)
    assert costs.dtype == torch.float32
    np.testing.assert_allclose(costs, brute(classes.double(), masks.double(), targets), rtol=1e-4, atol=1e-5)


def test_costs_that_are_no_numbers_do_not_stop_the_matching():
    classes, masks, targets = drawn(4, 5, 2, 1)
    masks[2] = torch.nan
    rows, _ = match(classes, masks, targets)
    assert len(rows) == 3


def test_one_target_per_class_base_ones_by_pixels_and_novel_ones_by_tag():
    labels = torch.full((4, 6), 255, dtype=torch.uint8)
    labels[0], labels[1:3, :2] = 7, 2
    targets = targets_of(labels, [2, 7], [9, 4])
    assert targets.labels.tolist() == [2, 7, 4, 9]
    assert targets.base == 2
    assert targets.masks[0].nonzero().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert torch.equal(targets.masks[1], labels == 7)
    assert not targets.masks[2:].any()
    nothing = targets_of(torch.full((4, 6), 255, dtype=torch.uint8), [], [])
    assert len(nothing.labels) == 0
    assert nothing.masks.shape == (0, 4, 6)


def thin() -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Three base classes, of which the second lies between the rows that stride 4 keeps, and a novel one."""
    labels = torch.full((HIGH, WIDE), 255)
    labels[:4], labels[5:7], labels[8:] = 0, 1, 2
    targets = targets_of(labels, [0, 1, 2], [3])
    sure = 8 * (2 * shrunk(targets.masks, (HIGH // 4, WIDE // 4)).double() - 1)
    masks = torch.stack([sure[2], sure[0], sure[1], sure[1]])
    classes = torch.full((4, 5), -4.0, dtype=torch.float64)
    classes[torch.arange(4), torch.tensor([2, 0, 3, 1])] = 4
    return classes, masks, targets


def test_a_base_mask_that_is_lost_at_stride_4_stays_base():
    classes, masks, targets = thin()
    assert not shrunk(targets.masks, (HIGH // 4, WIDE // 4))[1].any()
    assert targets.base == 3
    rows, columns = match(classes, masks, targets)
    assert columns[rows.argsort()].tolist() == [2, 0, 3, 1]
    assert matching_costs(classes, masks, targets, CONFIG)[0, 1] > -0.5 + 1  # its mask costs too


def test_the_released_program_takes_it_for_novel_and_loses_step():
    classes, masks, targets = thin()
    released, order = by_emptiness(targets, (HIGH // 4, WIDE // 4))
    assert released.base == 2
    assert order.tolist() == [0, 2, 1, 3]  # the second column's cost is of the third target
    assert released.labels.tolist() == targets.labels.tolist()
    costed = Targets(released.labels[order], released.masks[order], released.base)
    rows, columns = match(classes, masks, costed)
    # the query that found class 2 is told to be class 1, and the other way round
    assert released.labels[columns[rows.argsort()]].tolist() == [1, 0, 3, 2]


def test_without_a_lost_mask_both_readings_agree():
    classes, masks, targets = drawn(5, 4, 2, 2)
    released, order = by_emptiness(targets, (HIGH // 4, WIDE // 4))
    assert order.tolist() == [0, 1, 2, 3]
    assert released.base == targets.base
    assert torch.equal(
        matching_costs(classes, masks, released, CONFIG), matching_costs(classes, masks, targets, CONFIG)
    )
