"""SimFormer's losses of classes, masks and complement: closed forms, and loops over pixels in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mal.engine import ranks
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.criterion import criterion
from mal.methods.simformer.losses import cls_loss, complement_loss, dice, focal, mask_loss
from mal.methods.simformer.network import Outputs
from tests.in_processes import in_processes
from tests.simformer_cases import base_of

CONFIG = LossesConfig()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def looped(logits: np.ndarray, targets: np.ndarray) -> float:
    """20·F + D of one mask, pixel by pixel."""
    pixels, overlap, area = 0.0, 0.0, 0.0
    for logit, target in zip(logits.ravel().tolist(), targets.ravel().tolist(), strict=True):
        share = 1 / (1 + math.exp(-logit))
        right = share if target else 1 - share
        pixels -= (0.25 if target else 0.75) * (1 - right) ** 2 * math.log(right)
        overlap += share * target
        area += share + target
    return 20 * pixels / logits.size + 1 - (2 * overlap + 1) / (area + 1)


def larger(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("classes", [1, 4, 171])
def test_uniform_logits_cost_the_logarithm_of_the_classes(classes):
    logits = torch.zeros(2, 9, classes + 1, dtype=torch.float64)
    wanted = torch.arange(18).view(2, 9) % (classes + 1)
    assert cls_loss(logits, wanted, nothing=0.1).item() == pytest.approx(math.log(classes + 1))


def test_queries_without_target_weigh_a_tenth():
    logits, wanted = randn(2, 3, 4), torch.tensor([[0, 3, 3], [3, 2, 3]])
    odds = logits.exp() / logits.exp().sum(-1, keepdim=True)
    total = weights = 0.0
    for image in range(2):
        for query in range(3):
            weight = 0.1 if wanted[image, query] == 3 else 1.0
            total -= weight * math.log(odds[image, query, wanted[image, query]])
            weights += weight
    assert cls_loss(logits, wanted, nothing=0.1).item() == pytest.approx(total / weights)


def test_focal_at_a_logit_of_zero():
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert focal(zero, zero + 1, alpha=0.25, gamma=2).item() == pytest.approx(0.04332, abs=1e-5)
    assert focal(zero, zero, alpha=0.25, gamma=2).item() == pytest.approx(0.12996, abs=1e-5)


def test_dice_in_closed_form():
    even = torch.zeros(2, 3, dtype=torch.float64)  # six pixels of .5
    assert dice(even, torch.ones_like(even)).item() == pytest.approx(1 - 7 / 10)
    assert dice(even, torch.zeros_like(even)).item() == pytest.approx(1 - 1 / 4)
    sure = torch.full_like(even, 60)
    assert dice(sure, torch.ones_like(even)).item() == pytest.approx(1 - 13 / 13)


def test_mask_loss_is_loops_over_pixels():
    logits, masks = randn(3, 4, 5), randn(3, 16, 20, seed=1) > 0
    expected = sum(looped(larger(logits, (16, 20))[i].numpy(), masks[i].numpy()) for i in range(3))
    assert mask_loss(logits, masks, CONFIG, count=3).item() == pytest.approx(expected / 3)
    assert mask_loss(logits, masks, CONFIG, count=4).item() == pytest.approx(expected / 4)
    assert mask_loss(logits[:0], masks[:0], CONFIG, count=0).item() == 0


def complement_of(logits, others, inside) -> tuple[np.ndarray, np.ndarray]:
    """u and g, pixel by pixel."""
    whole = larger(logits, inside.shape).numpy()
    union, wanted = np.empty(inside.shape), np.empty(inside.shape)
    for row in range(inside.shape[0]):
        for column in range(inside.shape[1]):
            union[row, column] = max([-2.9444, *whole[:, row, column]])
            based = any(bool(mask[row, column]) for mask in others)
            wanted[row, column] = bool(inside[row, column]) and not based
    return union, wanted


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits, others = 3 * randn(2, 4, 5, seed=2), randn(2, 16, 20, seed=3) > 1.5
    inside = torch.ones(16, 20, dtype=torch.bool)
    inside[13:], inside[:, 18:] = False, False
    return logits, others & inside, inside


def test_complement_loss_is_loops_over_pixels():
    logits, others, inside = scene()
    expected = looped(*complement_of(logits, others, inside))
    assert complement_loss(logits, others, inside, CONFIG).item() == pytest.approx(expected)
    alone = looped(*complement_of(logits, others[:0], inside))
    assert complement_loss(logits, others[:0], inside, CONFIG).item() == pytest.approx(alone)


def test_the_constant_is_a_probability_of_a_twentieth():
    assert 1 / (1 + math.exp(-CONFIG.background)) == pytest.approx(0.05, abs=1e-5)


def test_gradients_of_the_complement_reach_the_largest_logit_alone_and_none_where_the_constant_wins():
    logits = torch.tensor([[[-5.0, 1.0, -9.0]], [[-4.0, 0.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    inside = torch.ones(1, 3, dtype=torch.bool)
    complement_loss(logits, inside[None, :, :] & False, inside, CONFIG).backward()
    assert (logits.grad != 0).tolist() == [[[False, True, False]], [[False, False, True]]]


def test_unlabelled_pixels_are_of_the_complement_and_padding_is_not():
    inside = torch.tensor([[True, True, False, False]])
    sure = torch.tensor([[[50.0, 50.0, -50.0, -50.0]]], dtype=torch.float64)
    none = torch.zeros(0, 1, 4, dtype=torch.bool)
    config = replace(CONFIG, background=-50.0)
    assert complement_loss(sure, none, inside, config).item() == pytest.approx(0, abs=1e-9)
    based = torch.tensor([[[True, False, False, False]]])
    half = torch.tensor([[[-50.0, 50.0, -50.0, -50.0]]], dtype=torch.float64)
    assert complement_loss(half, based, inside, config).item() == pytest.approx(0, abs=1e-9)


LAYERS, IMAGES, QUERIES, CLASSES = 3, 3, 6, 5


def batch(dtype: torch.dtype = torch.float32) -> tuple[Outputs, torch.Tensor, torch.Tensor, list[list[int]]]:
    outputs = Outputs(
        randn(IMAGES, 8, 4, 5).to(dtype),
        [randn(IMAGES, QUERIES, CLASSES + 1, seed=10 + i).to(dtype).requires_grad_() for i in range(LAYERS)],
        [randn(IMAGES, QUERIES, 4, 5, seed=20 + i).to(dtype).requires_grad_() for i in range(LAYERS)],
    )
    labels = torch.full((IMAGES, 16, 20), 255)
    labels[0, :6], labels[0, 6:12, :9], labels[1, 4:] = 0, 1, 1
    inside = torch.ones(IMAGES, 16, 20, dtype=torch.bool)
    labels[1, :, 16:], inside[1, :, 16:] = 255, False
    return outputs, labels, inside, [[3], [2, 4], []]


def test_the_criterion_sums_what_each_layer_costs_when_matched_alone():
    outputs, labels, inside, tags = batch()
    found = criterion(outputs, labels, inside, base_of(labels), tags, CONFIG)
    apart = [
        criterion(Outputs(outputs.pixels, [c], [m]), labels, inside, base_of(labels), tags, CONFIG)
        for c, m in zip(outputs.classes, outputs.masks, strict=True)
    ]
    for name in ("cls", "mask", "complement"):
        assert found[name].item() == pytest.approx(sum(each[name].item() for each in apart), rel=1e-5)
        assert found[name].item() > 0


def test_the_criterion_of_a_planted_batch_by_hand():
    """One layer in which every target's query is plain: query i is of class i."""
    outputs, labels, inside, tags = batch()
    classes = torch.zeros(IMAGES, QUERIES, CLASSES + 1)
    classes[:, range(CLASSES), range(CLASSES)] = 30
    masks = torch.full((IMAGES, QUERIES, 4, 5), -2.0)
    masks[0, 0, :1], masks[0, 1, 2:3, :2], masks[1, 1, 1:], masks[0, 3, 2:], masks[1, 2, 0], masks[1, 4, 0, :3] = (
        2.0, 2.5, 3.0, 1.5, 1.0, 2.0,
    )  # fmt: skip
    found = criterion(Outputs(outputs.pixels, [classes], [masks]), labels, inside, base_of(labels), tags, CONFIG)
    whole = torch.stack([larger(each.double(), (16, 20)) for each in masks])
    pairs = [(0, 0), (0, 1), (1, 1)]
    expected = sum(looped(whole[i, c].numpy(), (labels[i] == c).numpy()) for i, c in pairs) / 3
    assert found["mask"].item() == pytest.approx(expected, rel=1e-5)
    complements = [
        looped(*complement_of(masks[0, [3]].double(), [labels[0] == 0, labels[0] == 1], inside[0])),
        looped(*complement_of(masks[1, [2, 4]].double(), [labels[1] == 1], inside[1])),
    ]
    assert found["complement"].item() == pytest.approx(0.15 * sum(complements) / 2, rel=1e-5)
    matched = {(0, 0), (0, 1), (0, 3), (1, 1), (1, 2), (1, 4)}
    total, weights = 0.0, 0.0
    for image in range(IMAGES):
        for query in range(QUERIES):
            weight = 1.0 if (image, query) in matched else 0.1
            label = query if (image, query) in matched else CLASSES
            total += weight * -float(classes[image, query].double().log_softmax(0)[label])
            weights += weight
    assert found["cls"].item() == pytest.approx(total / weights, rel=1e-5)


