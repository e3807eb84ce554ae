"""The mean field against a literal per-pixel loop in float64."""

import math

import numpy as np
import pytest
import torch

from mal.methods.mal.config import CrfConfig
from mal.methods.mal.crf import mean_field, offsets, pairwise_kernel

RELEASED = CrfConfig("two_label", 0.1, 1.0, 3, 1, True, 100, "student")
PAPER = CrfConfig("two_label", 0.5, 2.0, 3, 1, False, 100, "student")
DILATED = CrfConfig("two_label", 0.4, 1.5, 3, 2, False, 25, "student")
WIDE = CrfConfig("two_label", 0.4, 0.7, 5, 1, True, 25, "student")
LITERAL = CrfConfig("literal", 0.5, 2.0, 3, 1, False, 20, "student")


def loop(mask: np.ndarray, image: np.ndarray, box: np.ndarray, config: CrfConfig) -> np.ndarray:
    """One image, pixel by pixel, as docs/method/mal.md states it."""
    height, width = mask.shape
    literal = config.form == "literal"

    def neighbours(y: int, x: int):
        for dy, dx in offsets(config):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                gap = float(((image[:, y, x] - image[:, y + dy, x + dx]) ** 2).sum())
                gap = math.sqrt(gap) if literal else gap
                yield y + dy, x + dx, config.omega * math.exp(-gap / (2 * config.zeta**2))

    weights = {(y, x): list(neighbours(y, x)) for y in range(height) for x in range(width)}
    q = mask * box if literal else np.clip(mask * box, 0.1, 0.9)
    for _ in range(config.iterations):
        new = np.zeros_like(q)
        for (y, x), around in weights.items():
            if literal:
                new[y, x] = min(1.0, max(0.0, (q[y, x] + sum(k * q[j, i] for j, i, k in around)) * box[y, x]))
                continue
            foreground = math.exp(sum(k * math.log(q[j, i]) for j, i, k in around)) * box[y, x]
            background = math.exp(sum(k * math.log(1 - q[j, i]) for j, i, k in around))
            new[y, x] = min(0.9, max(0.1, foreground / (foreground + background + 1e-6)))
        q = new
    return (q > 0.5) & box.astype(bool)


def scene(seed: int, *, smooth: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A soft mask, a normalised image (two coloured regions, or noise) and a box, 12 × 15."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:12, :15]
    blob = (rows - 6) ** 2 + (columns - 7) ** 2 < 18
    image = np.where(blob, 1.0, -0.5)[None] * np.ones((3, 1, 1)) + rng.normal(0, 0.05 if smooth else 1.0, (3, 12, 15))
    mask = np.clip(0.5 + 0.35 * np.where(blob, 1, -1) + rng.normal(0, 0.25, (12, 15)), 0, 1)
    box = ((rows >= 2) & (rows <= 10) & (columns >= 3) & (columns <= 12)).astype(float)
    return mask, image, box


@pytest.mark.parametrize("smooth", [True, False], ids=["regions", "noise"])
@pytest.mark.parametrize(
    "config", [RELEASED, PAPER, DILATED, WIDE, LITERAL], ids=["released", "paper", "dilated", "wide", "literal"]
)
def test_agrees_with_the_per_pixel_loop(config, smooth):
    scenes = [scene(seed, smooth=smooth) for seed in range(4)]
    masks, images, boxes = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
    found = mean_field(masks, images, boxes.bool(), config)
    expected = np.stack([loop(*one, config) for one in scenes])
    assert found.numpy().tolist() == expected.tolist()


def test_kernel_is_symmetric_and_zero_across_the_border():
    _, image, _ = scene(0, smooth=False)
    kernel = pairwise_kernel(torch.from_numpy(image)[None].double(), PAPER)[0]
    places = offsets(PAPER)
    right, left = places.index((0, 1)), places.index((0, -1))
    torch.testing.assert_close(kernel[right][:, :-1], kernel[left][:, 1:])
    assert kernel[right][:, -1].abs().max() == 0
    assert kernel[left][:, 0].abs().max() == 0
    assert kernel[right][:, :-1].min() > 0


def test_nothing_outside_the_box_becomes_foreground():
    box = torch.zeros(1, 16, 16, dtype=torch.bool)
    box[:, 4:10, 5:12] = True
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 5:9, 6:13] = 3.0  # the object's colour reaches a pixel beyond the box on the right
    for config in (RELEASED, PAPER, LITERAL):
        found = mean_field(torch.ones(1, 16, 16), image, box, config)
        assert not found[~box].any()
        assert found[box].any() == (config is not PAPER)  # ω = 2 doubles the sums, and the 1e-6 then erodes it all


def test_the_literal_algorithm_fills_the_box():
    mask, image, box = scene(1, smooth=True)
    found = mean_field(
        torch.from_numpy(mask)[None], torch.from_numpy(image)[None], torch.from_numpy(box)[None].bool(), LITERAL
    )
    assert torch.equal(found[0], torch.from_numpy(box).bool())


def test_colour_edges_stop_the_two_label_mean_field():
    mask, image, box = scene(2, smooth=True)
    found = mean_field(
        torch.from_numpy(mask)[None], torch.from_numpy(image)[None], torch.from_numpy(box)[None].bool(), RELEASED
    )
    blob = image.mean(0) > 0.25
    assert (found[0].numpy() == blob).mean() > 0.95


def test_stopping_at_a_fixed_point_changes_nothing():
    mask, image, box = (torch.from_numpy(part)[None] for part in scene(3, smooth=True))
    many = CrfConfig(**{**vars(RELEASED), "iterations": 1000})
    assert torch.equal(mean_field(mask, image, box.bool(), RELEASED), mean_field(mask, image, box.bool(), many))


def test_pixels_of_the_padding_do_not_vote():
    """A crop that reaches beyond the image refines to what the image's part of it alone does."""
    image, inside = torch.zeros(1, 3, 24, 24), torch.zeros(1, 24, 24, dtype=torch.bool)  # one colour all over
    valid = torch.zeros(1, 24, 24, dtype=torch.bool)
    valid[:, :, 4:20] = inside[:, 2:22, 4:20] = True
    masks = 0.55 * inside
    for config in (RELEASED, PAPER):
        alone = mean_field(masks[..., 4:20], image[..., 4:20], inside[..., 4:20], config)
        padded = mean_field(masks, image, inside, config, valid=valid)
        assert torch.equal(padded[..., 4:20], alone)
    assert not torch.equal(
        mean_field(masks, image, inside, RELEASED)[..., 4:20],
        mean_field(masks[..., 4:20], image[..., 4:20], inside[..., 4:20], RELEASED),
    )
