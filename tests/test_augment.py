"""Photometrics, operation by operation, against torchvision's."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from mal.data.rois import PHOTOMETRIC_DRAWS
from mal.methods.mal import augment
from mal.methods.mal.config import AugmentConfig

NEVER = AugmentConfig([0.4, 0.4, 0.2, 0.1], 0.0, 0.0, [0.1, 2.0], 0.0)
ALWAYS = AugmentConfig([0.4, 0.4, 0.2, 0.1], 1.0, 1.0, [0.1, 2.0], 1.0)
USUAL = AugmentConfig([0.4, 0.4, 0.2, 0.1], 0.5, 0.2, [0.1, 2.0], 0.5)


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (augment.adjust_brightness, reference.adjust_brightness, [0.6, 1.0, 1.2, 1.4]),
        (augment.adjust_contrast, reference.adjust_contrast, [0.6, 1.0, 1.2, 1.4]),
        (augment.adjust_saturation, reference.adjust_saturation, [0.0, 0.8, 1.0, 1.2]),
        (augment.shift_hue, reference.adjust_hue, [-0.1, 0.0, 0.05, 0.5]),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_each_operation_is_torchvisions(ours, theirs, amounts):
    batch = images()
    found = ours(batch, torch.tensor(amounts))
    for image, amount, result in zip(batch, amounts, found, strict=True):
        torch.testing.assert_close(result, theirs(image, amount), atol=2e-4, rtol=0)


def test_blur_is_torchvisions_with_one_sigma_an_image():
    batch, sigmas = images(3), [0.3, 1.0, 2.0]
    found = augment.gaussian_blur(batch, torch.tensor(sigmas), largest=2.0)
    for image, sigma, result in zip(batch, sigmas, found, strict=True):
        torch.testing.assert_close(result, reference.gaussian_blur(image, [13, 13], [sigma, sigma]), atol=1e-5, rtol=0)


def test_grey_is_torchvisions():
    batch = images()
    torch.testing.assert_close(augment.to_grey(batch), reference.rgb_to_grayscale(batch, 1), atol=1e-4, rtol=0)


def test_without_chance_nothing_changes():
    batch = images()
    assert torch.equal(augment.photometrics(batch, torch.rand(4, PHOTOMETRIC_DRAWS), NEVER), batch)


@pytest.mark.parametrize("config", [USUAL, ALWAYS, NEVER], ids=["usual", "always", "never"])
@pytest.mark.parametrize("size", [(20, 24), (5, 9)])
def test_all_at_once_is_one_after_the_other(config, size):
    """The form for GPUs; a side of 5 has less room than the blur's reach."""
    generator = torch.Generator().manual_seed(2)
    batch, draws = (
        torch.rand(32, 3, *size, generator=generator),
        torch.rand(32, PHOTOMETRIC_DRAWS, generator=generator),
    )
    found = augment.photometrics_of_all(batch, draws, config)
    torch.testing.assert_close(found, augment.photometrics(batch, draws, config), atol=2e-6, rtol=0)


def test_strengths_of_zero_are_left_out_of_both_forms():
    config = AugmentConfig([0.4, 0.0, 0.0, 0.1], 1.0, 0.0, [0.1, 2.0], 0.0)
    batch, draws = images(), torch.rand(4, PHOTOMETRIC_DRAWS, generator=torch.Generator().manual_seed(3))
    found = augment.photometrics_of_all(batch, draws, config)
    torch.testing.assert_close(found, augment.photometrics(batch, draws, config), atol=1e-6, rtol=0)


def test_what_happens_to_an_image_depends_on_its_own_draws_alone():
    batch, draws = images(6), torch.rand(6, PHOTOMETRIC_DRAWS, generator=torch.Generator().manual_seed(1))
    together = augment.photometrics(batch, draws, USUAL)
    for i in range(6):
        alone = augment.photometrics(batch[i : i + 1], draws[i : i + 1], USUAL)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_always_grey_has_equal_channels_in_range():
    found = augment.photometrics(images(), torch.rand(4, PHOTOMETRIC_DRAWS), ALWAYS)
    torch.testing.assert_close(found[:, 0], found[:, 2])
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_jitter_of_the_input_is_not_done_in_place():
    batch = images()
    before = batch.clone()
    augment.photometrics(batch, torch.rand(4, PHOTOMETRIC_DRAWS), ALWAYS)
    assert torch.equal(batch, before)
