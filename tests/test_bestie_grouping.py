"""From fields to instances: peaks, groups, scores and mirror images, against brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mal.methods.bestie.config import DetectionConfig
from mal.methods.bestie.grouping import Seen, flip_averaged, instances, of_points, peaks
from mal.methods.bestie.predict import as_coco, to_image
from mal.methods.bestie.reading import read_classes
from tests.bestie_cases import seen

SMALL = DetectionConfig(window=5, peak=0.1)


@given(st.integers(0, 10_000))
def test_peaks_are_what_nothing_in_their_window_exceeds(seed: int) -> None:
    heat = np.random.default_rng(seed).integers(0, 6, (9, 12)) / 5  # with ties
    found = peaks(torch.from_numpy(heat).float(), window=5, least=0.3).tolist()
    highest = [
        (row, column)
        for row, column in np.argwhere(heat > 0.3).tolist()
        if heat[row, column] == heat[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].max()
    ]
    kept: list[tuple[int, int]] = []
    for row, column in sorted(highest, key=lambda place: (-heat[place], place)):
        if all(max(abs(row - r), abs(column - c)) > 2 for r, c in kept):
            kept.append((row, column))
    assert [tuple(place) for place in found] == kept


def test_a_plateau_is_one_peak_and_what_is_no_higher_than_the_threshold_none() -> None:
    heat = torch.zeros(10, 10)
    heat[3:5, 3:5], heat[8, 8] = 0.7, 0.1
    assert peaks(heat, window=5, least=0.1).tolist() == [[3, 3]]
    assert peaks(heat, window=5, least=0.7).tolist() == []
    assert peaks(torch.full((4, 4), -torch.inf), window=5, least=0.1).tolist() == []


def test_each_pixel_of_a_class_goes_to_the_peak_that_it_points_nearest_to() -> None:
    classes = torch.zeros(8, 16, dtype=torch.int64)
    classes[1:7, 1:15] = 2
    known = seen(classes, classes=3)
    known.classes[:, 1:7, 1:15] = torch.tensor([0.1, 0.1, 0.6, 0.2])[:, None, None]
    known.classes[:, 1:7, 8:15] = torch.tensor([0.1, 0.0, 0.8, 0.1])[:, None, None]
    known.centres[1, 3, 3], known.centres[1, 4, 12] = 0.5, 0.9
    known.centres[0, 3, 7] = 5.0  # of another class than the pixel there
    known.centres[1, 0, 15] = 5.0  # of no pixel of the class
    known.offsets[0, 1:7, 8:10] = -6.0  # these point to the left
    found = instances(known, SMALL)
    left = torch.zeros_like(classes, dtype=torch.bool)
    left[1:7, 1:10] = True
    right = (classes == 2) & ~left
    assert found.labels.tolist() == [1, 1]
    assert torch.equal(found.masks, torch.stack([right, left]))
    mean = (7 * 0.6 + 2 * 0.8) / 9
    assert found.scores.tolist() == pytest.approx([0.9 * 0.8, 0.5 * mean])


def test_a_class_without_a_peak_gives_nothing_and_a_height_above_one_counts_as_one() -> None:
    classes = torch.zeros(6, 6, dtype=torch.int64)
    classes[:3], classes[3:] = 1, 2
    known = seen(classes, classes=2)
    assert len(instances(known, SMALL).masks) == 0
    known.centres[0, 1, 1] = 1.7
    found = instances(known, SMALL)
    assert (found.labels.tolist(), found.scores.tolist()) == ([0], [1.0])
    assert torch.equal(found.masks[0], classes == 1)


def test_the_best_are_kept_where_there_are_too_many() -> None:
    classes = torch.ones(3, 30, dtype=torch.int64)
    known = seen(classes, classes=1)
    for place, height in ((2, 0.3), (12, 0.9), (22, 0.6)):
        known.centres[0, 1, place] = height
    assert instances(known, DetectionConfig(window=5, max_detections=2)).scores.tolist() == pytest.approx([0.9, 0.6])


def test_a_mirror_image_is_turned_back_and_its_offsets_too() -> None:
    generator = torch.Generator().manual_seed(0)
    one = Seen(*(torch.rand(count, 3, 5, generator=generator) for count in (3, 2, 2)))
    mirrored = Seen(
        one.classes.flip(-1), one.centres.flip(-1), one.offsets.flip(-1) * torch.tensor([-1, 1])[:, None, None]
    )
    found = flip_averaged(one, mirrored)
    for name in ("classes", "centres", "offsets"):
        assert torch.equal(getattr(found, name), getattr(one, name))
    other = Seen(mirrored.classes, mirrored.centres, torch.zeros(2, 3, 5))
    assert torch.equal(flip_averaged(one, other).offsets, one.offsets / 2)


def test_known_objects_share_the_pixels_of_their_class() -> None:
    """Brute force: each pixel of a class, classes without a point left out, to the point it points nearest to."""
    generator = torch.Generator().manual_seed(2)
    known = Seen(
        torch.rand(4, 7, 9, generator=generator).softmax(dim=0),
        torch.zeros(3, 7, 9),
        3 * torch.randn(2, 7, 9, generator=generator),
    )
    xy, labels = torch.tensor([[2.0, 2.0], [7.0, 5.0], [4.0, 4.0]]), torch.tensor([2, 2, 0])  # none of class 1
    masks = of_points(known, xy, labels, reach=0)
    assert int(masks.sum(dim=0).max()) == 1
    for row in range(7):
        for column in range(9):
            chance = known.classes[:, row, column].tolist()
            classes = max((1, 3), key=lambda place: chance[place]) if chance[1] + chance[3] > chance[0] else 0
            pointed = torch.tensor([column + 0.5, row + 0.5]) + known.offsets[:, row, column]
            distances = [
                float((point - pointed).norm()) if label + 1 == classes else float("inf")
                for point, label in zip(xy, labels.tolist(), strict=True)
            ]
            owner = None if classes == 0 else int(np.argmin(distances))
            assert masks[:, row, column].nonzero()[:, 0].tolist() == ([] if owner is None else [owner])


def test_points_make_their_classes_likelier_around_them() -> None:
    """Brute force, with a class that has no point and one that the image lacks."""
    chances = torch.rand(5, 6, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    chances /= chances.sum(dim=0)
    present = torch.tensor([True, True, True, False])
    points = {0: [(1.0, 1.0), (7.0, 5.0)], 1: [(4.0, 3.0)], 2: []}
    xy = torch.tensor([place for places in points.values() for place in places])
    found = read_classes(chances, present, xy, torch.tensor([0, 0, 1]), reach=2.5)
    for row in range(6):
        for column in range(8):
            chance = chances[:, row, column].tolist()
            weighed = {}
            for label, places in points.items():
                squares = [(column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 for x, y in places] or [0.0]
                weighed[label + 1] = chance[label + 1] * math.exp(-min(squares) / (2 * 2.5**2))
            background = chance[0] >= sum(chance[1:4])
            assert int(found[row, column]) == (0 if background else max(weighed, key=lambda label: weighed[label]))
    plain = read_classes(chances, present, xy, torch.tensor([0, 0, 1]), reach=0)
    assert int((plain != found).sum()) > 0


def test_an_object_whose_class_is_nowhere_has_an_empty_mask() -> None:
    known = seen(torch.ones(4, 4, dtype=torch.int64), classes=2)
    masks = of_points(known, torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([0, 1]), reach=0)
    assert masks.flatten(1).sum(dim=1).tolist() == [16, 0]


def test_masks_go_back_to_their_image_disjoint_and_with_tight_boxes() -> None:
    classes = torch.zeros(4, 8, dtype=torch.int64)
    classes[1:3, 2:6] = 1
    known = seen(classes, classes=1)
    known.centres[0, 1, 2], known.centres[0, 1, 5] = 0.5, 0.4
    found = instances(known, DetectionConfig(window=3))
    entry = {"id": 7, "height": 8, "width": 16}
    results = as_coco(entry, found, [30])
    assert [result["bbox"] for result in results] == [[4, 2, 4, 4], [8, 2, 4, 4]]
    assert [(result["category_id"], result["image_id"]) for result in results] == [(30, 7)] * 2
    assert results[0]["segmentation"]["size"] == [8, 16]
    assert int(to_image(found.masks, entry).sum(dim=0).max()) == 1
    assert to_image(found.masks, {"height": 4, "width": 8}) is found.masks
    assert as_coco(entry, instances(seen(classes, classes=1), SMALL), [30]) == []
