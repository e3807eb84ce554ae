"""What BESTIE's networks learn from, and how they are judged, against closed forms and brute force."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mal.methods.bestie.class_loss import class_losses, disc_share, easiest
from mal.methods.bestie.config import ClassMapsConfig
from mal.methods.bestie.losses import UNKNOWN, centre_loss, hardest_pixels, offset_loss
from mal.methods.bestie.places import centres_of_pixels, nearest
from mal.methods.bestie.regions import guidance
from mal.methods.bestie.targets import centre_map, refined_offsets
from tests.bestie_cases import sample


def test_the_hardest_fifth_of_each_images_known_pixels_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, 4, (2, 6, 5), generator=generator)
    classes[1, :, 3:] = UNKNOWN
    means = []
    for each, wanted in zip(logits.numpy(), classes.numpy(), strict=True):
        costs = []
        for row in range(6):
            for column in range(5):
                if wanted[row, column] != UNKNOWN:
                    values = each[:, row, column]
                    costs.append(math.log(np.exp(values).sum()) - values[wanted[row, column]])
        hardest = sorted(costs, reverse=True)[: int(0.2 * len(costs))]
        means.append(sum(hardest) / len(hardest))
    assert len(hardest) == 3  # of 18
    assert float(hardest_pixels(logits, classes, share=0.2)) == pytest.approx(np.mean(means), rel=1e-12)


def test_one_pixel_is_the_least_that_is_learned_from_and_padding_costs_nothing() -> None:
    logits, classes = torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 1, UNKNOWN, UNKNOWN]]])
    logits[0, 1, 0, 0] = 4.0
    expected = math.log(2 + math.exp(4))  # the pixel that is taken for the wrong class
    assert float(hardest_pixels(logits, classes, share=0.2)) == pytest.approx(expected)
    nothing = torch.full((1, 1, 4), UNKNOWN)
    assert float(hardest_pixels(logits, nothing, share=0.2)) == 0


def test_centres_are_gaussians_around_the_points_and_the_nearest_one_counts() -> None:
    xy, labels = torch.tensor([[3.5, 2.5], [9.25, 2.0], [40.0, 50.0]]), torch.tensor([1, 1, 0])
    found = centre_map(xy, labels, classes=3, size=(8, 12), sigma=2.5)
    assert found.shape == (3, 8, 12)
    for row in range(8):
        for column in range(12):
            squares = [(column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 for x, y in ((3.5, 2.5), (9.25, 2.0))]
            assert float(found[1, row, column]) == pytest.approx(math.exp(-min(squares) / (2 * 2.5**2)), rel=1e-5)
    assert float(found[1, 2, 3]) == 1  # a point at a pixel's centre
    assert float(found[0].max()) < 1e-30  # the point is far away
    assert not found[2].any()


def test_a_region_with_one_point_of_its_class_points_to_its_centroid() -> None:
    classes = np.zeros((20, 30), dtype=np.int64)
    classes[2:12, 3:10] = 2  # 70 pixels
    classes[12, 10] = 2  # joined by a corner
    xy, labels = np.array([[4.2, 3.9], [5.0, 5.0]]), np.array([1, 0])  # the second is of another class
    found = guidance(classes, xy, labels, smallest=50)
    assert found.certain.numpy().tolist() == (classes == 2).tolist()
    rows, columns = np.nonzero(classes == 2)
    centroid = columns.mean() + 0.5, rows.mean() + 0.5
    for row, column in zip(rows, columns, strict=True):
        expected = centroid[0] - column - 0.5, centroid[1] - row - 0.5
        assert found.offsets[:, row, column].tolist() == pytest.approx(expected, abs=1e-5)
    assert not found.offsets[:, classes != 2].any()


@pytest.mark.parametrize(
    ("points", "smallest", "known"),
    [
        ([(4, 4, 0)], 50, True),
        ([(4, 4, 0)], 71, False),  # too small
        ([(4, 4, 0), (8, 8, 0)], 50, False),  # two points
        ([(4, 4, 0), (8, 8, 1)], 50, True),  # the second is of another class
        ([(15, 15, 0)], 50, False),  # beside it
        ([(4, 4, 1)], 50, False),
        ([(4, 4, 0), (-3, 4, 0), (4, 99, 0)], 50, True),  # two outside of the map
        ([], 50, False),
    ],
)
def test_regions_that_two_points_or_none_explain_teach_nothing(points: list, smallest: int, known: bool) -> None:
    classes = np.zeros((20, 30), dtype=np.int64)
    classes[2:12, 3:10] = 1
    xy, labels = np.array([[x, y] for x, y, _ in points]).reshape(-1, 2), np.array([label for *_, label in points], int)
    found = guidance(classes, xy, labels, smallest=smallest)
    assert int(found.certain.sum()) == (70 if known else 0)


@given(st.integers(0, 10_000))
def test_regions_are_those_of_a_flood_fill(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes = (cv2.GaussianBlur(generator.standard_normal((16, 16)), (0, 0), 1.2) > 0.05).astype(np.int64)
    xy, labels = generator.uniform(0, 16, (4, 2)), np.zeros(4, dtype=np.int64)
    found, left = guidance(classes, xy, labels, smallest=5), {(r, c) for r, c in np.argwhere(classes == 1).tolist()}
    expected = set()
    while left:
        region, waiting = set(), [left.pop()]
        while waiting:
            row, column = waiting.pop()
            region.add((row, column))
            near = {(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
            left -= near
            waiting += near
        if len(region) >= 5 and sum((int(y), int(x)) in region for x, y in xy) == 1:
            expected |= region
    assert {(r, c) for r, c in found.certain.nonzero().tolist()} == expected


def test_refined_offsets_lead_to_the_point_of_the_class_that_a_pixel_points_nearest_to() -> None:
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 4, (9, 11), generator=generator)  # class 2 has no point
    predicted = 4 * torch.randn(2, 9, 11, generator=generator)
    xy, labels = torch.tensor([[1.0, 1.0], [9.0, 2.0], [5.5, 8.0]]), torch.tensor([0, 0, 1])
    offsets, known = refined_offsets(predicted, classes, xy, labels)
    assert torch.equal(known, (classes == 1) | (classes == 2))
    for row, column in known.nonzero().tolist():
        pixel = torch.tensor([column + 0.5, row + 0.5])
        own = xy[labels == classes[row, column] - 1]
        pointed = pixel + predicted[:, row, column]
        chosen = own[(own - pointed).norm(dim=1).argmin()]
        assert torch.equal(offsets[:, row, column], chosen - pixel)
    assert not offsets[:, ~known].any()


def test_centres_and_offsets_are_learned_on_certain_pixels_alone() -> None:
    found, wanted = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    where = torch.rand(2, 4, 4) < 0.4
    pairs = [(b, r, c) for b, r, c in where.nonzero().tolist()]
    squares = [((found[b, :, r, c] - wanted[b, :, r, c]) ** 2).sum() for b, r, c in pairs]
    lengths = [(found[b, :2, r, c] - wanted[b, :2, r, c]).abs().sum() for b, r, c in pairs]
    assert float(centre_loss(found, wanted, where)) == pytest.approx(float(sum(squares)) / len(pairs))
    assert float(offset_loss(found[:, :2], wanted[:, :2], where)) == pytest.approx(float(sum(lengths)) / len(pairs))
    nowhere = torch.zeros_like(where)
    assert float(centre_loss(found, wanted, nowhere)) == float(offset_loss(found[:, :2], wanted[:, :2], nowhere)) == 0


def test_pixels_know_their_centres_and_equal_distances_go_to_the_first_place() -> None:
    assert centres_of_pixels(2, 3)[:, 1, 2].tolist() == [2.5, 1.5]
    pointed = torch.tensor([[0.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    assert nearest(pointed, torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])).tolist() == [0, 0, 1, 1]


def test_the_class_network_learns_points_absent_classes_and_background() -> None:
    """Three losses of two classes, in closed form: constant chances but for one pixel."""
    logits = torch.zeros(1, 3, 10, 10, dtype=torch.float64)
    logits[0, 1, 4, 6] = math.log(8)  # .1, .8, .1 where the point lies
    losses = class_losses(logits, [sample(10, [(6.7, 4.2, 0)], classes=2)], ClassMapsConfig(radius=0.2, spared=2))
    assert float(losses["points"]) == pytest.approx(-math.log(0.8))
    assert float(losses["absent"]) == pytest.approx((99 * -math.log(2 / 3) - math.log(0.9)) / 100)
    assert float(losses["background"]) == pytest.approx(math.log(3))  # the point's own pixel is among those spared
    weights = ClassMapsConfig(absent=3, background=0, radius=0.2)
    other = class_losses(logits, [sample(10, [(6.7, 4.2, 0)], classes=2)], weights)
    assert float(other["absent"]) == pytest.approx(3 * float(losses["absent"]))
    assert float(other["background"]) == 0


def test_a_class_of_the_image_is_not_absent_from_a_crop_without_its_point() -> None:
    shown = sample(8, [(-5.0, 3.0, 1)], classes=2)
    losses = class_losses(torch.zeros(1, 3, 8, 8), [shown], ClassMapsConfig())
    assert float(losses["points"]) == 0
    assert float(losses["absent"]) == pytest.approx(-math.log(2 / 3))


def test_what_is_spared_is_what_looks_most_like_objects() -> None:
    costs = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    assert float(easiest(costs, share=0.6)) == 2
    assert float(easiest(costs, share=0.01)) == 1
    inside = torch.zeros(10, 20, dtype=torch.bool)
    inside[:5, :10] = True
    assert disc_share(2, inside, radius=0.1) == pytest.approx(2 * math.pi * 0.25 / 50)
