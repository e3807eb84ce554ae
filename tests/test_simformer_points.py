"""Which pixels SimLoss and DistLoss compare."""

from collections import Counter

import pytest
import torch

from mal.data.semantic import IGNORED
from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.data import Batch
from mal.methods.simformer.points import STRIDE, draw, draw_points, hidden_anywhere, hidden_inside, shared_class
from tests.simformer_cases import base_of

SIDE = 16  # cells
PAPER = DistillationConfig()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*maps: torch.Tensor, tags: list[list[int]], size: tuple[int, int] = (SIDE, SIDE), truth=None) -> Batch:
    """Of maps of cells (h, w), each as many pixels as the stride says, padded to `size` cells; the first two paired."""
    labels = torch.full((len(maps), size[0] * STRIDE, size[1] * STRIDE), IGNORED)
    inside = torch.zeros_like(labels).bool()
    for slot, real, cells in zip(labels, inside, maps, strict=True):
        height, width = (STRIDE * side for side in cells.shape)
        slot[:height, :width] = cells.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1)
        real[:height, :width] = True
    images = torch.zeros(len(maps), 3, *labels.shape[1:])
    return Batch(images, labels, inside, truth, base_of(labels), tags, list(range(len(maps))), [(0, 1)])


def halves(left: int, right: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    cells = torch.full((height, width), left)
    cells[:, width // 2 :] = right
    return cells


def points(there: Batch, count: int = 100, seed: int = 0, distillation: DistillationConfig = PAPER):
    (found,) = draw_points(there, PairsConfig(points=count), distillation, generator(seed))
    return found


def test_eighty_points_lie_on_the_class_in_common_and_twenty_elsewhere():
    there = batch(halves(0, 1), halves(IGNORED, 1), tags=[[], []])
    for seed in range(5):
        found = points(there, seed=seed)
        assert [Counter(labels.tolist()) for labels in found.labels] == [{1: 80, 0: 20}, {1: 80, IGNORED: 20}]
        assert all(len(set(places.tolist())) == 100 for places in found.places)


def test_places_are_where_their_labels_say():
    there = batch(halves(0, 1), halves(2, 1), tags=[[], []])
    found = points(there)
    for image, places, labels in zip(found.images, found.places, found.labels, strict=True):
        rows, columns = places // SIDE, places % SIDE
        assert torch.equal(there.labels[image, STRIDE * rows, STRIDE * columns], labels)


def test_every_class_in_common_is_drawn_and_no_other():
    first, second = torch.tensor([0, 1, 2, 5, IGNORED]), torch.tensor([2, 5, 7, IGNORED])
    assert {shared_class(first, second, generator(seed)) for seed in range(30)} == {2, 5}


def test_without_a_class_in_common_eighty_lie_on_any_base_class():
    found = points(batch(halves(0, IGNORED), halves(1, IGNORED), tags=[[], []]))
    assert [Counter(labels.tolist()) for labels in found.labels] == [{0: 80, IGNORED: 20}, {1: 80, IGNORED: 20}]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("height", "width"), [(16, 5), (3, 16), (2, 3), (1, 1)])
def test_no_point_of_simloss_or_distloss_lies_on_padding(height, width, seed):
    cells = torch.randint(0, 3, (height, width), generator=generator(seed))
    cells[cells == 2] = IGNORED
    found = points(batch(cells, halves(0, IGNORED), tags=[[3], [3]]), seed=seed)
    for places in (found.places[0], found.hidden[0]):
        assert bool((places // SIDE < height).all())
        assert bool((places % SIDE < width).all())
    assert all(len(places) == 100 for places in found.places)


def test_a_short_region_is_filled_up_from_the_other_and_both_from_themselves():
    first, second = torch.zeros(40).bool(), torch.zeros(40).bool()
    first[:3], second[10:20] = True, True
    found = draw((first, second), 12, first=8, generator=generator())
    assert Counter((found < 3).tolist()) == {True: 3, False: 9}
    assert len(set(found.tolist())) == 12
    found = draw((first, second), 12, first=2, generator=generator())
    assert Counter((found < 3).tolist()) == {True: 2, False: 10}
    found = draw((first, second), 26, first=20, generator=generator())
    assert set(Counter(found.tolist()).values()) == {2}
    assert len(set(found.tolist())) == 13


def test_distillation_takes_hidden_pixels_of_the_image_alone():
    labels, inside = torch.tensor([IGNORED, 0, IGNORED, 1, IGNORED]), torch.tensor([1, 1, 1, 1, 0]).bool()
    assert sorted(hidden_inside(labels, inside, 5, generator()).tolist()) == [0, 2]
    assert len(hidden_inside(labels, inside, 1, generator())) == 1


def test_as_released_distillation_takes_padding_too_and_fills_up_with_any_pixel():
    labels, inside = torch.tensor([IGNORED, 0, IGNORED, 1, IGNORED]), torch.tensor([1, 1, 1, 1, 0]).bool()
    assert {0, 2, 4} == set(hidden_anywhere(labels, inside, 3, generator()).tolist())
    assert sorted(hidden_anywhere(labels, inside, 5, generator()).tolist()) == [0, 1, 2, 3, 4]
    assert len(hidden_anywhere(labels, inside, 8, generator())) == 8


@pytest.mark.parametrize(
    ("tags", "weight", "drawn"), [([[3], [4]], 0.1, False), ([[3, 4], [4]], 0.1, True), ([[3], [3]], 0, False)]
)
def test_distillation_is_for_images_that_share_a_novel_class(tags, weight, drawn):
    there = batch(halves(0, IGNORED), halves(0, IGNORED), tags=tags)
    found = points(there, distillation=DistillationConfig(weight=weight))
    assert (found.hidden is not None) == drawn


def test_released_points_differ_from_the_papers_by_the_padding():
    there = batch(halves(0, IGNORED, width=4), halves(0, IGNORED), tags=[[3], [3]])
    released = points(there, distillation=DistillationConfig(points="released")).hidden
    assert [len(places) for places in released] == [100, 100]
    assert bool((released[0] % SIDE >= 4).any())
    assert [len(places) for places in points(there).hidden] == [32, 100]


def test_an_image_paired_with_itself_gets_two_draws():
    there = batch(halves(0, IGNORED), tags=[[3]])
    there.pairs = [(0, 0)]
    found = points(there)
    assert not torch.equal(*found.places)
    assert not torch.equal(*found.hidden)


def test_the_same_generator_draws_the_same_points_and_they_move_with_their_labels():
    there = batch(halves(0, 1), halves(IGNORED, 1), tags=[[3], [3]])
    first, second = points(there, seed=4).to(torch.device("cpu")), points(there, seed=4)
    assert all(
        torch.equal(a, b)
        for name in ("places", "labels", "hidden")
        for a, b in zip(getattr(first, name), getattr(second, name), strict=True)
    )
    assert not torch.equal(points(there, seed=5).places[0], first.places[0])


def test_hidden_classes_are_read_for_every_fifth_point_where_they_are_known():
    there = batch(halves(0, IGNORED), halves(IGNORED, 1), tags=[[], []])
    assert points(there).truth is None
    there.truth = batch(halves(0, 3), halves(4, 1), tags=[[], []]).labels
    found = points(there, count=20)
    for labels, truth, hidden in zip(found.labels, found.truth, (3, 4), strict=True):
        assert torch.equal(truth, torch.where(labels == IGNORED, hidden, labels)[::5])
