"""What training shows of an image."""

import cv2
import numpy as np
import pytest
import torch

from mal.data.semantic import IGNORED
from mal.engine.runtime import numpy_generator
from mal.methods.simformer import augment
from mal.methods.simformer.augment import augmented, batch_size, crop, scale_saturation, ssd_colour
from mal.methods.simformer.config.augment import AugmentConfig, reads_truth

STILL = {"colour": False, "flip": 0.0}


def image(height: int = 30, width: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def labels(height: int = 30, width: int = 40) -> torch.Tensor:
    return (torch.arange(height)[:, None] // 10 * 4 + torch.arange(width) // 10).to(torch.uint8)


def only(config: str) -> AugmentConfig:
    """One of the four colours, by a fixed amount."""
    fixed = {"brightness": 0.0, "contrast": [1.0, 1.0], "saturation": [1.0, 1.0], "hue": 0.0}
    return AugmentConfig(
        **{**fixed, config: {"brightness": 32.0, "contrast": [1.4] * 2, "saturation": [1.5] * 2}[config]},
        colour_chance=1.0,
    )


def test_a_whole_image_keeps_its_labels_and_fits_its_side():
    found, (shown,) = augmented(
        image(),
        [labels()],
        tagged=False,
        config=AugmentConfig(side=60, crop=False, **STILL),
        generator=numpy_generator(0),
    )
    assert found.shape == (3, 60, 80)
    assert torch.equal(shown, labels().repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_the_long_side_has_a_bound():
    config = AugmentConfig(side=60, long_side=20, crop=False, **STILL)
    found, (shown,) = augmented(image(), [labels()], tagged=False, config=config, generator=numpy_generator(0))
    assert found.shape[1:] == shown.shape == (15, 20)


def test_every_scale_is_drawn_and_crops_are_never_larger_than_their_side():
    config = AugmentConfig(side=20, scales=[0.5, 1.0, 2.0], **STILL)
    shapes = {
        tuple(
            augmented(image(20, 40), [labels(20, 40)], tagged=True, config=config, generator=numpy_generator(i))[1][
                0
            ].shape
        )
        for i in range(30)
    }
    assert shapes == {(10, 20), (20, 20)}


def test_image_and_maps_are_cropped_and_flipped_together():
    values = labels()
    picture = values[None].repeat(3, 1, 1) * 10
    config = AugmentConfig(side=30, scales=[1.0], colour=False, flip=0.5)
    flips = set()
    for number in range(20):
        found, maps = augmented(
            picture, [values, values], tagged=True, config=config, generator=numpy_generator(number)
        )
        assert torch.equal(found[1], maps[0] * 10)
        assert torch.equal(maps[0], maps[1])
        flips.add(bool(maps[0][0, 0] > maps[0][0, -1]))
    assert flips == {True, False}


def corner(hidden: int = IGNORED) -> list[torch.Tensor]:
    """A base pixel in one corner, and the same map with another class in the opposite one."""
    weak = torch.full((12, 12), IGNORED, dtype=torch.uint8)
    weak[0, 0] = 1
    truth = weak.clone()
    truth[-1, -1] = hidden
    return [weak, truth]


def seen(maps: list[torch.Tensor], *, tagged: bool, trials: int = 30, **config) -> list[tuple[bool, bool]]:
    """Of several crops: whether they show the base pixel, and the opposite corner."""
    settings, found = AugmentConfig(side=9, scales=[1.0], tries=200, **config), []
    for number in range(trials):
        view, _ = crop(maps, tagged=tagged, config=settings, generator=numpy_generator(number))
        assert (view.width, view.height) == (9, 9)
        found.append(((view.left, view.top) == (0, 0), (view.left, view.top) == (3, 3)))
    return found


def test_a_crop_of_an_image_without_tags_is_redrawn_until_it_shows_a_base_pixel():
    assert set(seen(corner(), tagged=False)) == {(True, False)}
    assert (False, False) in seen(corner(), tagged=True)


def test_as_released_a_hidden_pixel_will_do_and_tags_do_not():
    assert set(seen(corner(2), tagged=True, redraw="released")) == {(True, False), (False, True)}
    assert set(seen(corner(2), tagged=False)) == {(True, False)}


def test_crops_are_redrawn_as_often_as_it_says():
    nothing = torch.full((12, 12), IGNORED, dtype=torch.uint8)
    config, generator = AugmentConfig(side=9, tries=7), numpy_generator(0)
    crop([nothing], tagged=False, config=config, generator=generator)
    counted = numpy_generator(0)
    for _ in range(14):
        counted.integers(4)
    assert generator.integers(1 << 30) == counted.integers(1 << 30)


def test_after_some_tries_true_masks_are_learned_where_it_says_so():
    nothing, truth = torch.full((12, 12), IGNORED, dtype=torch.uint8), torch.full((12, 12), 3, dtype=torch.uint8)
    for after, learned in ((None, IGNORED), (2, 3)):
        config = AugmentConfig(side=9, tries=5, true_masks_after=after)
        _, shown = crop([nothing, truth], tagged=False, config=config, generator=numpy_generator(0))
        assert set(shown[0].unique().tolist()) == {learned}


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        ({}, False),
        ({"tags": "crop"}, True),
        ({"redraw": "released"}, True),
        ({"true_masks_after": 30}, True),
        ({"redraw": "released", "crop": False}, False),
    ],
)
def test_the_papers_rules_read_no_hidden_mask(config, reads):
    assert reads_truth(AugmentConfig(**config)) == reads


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.5])
def test_saturation_is_that_of_hsv(factor):
    colours = image().float() / 255
    hsv = cv2.cvtColor(colours.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.minimum(hsv[..., 1] * factor, 1)
    wanted = torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)
    torch.testing.assert_close(scale_saturation(colours, factor), wanted, atol=1e-5, rtol=0)


