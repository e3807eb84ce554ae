"""Large-scale jitter: squares at any scale in which objects lie where their masks and boxes say."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.data.annotations import read
from mal.errors import ConfigError
from mal.segmenters.config import ScaleConfig, SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.crop import GREY, padded
from mal.segmenters.data import TrainingSet
from tests.test_segmenter import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 64 × 64 with a red and a blue ellipse each."""
    return make_dataset(tmp_path_factory.mktemp("jitter") / "data", images=4)


def jittered(dataset: Path, low: float, high: float, *, side: int = 64, masks: bool = True) -> TrainingSet:
    scale = ScaleConfig(short_sides=[side], long_side=side, jitter=[low, high])
    coco = read(dataset / "annotations.json", masks=True)
    return TrainingSet(coco, images=dataset / "images", scale=scale, seed=0, masks=masks, class_agnostic=False)


@given(height=st.integers(0, 20), width=st.integers(0, 20), fill=st.integers(0, 255))
def test_padding_fills_to_the_right_and_below(height: int, width: int, fill: int) -> None:
    maps = torch.randint(0, 256, (2, height, width), dtype=torch.uint8)
    square = padded(maps, (20, 20), fill)
    assert square.shape == (2, 20, 20)
    assert torch.equal(square[:, :height, :width], maps)
    assert (square[:, height:] == fill).all()
    assert (square[:, :, width:] == fill).all()


@settings(deadline=None, max_examples=60)
@given(epoch=st.integers(0, 10_000), index=st.integers(0, 3), side=st.sampled_from([32, 48, 96]))
def test_objects_lie_where_their_masks_and_boxes_say(dataset: Path, epoch: int, index: int, side: int) -> None:
    sample = jittered(dataset, 0.3, 2.0, side=side)[epoch, index]
    assert sample.image.shape == (3, side, side)
    assert sample.masks.shape == (len(sample.labels), side, side)
    assert len(sample.boxes_xyxy) == len(sample.labels)
    outside = (sample.image == GREY).all(dim=0)
    for box, mask, label in zip(sample.boxes_xyxy, sample.masks, sample.labels, strict=True):
        assert (box[2:] - box[:2] > 0).all()
        assert -1e-3 < box.min() <= box.max() < side + 1e-3
        if not mask.any():  # the corner of an ellipse's box
            continue
        rows, columns = mask.nonzero().unbind(1)
        extent = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (extent - box)[:2].min() >= -2  # a pixel of the original may be two here
        assert (box - extent)[2:].min() >= -2
        assert not (mask.bool() & outside).any()
        red, _, blue = sample.image[:, mask.bool()].float().mean(dim=1).tolist()
        assert (red > blue) == (label == 1)


def test_both_scales_and_all_places_are_seen(dataset: Path) -> None:
    samples = [jittered(dataset, 0.25, 2.0)[epoch, epoch % 4] for epoch in range(40)]
    shares = [(sample.image != GREY).any(dim=0).float().mean().item() for sample in samples]
    assert min(shares) < 0.2  # padded
    assert sum(share > 0.95 for share in shares) > 10  # and cropped
    assert {len(sample.labels) for sample in samples} >= {1, 2}  # which may leave an object out


def test_the_factor_one_changes_nothing(dataset: Path) -> None:
    plain, jitter = jittered(dataset, 1, 1), jittered(dataset, 1, 1)
    plain.scale.jitter = []
    for index in range(4):
        first, second = plain[0, index], jitter[0, index]
        for name in ("image", "masks", "boxes_xyxy", "labels"):
            assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_large_image_is_shrunk_into_the_square_and_the_rest_is_grey(dataset: Path) -> None:
    sample = jittered(dataset, 0.5, 0.5)[0, 2]
    assert (sample.image[:, 32:] == GREY).all()
    assert (sample.image[:, :, 32:] == GREY).all()
    assert sample.boxes_xyxy.max() <= 32
    assert sample.masks[:, 32:].sum() == sample.masks[:, :, 32:].sum() == 0


def test_which_objects_stay_does_not_depend_on_masks(dataset: Path) -> None:
    with_masks, without = jittered(dataset, 0.25, 2.0), jittered(dataset, 0.25, 2.0, masks=False)
    for epoch in range(8):
        first, second = with_masks[epoch, 1], without[epoch, 1]
        assert second.masks.shape == (0, 64, 64)
        for name in ("image", "boxes_xyxy", "labels"):
            assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("jitter", [[0.5], [2.0, 0.5], [0.0, 1.0], [0.1, 1.0, 2.0]])
def test_a_jitter_that_is_no_range_is_refused(jitter: list[float]) -> None:
    config = SegmenterConfig(backend="torchvision")
    config.scale.jitter = jitter
    with pytest.raises(ConfigError, match=r"segmenter\.scale\.jitter=.*lowest and the highest factor"):
        check(config)


def test_jitter_and_crops_together_are_refused() -> None:
    config = SegmenterConfig(backend="torchvision")
    config.scale.jitter, config.scale.crop = [0.1, 2.0], 0.5
    with pytest.raises(ConfigError, match=r"segmenter\.scale\.jitter crops by itself; set segmenter\.scale\.crop=0"):
        check(config)
