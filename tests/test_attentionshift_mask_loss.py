"""Step 10 against a program that reads one point after the other."""

import math

import pytest
import torch
from torch import Tensor

from mal.methods.attentionshift.mask_loss import point_mask_loss, sampled

Points = list[tuple[float, float, int]]  # x, y and label


def read(mask: Tensor, x: float, y: float) -> float:
    """A mask at (x, y) in [0, 1]², bilinearly: cell i has its middle at (i + ½) / m, and outside there are zeros."""
    side = len(mask)
    column, row = x * side - 0.5, y * side - 0.5
    left, top = math.floor(column), math.floor(row)
    total = 0.0
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < side and 0 <= c < side:
                total += float(mask[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def bce(logit: float, label: float) -> float:
    return math.log1p(math.exp(-logit)) if label else math.log1p(math.exp(logit))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case() -> tuple[Tensor, Tensor, Tensor, Tensor, list[Points]]:
    """Four RoIs over three objects, whose points lie within, at the edges and outside."""
    rois = torch.tensor([[10.0, 20, 50, 40], [12, 18, 44, 50], [60, 5, 90, 30], [0, 0, 33, 64]], dtype=torch.float64)
    matched, labels = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 2, 0, 1])
    objects: list[Points] = [
        [(11.0, 21.0, 1), (30.3, 30.1, 1), (49.9, 39.9, 0), (47.0, 19.0, 1), (12.0, 45.0, 0)],
        [(75.0, 17.0, 1), (60.2, 29.5, 0)],
        [(1.0, 1.0, 0), (32.5, 63.0, 1), (40.0, 30.0, 1)],
    ]
    return noise(4, 3, 6, 6), rois, labels, matched, objects


def as_tensors(objects: list[Points]) -> tuple[list[Tensor], list[Tensor]]:
    points = [torch.tensor([p[:2] for p in points], dtype=torch.float64).reshape(-1, 2) for points in objects]
    return points, [torch.tensor([float(p[2]) for p in points]) for points in objects]


def by_points(*, ignored: str) -> float:
    logits, rois, labels, matched, objects = case()
    losses = []
    for roi, label, index, masks in zip(rois.tolist(), labels.tolist(), matched.tolist(), logits, strict=True):
        for x, y, wanted in objects[index]:
            u, v = (x - roi[0]) / (roi[2] - roi[0]), (y - roi[1]) / (roi[3] - roi[1])
            inside = 0 <= u <= 1 and 0 <= v <= 1
            if inside or ignored == "positive":
                losses.append(bce(read(masks[label], u, v), wanted if inside else 1))
        if ignored == "positive":
            losses += [math.log(2)] * (max(map(len, objects)) - len(objects[index]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("ignored", ["skip", "positive"])
def test_the_loss_is_that_of_each_point_by_itself(ignored: str) -> None:
    logits, rois, labels, matched, objects = case()
    found = point_mask_loss(logits, rois, labels, matched, *as_tensors(objects), ignored=ignored)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(by_points(ignored=ignored), rel=1e-12)


def test_masks_are_read_bilinearly_and_fall_to_zero_at_their_edge() -> None:
    masks = noise(1, 5, 5)
    places = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.6 - 0.3
    expected = [read(masks[0], x, y) for x, y in places[0].tolist()]
    torch.testing.assert_close(sampled(masks, places)[0], torch.tensor(expected, dtype=torch.float64))
    middle = torch.tensor([[[0.3, 0.9]]], dtype=torch.float64)
    assert sampled(masks, middle).item() == pytest.approx(masks[0, 4, 1].item())
    corner = torch.zeros(1, 1, 2, dtype=torch.float64)
    assert sampled(masks, corner).item() == pytest.approx(masks[0, 0, 0].item() / 4)


@pytest.mark.parametrize(("ignored", "teaches"), [("skip", False), ("positive", True)])
def test_points_outside_an_roi_teach_nothing_but_in_the_released_program(ignored: str, teaches: bool) -> None:
    """Its labels are boolean, so that its mark for points to ignore reads as positive."""
    logits, roi, label = (
        noise(1, 2, 6, 6).requires_grad_(),
        torch.tensor([[0.0, 0, 60, 60]]).double(),
        torch.tensor([1]),
    )
    inside: Points = [(20.0, 30.0, 0), (31.0, 11.0, 1)]
    first = torch.tensor([0])
    far = point_mask_loss(logits, roi, label, first, *as_tensors([[*inside, (200.0, 10.0, 0)]]), ignored=ignored)
    near = point_mask_loss(logits, roi, label, first, *as_tensors([[*inside, (62.0, 10.0, 0)]]), ignored=ignored)
    alone = point_mask_loss(logits, roi, label, first, *as_tensors([inside]), ignored=ignored)
    if not teaches:
        assert far == near == alone
        return
    assert far.item() == pytest.approx((2 * alone.item() + math.log(2)) / 3)
    gradient = torch.autograd.grad(far - 2 / 3 * alone, logits, retain_graph=True)[0]
    assert gradient.abs().max() < 1e-12
    at_the_edge = torch.autograd.grad(near - 2 / 3 * alone, logits)[0][0, 1]
    assert (at_the_edge.abs() > 1e-12).nonzero().tolist() == [[0, 5], [1, 5]]


def test_released_padding_dilutes_the_mean() -> None:
    logits = noise(2, 1, 4, 4)
    rois, labels, matched = torch.tensor([[0.0, 0, 8, 8]] * 2).double(), torch.tensor([0, 0]), torch.tensor([0, 1])
    lists = as_tensors([[(3.0, 3.0, 1)], [(3.0, 3.0, 0), (5.0, 5.0, 1), (1.0, 7.0, 1)]])
    own = [
        [bce(read(logits[0, 0], 3 / 8, 3 / 8), 1)],
        [bce(read(logits[1, 0], x / 8, y / 8), label) for x, y, label in [(3, 3, 0), (5, 5, 1), (1, 7, 1)]],
    ]
    total = sum(map(sum, own))
    paper = point_mask_loss(logits, rois, labels, matched, *lists)
    released = point_mask_loss(logits, rois, labels, matched, *lists, ignored="positive")
    assert paper.item() == pytest.approx(total / 4)
    assert released.item() == pytest.approx((total + 2 * math.log(2)) / 6)


@pytest.mark.parametrize("ignored", ["skip", "positive"])
def test_without_rois_or_points_the_loss_is_finite_and_keeps_its_gradient(ignored: str) -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    logits = noise(0, 2, 6, 6).requires_grad_()
    empty = point_mask_loss(logits, torch.zeros(0, 4).double(), nothing, nothing, [], [], ignored=ignored)
    assert empty.item() == 0
    assert empty.requires_grad
    logits = noise(1, 2, 6, 6).requires_grad_()
    roi, first = torch.tensor([[0.0, 0, 8, 8]]).double(), torch.tensor([0])
    found = point_mask_loss(logits, roi, first, first, *as_tensors([[]]), ignored=ignored)
    assert found.item() == pytest.approx(math.log(2) if ignored == "positive" else 0)
    (gradient,) = torch.autograd.grad(found, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    logits, rois, labels, matched, objects = case()
    lists, low = as_tensors(objects), logits.to(dtype)
    found = point_mask_loss(low, rois.float(), labels, matched, *lists)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(point_mask_loss(low.double(), rois, labels, matched, *lists).item(), rel=1e-5)