def on_a_part() -> dict[str, list]:
    """The criterion's losses and gradients of this process's part of two images, of which the first alone has a novel
    class and more base classes."""
    outputs, labels, inside, tags = batch()
    part = ranks.own_part(2, "batch")
    own = Outputs(
        outputs.pixels[part],
        [each.detach()[part].requires_grad_() for each in outputs.classes],
        [each.detach()[part].requires_grad_() for each in outputs.masks],
    )
    losses = criterion(own, labels[part], inside[part], base_of(labels[part]), [tags[0], tags[2]][part], CONFIG)
    torch.stack(list(losses.values())).sum().backward()
    return {
        "losses": [ranks.mean(loss.detach()).item() for loss in losses.values()],
        "gradients": [(each.grad / ranks.size()).tolist() for each in own.classes + own.masks],
    }


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one():
    alone = on_a_part()
    for rank, answer in enumerate(in_processes(2, on_a_part)):
        assert answer["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        for found, expected in zip(answer["gradients"], alone["gradients"], strict=True):
            torch.testing.assert_close(torch.tensor(found)[0], torch.tensor(expected)[rank], rtol=1e-4, atol=1e-7)


def test_without_novel_targets_the_complement_costs_nothing():
    outputs, labels, inside, _ = batch()
    losses = criterion(outputs, labels, inside, base_of(labels), [[], [], []], CONFIG)
    assert losses["complement"].item() == 0
    losses["complement"].backward()
    assert not any(masks.grad.any() for masks in outputs.masks)


def test_without_targets_only_classes_cost():
    outputs, labels, inside, _ = batch()
    losses = criterion(outputs, torch.full_like(labels, 255), inside, [[], [], []], [[], [], []], CONFIG)
    assert losses["mask"].item() == losses["complement"].item() == 0
    expected = sum(-each.log_softmax(-1)[..., -1].mean().item() for each in outputs.classes)
    assert losses["cls"].item() == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_zero_leaves_the_complement_out():
    outputs, labels, inside, tags = batch()
    losses = criterion(outputs, labels, inside, base_of(labels), tags, replace(CONFIG, complement=0.0))
    assert losses["complement"].item() == 0


def test_the_released_reading_differs_only_where_a_base_mask_is_lost():
    outputs, labels, inside, tags = batch()
    released = replace(CONFIG, base_lost="novel")
    kept, same = (criterion(outputs, labels, inside, base_of(labels), tags, config) for config in (CONFIG, released))
    assert all(torch.equal(kept[name], same[name]) for name in kept)
    labels[0, 13:15, 1:3] = 2  # between the pixels that stride 4 keeps
    kept, other = (criterion(outputs, labels, inside, base_of(labels), tags, config) for config in (CONFIG, released))
    assert kept["mask"].item() != other["mask"].item()
    assert kept["complement"].item() != other["complement"].item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_and_near_the_whole_ones_in_half_precision(dtype):
    outputs, labels, inside, tags = batch(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found = criterion(outputs.float(), labels, inside, base_of(labels), tags, CONFIG)
    whole = criterion(outputs.float(), labels, inside, base_of(labels), tags, CONFIG)
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, whole[name])
    torch.stack(list(found.values())).sum().backward()
    assert all(each.grad.dtype == dtype and each.grad.isfinite().all() for each in outputs.masks + outputs.classes)