def test_black_and_grey_have_no_saturation_to_scale():
    grey = torch.tensor([0.0, 0.3, 1.0]).expand(3, 1, 3)
    assert torch.equal(scale_saturation(grey, 1.5), grey)


def test_brightness_moves_all_pixels_by_up_to_its_amount():
    flat, moves = torch.full((3, 2, 2), 100, dtype=torch.uint8), []
    for number in range(200):
        found = ssd_colour(flat, only("brightness"), numpy_generator(number))
        assert len(found.unique()) == 1
        moves.append(int(found[0, 0, 0]) - 100)
    assert min(moves) < -29
    assert max(moves) > 29
    assert all(abs(move) <= 32 for move in moves)


def test_contrast_scales_towards_black_and_is_clipped():
    found = ssd_colour(
        torch.tensor([10, 100, 250], dtype=torch.uint8).view(3, 1, 1), only("contrast"), numpy_generator(0)
    )
    assert found.flatten().tolist() == [14, 140, 255]


def test_hue_turns_by_up_to_a_tenth_of_the_circle():
    config = AugmentConfig(brightness=0, contrast=[1, 1], saturation=[1, 1], colour_chance=1.0)
    red, hues = torch.tensor([200, 0, 0], dtype=torch.uint8).view(3, 1, 1), []
    for number in range(200):
        found = ssd_colour(red, config, numpy_generator(number)).permute(1, 2, 0).numpy()
        hue = int(cv2.cvtColor(found, cv2.COLOR_RGB2HSV)[0, 0, 0])  # of 180
        hues.append(hue - 180 if hue > 90 else hue)
    assert min(hues) < -15
    assert max(hues) > 15
    assert all(abs(hue) <= 18 for hue in hues)


def test_contrast_comes_second_or_last(monkeypatch):
    order: list[str] = []
    real = augment.scale_saturation
    monkeypatch.setattr(augment, "scale_saturation", lambda *a: (order.append("saturation"), real(*a))[1])
    contrast = augment._contrast
    monkeypatch.setattr(augment, "_contrast", lambda *a: (order.append("contrast"), contrast(*a))[1])
    seen = set()
    for number in range(20):
        order.clear()
        ssd_colour(image(), AugmentConfig(colour_chance=1.0), numpy_generator(number))
        seen.add(tuple(order))
    assert seen == {("contrast", "saturation"), ("saturation", "contrast")}


def test_without_chance_no_colour_changes():
    assert torch.equal(ssd_colour(image(), AugmentConfig(colour_chance=0.0), numpy_generator(0)), image())


def test_batches_are_whole_crops_or_just_large_enough():
    assert batch_size([(30, 33), (65, 20)], AugmentConfig(crop=False)) == (96, 64)
    assert batch_size([(30, 33), (20, 20)], AugmentConfig(side=100)) == (128, 128)


def test_the_papers_augmentation_has_its_numbers():
    config = AugmentConfig()
    assert (config.side, config.scales[0], config.scales[-1], config.tries) == (640, 0.5, 2.0, 50)
    assert [round(scale * 10) for scale in config.scales] == list(range(5, 21))
