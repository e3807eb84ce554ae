"""Pictures of AttentionShift's steps: the right objects, in their places, as the steps and the labeler made them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from mal.config import Config
from mal.data.mask_formats import decode_mask
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError
from mal.methods.attentionshift import label, looks
from mal.methods.attentionshift.checkpoint import Trained
from mal.request import Graph
from tests.attentionshift_cases import SMOKE, draw, points_of, untrained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def config(compose) -> Config:
    return compose(*SMOKE, "attentionshift.looks.examples=4", "attentionshift.looks.rounds=[0,3]")


@pytest.fixture(scope="module")
def coco(drawn: Path) -> dict:
    return points_of(drawn)


@pytest.fixture(scope="module")
def trained(config: Config, coco: dict) -> Trained:
    return untrained(config, coco)


@pytest.fixture(scope="module")
def arrays(trained: Trained, config: Config, coco: dict, drawn: Path) -> dict[str, np.ndarray]:
    return looks.looks(trained, config, coco, drawn / "images", CPU)


def test_objects_at_equal_steps_of_the_file_are_shown_with_their_points(arrays, coco: dict) -> None:
    every = [annotation["id"] for annotation in coco["annotations"]]
    assert arrays["ids"].tolist() == [every[round(i * (len(every) - 1) / 3)] for i in range(4)]
    points = {annotation["id"]: annotation["point"] for annotation in coco["annotations"]}
    for number, window, share in zip(arrays["ids"].tolist(), arrays["windows"], arrays["points"], strict=True):
        np.testing.assert_allclose(window[:2] + share * (window[2:] - window[:2]), points[number], atol=1e-3)


def test_the_masks_are_the_labelers(arrays, trained: Trained, config: Config, coco: dict, drawn: Path) -> None:
    made = label.labeler(trained, config, CPU)(coco, drawn / "images")
    assert arrays["mask"].any()
    for number, window, mask in zip(arrays["ids"].tolist(), arrays["windows"], arrays["mask"], strict=True):
        whole = decode_mask(made[number]["segmentation"], height=96, width=96)
        side = len(mask)
        for row, column in itertools.product(range(0, side, 7), repeat=2):
            x, y = (int(np.floor(window[i] + (at + 0.5) / side * (window[i + 2] - window[i])))
                    for i, at in ((0, column), (1, row)))  # fmt: skip
            inside = 0 <= x < 96 and 0 <= y < 96
            assert mask[row, column] == (inside and whole[y, x])


def test_parts_fill_up_from_the_largest_and_key_points_lie_in_the_box(arrays, config: Config) -> None:
    most = config.attentionshift.steps.parts.most
    assert arrays["rounds"].tolist() == [0, 3]
    assert arrays["parts"].shape[:3] == (4, 2, most)
    assert arrays["found"].max() > 0
    for place, number in itertools.product(range(4), range(2)):
        count = arrays["found"][place, number]
        assert count <= most
        assert not arrays["parts"][place, number, count:].any()
        points = arrays["key_points"][place, number]
        assert np.isnan(points[count:]).all()
        x0, y0, x1, y1 = arrays["boxes"][place]
        for x, y in points[~np.isnan(points).any(1)]:
            assert x0 - 1e-4 <= x <= x1 + 1e-4
            assert y0 - 1e-4 <= y <= y1 + 1e-4
    assert arrays["foreground"].max() == 255
    assert arrays["attention"].max() > 200


@pytest.mark.parametrize("box", [[0, 0, 95, 63], [80, 10, 95, 20], [30, 30, 40, 50], [0, 60, 0, 60]])
def test_a_window_is_a_square_around_its_box_and_leaves_the_image_only_where_it_is_too_narrow(box) -> None:
    for size in ((96, 64), (64, 96), (200, 200)):
        x0, y0, x1, y1 = looks._window(torch.tensor(box, dtype=torch.float32), size).tolist()
        side = x1 - x0
        assert y1 - y0 == side <= max(size)
        for low, length in ((x0, size[0]), (y0, size[1])):
            assert (low >= 0 and low + side <= length) or (side > length and low == (length - side) // 2)
        if size == (200, 200):
            assert x0 <= box[0] <= box[2] <= x1
            assert y0 <= box[1] <= box[3] <= y1


def test_nothing_to_show_is_said(trained: Trained, config: Config, coco: dict, drawn: Path) -> None:
    with pytest.raises(AnnotationError, match="no validation image has a point"):
        looks.looks(trained, config, {**coco, "annotations": []}, drawn / "images", CPU)


def test_the_stage_is_there_where_it_is_asked_for_and_changes_no_other(compose, tmp_path: Path) -> None:
    def stages(*more: str) -> dict[str, str]:
        graph = Graph(compose(*SMOKE, *more), Store(tmp_path), CPU)
        return {stage.name: stage.key for stage in in_order(graph.targets())}

    plain, shown, fewer = (
        stages(), stages("attentionshift.looks.enabled=true"),
        stages("attentionshift.looks.enabled=true", "attentionshift.looks.rounds=[0,10]"),
    )  # fmt: skip
    assert "parts_val" not in plain
    assert {name: key for name, key in shown.items() if name != "parts_val"} == plain
    assert shown["parts_val"] != fewer["parts_val"]
    with pytest.raises(ConfigError, match=r"looks\.rounds.*rising numbers"):
        compose(*SMOKE, "attentionshift.looks.rounds=[5,1]")
