"""The loss of sequences against loops."""

import math

import numpy as np
import pytest
import torch

from mal.methods.partialres.losses import sequence_loss
from mal.methods.partialres.sequences import UNLEARNED, mask_targets, padded


def looped(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, smoothing: float) -> float:
    total, (batch, places, values) = 0.0, logits.shape
    for b in range(batch):
        for place in range(places):
            if labels[b, place] == UNLEARNED:
                continue
            chances = [math.exp(float(value)) for value in logits[b, place]]
            for value, chance in enumerate(chances):
                target = smoothing / values + (1 - smoothing) * (value == labels[b, place])
                total -= float(weights[b, place]) * target * math.log(chance / sum(chances))
    return total / (batch * places)


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_it_is_the_weighted_sum_over_the_number_of_places(smoothing):
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(0, 2, (3, 7, 11)), rng.uniform(0.1, 2, (3, 7))
    labels = rng.integers(0, 11, (3, 7))
    labels[0, 2] = labels[2, 6] = UNLEARNED
    found = sequence_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights), smoothing=smoothing)
    assert found.item() == pytest.approx(looped(logits, labels, weights, smoothing), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_uniform_logits_cost_the_logarithm_of_their_number(smoothing):
    labels = torch.randint(0, 1001, (2, 5))
    found = sequence_loss(torch.zeros(2, 5, 1001), labels, torch.ones(2, 5), smoothing=smoothing)
    assert found.item() == pytest.approx(math.log(1001), rel=1e-6)


def test_an_ends_gradient_is_a_tenth():
    targets = mask_targets(padded(np.array([3, 4]), 4, 10), 10, end_weight=0.1)
    logits = torch.zeros(1, 5, 11, requires_grad=True)
    labels, weights = torch.tensor(targets.labels)[None], torch.tensor(targets.weights)[None]
    sequence_loss(logits, labels, weights, smoothing=0).backward()
    assert logits.grad is not None
    sizes = logits.grad[0].abs().sum(-1)
    assert (sizes / sizes[0]).tolist() == pytest.approx([1, 1, 0.1, 0.1, 0.1])


def test_what_is_not_learned_has_no_gradient_and_changes_no_others():
    logits = torch.randn(2, 4, 9)
    labels = torch.tensor([[1, 2, 3, 8], [4, 5, UNLEARNED, UNLEARNED]])
    gradients = []
    for last in (labels, torch.tensor([[1, 2, 3, 8], [4, 5, 6, 8]])):
        given = logits.clone().requires_grad_()
        sequence_loss(given, last, torch.ones(2, 4), smoothing=0.1).backward()
        assert given.grad is not None
        gradients.append(given.grad)
    assert not gradients[0][1, 2:].any()
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1, :2], gradients[1][1, :2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_in_float32_with_finite_gradients(dtype):
    torch.manual_seed(0)
    head, states = torch.nn.Linear(16, 101), torch.randn(4, 9, 16)
    labels, weights = torch.randint(-1, 101, (4, 9)), torch.rand(4, 9)
    with torch.autocast("cpu", dtype=dtype):
        logits = head(states)
        assert logits.dtype == dtype
        loss = sequence_loss(logits, labels, weights, smoothing=0.1)
    assert loss.dtype == torch.float32
    expected = looped(logits.detach().double().numpy(), labels.numpy(), weights.numpy(), 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert head.weight.grad is not None
    assert torch.isfinite(head.weight.grad).all()
    assert head.weight.grad.abs().sum() > 0
