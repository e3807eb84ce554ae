"""Splits into base and novel classes, of papers and ours."""

from itertools import pairwise

import pytest
from omegaconf import OmegaConf

from mal.data import shapes12
from mal.data.annotations import read
from mal.data.class_maps import class_list
from mal.errors import ConfigError
from mal.methods.simformer.splits import FILE, novel_of

SPLITS = OmegaConf.to_container(OmegaConf.load(FILE))
COCO = SPLITS["coco_stuff_10k"]["classes"]
NINE = tuple(f"S{number}" for number in range(1, 10))


@pytest.mark.parametrize(
    ("data", "classes", "sizes"),
    [
        ("coco_stuff_10k", 171, dict(zip(NINE, (43, 43, 43, 43, 51, 59, 68, 76, 85), strict=True))),
        ("ade20k_150", 150, dict.fromkeys(NINE[:4], 38)),
        ("car_parts", 18, {"P1": 5, "P2": 5, "P3": 4, "P4": 4, "D4": 4, "D6": 6, "D8": 8, "D9": 9}),
        ("shapes12", 12, {"P1": 3, "P2": 3, "P3": 3, "P4": 3, "D3": 3, "D4": 4, "D5": 5, "D6": 6}),
        ("coco_groups", 12, {"P1": 3, "P2": 3, "P3": 3, "P4": 3}),
    ],
)  # fmt: skip
def test_splits_have_as_many_classes_as_published(data: str, classes: int, sizes: dict[str, int]) -> None:
    names = SPLITS[data]["classes"]
    assert len({*names}) == classes
    found = {split: novel_of(names, split) for split in SPLITS[data]["novel"]}
    assert {split: len({*places}) for split, places in found.items()} == sizes
    assert all(list(places) == sorted(places) and {*places} <= {*range(classes)} for places in found.values())


def test_the_larger_splits_of_coco_follow_its_order() -> None:
    order = SPLITS["coco_stuff_10k"]["order"]
    counts = [43, *(int(171 * share) for share in (0.30, 0.35, 0.40, 0.45, 0.50))]
    for split, count in zip(("S4", "S5", "S6", "S7", "S8", "S9"), counts, strict=True):
        assert novel_of(COCO, split) == tuple(sorted(order[:count]))


@pytest.mark.parametrize("data", ["car_parts", "shapes12", "coco_groups"])
def test_our_folds_are_disjoint_and_hold_every_class(data: str) -> None:
    names = SPLITS[data]["classes"]
    folds = [place for fold in ("P1", "P2", "P3", "P4") for place in novel_of(names, fold)]
    assert sorted(folds) == list(range(len(names)))


@pytest.mark.parametrize("data", ["car_parts", "shapes12"])
def test_our_larger_splits_hold_the_smaller(data: str) -> None:
    names = SPLITS[data]["classes"]
    nested = [{*novel_of(names, split)} for split in SPLITS[data]["novel"] if split.startswith("D")]
    assert all(small < large for small, large in pairwise(nested))


def test_the_ground_is_a_base_class() -> None:
    names = SPLITS["car_parts"]["classes"]
    assert novel_of([*names, "ground"], "P1") == novel_of(names, "P1") == (0, 2, 3, 10, 12)


def test_the_classes_of_shapes12_and_of_coco_are_those_of_their_splits(coco_mini) -> None:
    assert list(shapes12.CATEGORIES) == SPLITS["shapes12"]["classes"]
    coco = read(coco_mini / "annotations" / "instances_train2017_mini.json", masks=False)
    assert class_list(coco, ground="ignored", groups=True)[0] == SPLITS["coco_groups"]["classes"]


def test_novel_classes_can_be_named() -> None:
    assert novel_of(["sky", "dog", "cat"], ["cat", "sky"]) == (0, 2)


@pytest.mark.parametrize(
    ("classes", "split", "message"),
    [
        (COCO, "S10", "no split 'S10' of these 171 classes; choose one of S1, S2, S3, S4, S5, S6, S7, S8, S9, or name"),
        (["sky", "dog"], "S1", r"its 2 classes \(sky, dog\) are those of none of coco_stuff_10k, .*; name the novel"),
        (COCO[1:], "S1", r"nearest to coco_stuff_10k, lacking person\); .* with simformer\.split\.classes=\["),
        (COCO[::-1], "S1", r"nearest to coco_stuff_10k, in another order"),
        ([*COCO, "unlabeled"], "S1", r"nearest to coco_stuff_10k, beside it unlabeled"),
        (
            ["sky", "dog"],
            ["bird"],
            r"there is no class 'bird' for simformer\.split\.classes=\[…\]; the data has sky, dog",
        ),
        (["sky", "dog"], [], "0 of the 2 classes are named as novel"),
        (["sky", "dog"], ["sky", "dog"], "2 of the 2 classes are named as novel with .*; name at least one, and leave"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(classes: list[str], split: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        novel_of(classes, split)
