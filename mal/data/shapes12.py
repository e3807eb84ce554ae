"""Procedural dataset of twelve classes, four textures in three hues, small enough to learn class maps of in minutes.

Silhouettes, occlusion and lens are those of `mal.data.shapes`. What differs: objects are large in their small images,
their textures are coarse, and a hue tells classes apart, so that a class can be seen on a map of stride 4. The ground
is greyish clouds.
"""

from itertools import product
from pathlib import Path

import cv2
import numpy as np

from mal.data.shapes import (
    TEXTURES,
    Drawn,
    Shape,
    clouds,
    empty_file,
    occlude,
    pattern,
    photograph,
    silhouette,
    write_drawn,
)
from mal.engine.runtime import numpy_generator

HUES = {"warm": (-15, 45), "green": (85, 150), "blue": (200, 265)}  # degrees of the colour circle
CATEGORIES = tuple(f"{texture} {hue}" for texture, hue in product(TEXTURES, HUES))  # place: 3 · texture + hue
OBJECTS = (3, 5)  # seen in an image, both inclusive
SIDES = (0.3, 0.6)  # side of a square as large as an object's box, as a share of the image's
PERIOD = (0.3, 0.42)  # of a texture, as a share of the object's side
DARK, LIGHT = (0.15, 0.45), (0.75, 1.0)  # brightness of a texture's two tones
SATURATION = (0.55, 1.0)
GREYISH = 0.25  # the ground's largest saturation
SHADE = 0.25  # how much the clouds on an object and the ground change their brightness


def generate(folder: Path, *, images: int, size: int, seed: int, split: str) -> None:
    """Write what `shapes.generate` writes: `folder`/annotations.json and `folder`/images, of the twelve classes.

    Args and errors are those of `shapes.generate`.
    """
    about = f"procedural scenes of twelve classes, split {split}, seed {seed}, {size} x {size}"

    def drawn(index: int) -> Drawn:
        pixels, shapes = draw(index, size=size, seed=seed, split=split)
        return pixels, [(shape, {}) for shape in shapes]

    write_drawn(folder, empty_file(about, CATEGORIES, "shape"), drawn, images=images, name=f"shapes12 {split}")


def draw(index: int, *, size: int, seed: int, split: str) -> tuple[np.ndarray, list[Shape]]:
    """Image `index` of a split, (size, size, 3) uint8 RGB, and its objects, the farthest first.

    A shape's category is an index into CATEGORIES. Image i follows from (size, seed, split, i) alone.
    """
    rng = numpy_generator("shapes12", size, seed, split, index)
    shapes = _shapes(rng, size)
    canvas = ground(rng, size)
    for shape in shapes:
        texture, hue = divmod(shape.category, len(HUES))
        paint(rng, canvas, shape, texture=texture, hue=tuple(HUES.values())[hue])
    return photograph(rng, canvas), shapes


def _shapes(rng: np.random.Generator, size: int) -> list[Shape]:
    """OBJECTS of them, none hidden too much; drawn again where some are."""
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    while True:
        placed = []
        for _ in range(wanted):
            depth, outline = silhouette(rng, size * rng.uniform(*SIDES), size)
            placed.append((depth, int(rng.integers(len(CATEGORIES))), outline))
        shapes = occlude(sorted(placed, key=lambda item: -item[0]), size)
        if len(shapes) == wanted:
            return shapes


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32 RGB in [0, 1]: clouds of a greyish colour."""
    brightness = rng.uniform(0.3, 0.8) + SHADE * (2 * clouds(rng, size, size, period=size / 4) - 1)
    return rgb(rng.uniform(0, 360), rng.uniform(0, GREYISH), brightness)


def paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    shape: Shape,
    *,
    texture: int,
    hue: tuple[float, float],
    tones: tuple[tuple[float, float], tuple[float, float]] = (DARK, LIGHT),
) -> None:
    """Texture an object into the canvas (size, size, 3).

    Args:
        texture: an index into TEXTURES. hue: the least and the largest, in degrees.
        tones: the same of the brightness of the texture's darker and its lighter tone.
    """
    rows, columns = np.flatnonzero(shape.whole.any(axis=1)), np.flatnonzero(shape.whole.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    visible = shape.visible[window]
    height, width = visible.shape
    side = float(np.sqrt(height * width))
    marks = pattern(rng, height, width, scale=side, kind=texture, period=PERIOD)
    dark, light = rng.uniform(*tones[0]), rng.uniform(*tones[1])
    brightness = dark + (light - dark) * marks + SHADE * (clouds(rng, height, width, period=side / 2) - 0.5)
    colours = rgb(rng.uniform(*hue), rng.uniform(*SATURATION), brightness)
    canvas[window][visible] = colours[visible]


def rgb(hue: float, saturation: float, brightness: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) float32 RGB in [0, 1] of a hue in degrees, at brightnesses (h, w) clipped to [0, 1]."""
    value = np.clip(brightness, 0, 1).astype(np.float32)
    hsv = np.stack([np.full_like(value, hue % 360), np.full_like(value, saturation), value], axis=2)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
