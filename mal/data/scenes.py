"""Procedural scenes of two to five shapes, each with expressions that mean it alone: "the red star", "the left moon".

Occlusion, lens and textures are those of `mal.data.shapes` and `mal.data.shapes12`. A texture says nothing: what is
spoken of is an object's form, its colour, and where it lies among others.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mal.data.annotations import instance
from mal.data.scene_expressions import COLOURS, FORMS, expressions
from mal.data.shapes import TEXTURES, Drawn, Shape, empty_file, laid, occlude, photograph, write_drawn
from mal.data.shapes12 import ground, paint
from mal.engine.runtime import numpy_generator

CATEGORIES = tuple(f"{colour} {form}" for form in FORMS for colour in COLOURS)  # place: 4 · form + colour
HUES = {"red": (-8, 8), "yellow": (50, 62), "green": (105, 145), "blue": (212, 240)}  # degrees of the colour circle
TONES = ((0.45, 0.65), (0.8, 1.0))  # brightness of a texture's darker and its lighter tone
OBJECTS = (2, 5)  # in an image, both inclusive
SIDES = (0.28, 0.5)  # side of a square as large as an object's box, as a share of the image's
STRETCH = 0.12  # log of the largest factor of an axis
SEEN = 0.55  # least share of a silhouette that is visible, so that its form can be told
ALIKE = 0.35  # how often an object takes its form or its colour from the one before, so that places must be spoken of
MOST = 3  # expressions of an object


class Scene(NamedTuple):
    """An image (size, size, 3) uint8 RGB, its objects, the farthest first, and the expressions of each."""

    pixels: np.ndarray
    shapes: list[Shape]
    expressions: list[list[str]]


def generate(folder: Path, *, images: int, size: int, seed: int, split: str) -> None:
    """Write what `shapes.generate` writes, with `expressions` in every annotation: one to `MOST`, of one object each.

    Args and errors are those of `shapes.generate`.
    """
    about = f"procedural scenes with expressions, split {split}, seed {seed}, {size} x {size}"

    def drawn(index: int) -> Drawn:
        scene = draw(index, size=size, seed=seed, split=split)
        said = zip(scene.shapes, scene.expressions, strict=True)
        return scene.pixels, [(shape, {"expressions": texts}) for shape, texts in said]

    write_drawn(folder, empty_file(about, CATEGORIES, "shape"), drawn, images=images, name=f"scenes {split}")


def draw(index: int, *, size: int, seed: int, split: str) -> Scene:
    """Image `index` of a split. A shape's category is an index into CATEGORIES.

    It follows from (size, seed, split, index) alone.
    """
    rng = numpy_generator("scenes", size, seed, split, index)
    shapes, said = _described(rng, size)
    canvas = ground(rng, size)
    for shape in shapes:
        hue = HUES[COLOURS[shape.category % len(COLOURS)]]
        paint(rng, canvas, shape, texture=int(rng.integers(len(TEXTURES))), hue=hue, tones=TONES)
    return Scene(photograph(rng, canvas), shapes, said)


def _described(rng: np.random.Generator, size: int) -> tuple[list[Shape], list[list[str]]]:
    """Objects, the farthest first, and one to `MOST` expressions of each; drawn again where an object is hidden too
    much, or nothing is true of it alone."""
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    while True:
        shapes = occlude(sorted(_placed(rng, size, wanted), key=lambda item: -item[0]), size)
        if len(shapes) < wanted or not all(map(_is_seen, shapes)):
            continue
        boxes = np.array([instance(shape.visible)["bbox"] for shape in shapes], dtype=np.float64)
        kinds = [divmod(shape.category, len(COLOURS)) for shape in shapes]
        found = expressions([(FORMS[form], COLOURS[colour]) for form, colour in kinds], boxes, size)
        if all(said.by_look or said.by_place for said in found):
            return shapes, [said.some(rng, MOST) for said in found]


def _is_seen(shape: Shape) -> bool:
    return bool(np.count_nonzero(shape.visible) >= SEEN * np.count_nonzero(shape.whole))


def _placed(rng: np.random.Generator, size: int, wanted: int) -> list[tuple[float, int, np.ndarray]]:
    """Depth (large: far), category and corners (K, 2) xy in pixels of each silhouette."""
    placed, form, colour = [], 0, 0
    for count in range(wanted):
        same = rng.random(2) < ALIKE * (count > 0)
        form = form if same[0] else int(rng.integers(len(FORMS)))
        colour = colour if same[1] else int(rng.integers(len(COLOURS)))
        outline = OUTLINES[FORMS[form]](rng)
        depth, corners = laid(rng, outline, size * rng.uniform(*SIDES), size, stretch=STRETCH)
        placed.append((depth, form * len(COLOURS) + colour, corners))
    return placed


def _star(rng: np.random.Generator) -> np.ndarray:
    """Five rays."""
    radii = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 1.0)
    return _around(np.arange(10) * np.pi / 5, radii)


def _cross(rng: np.random.Generator) -> np.ndarray:
    """Four arms at right angles."""
    arm = rng.uniform(0.28, 0.36)
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turns = [np.array([[0, -1], [1, 0]])]
    for _ in range(3):
        turns.append(turns[-1] @ turns[0])
    return np.concatenate([quarter @ turn.T for turn in turns])


def _moon(rng: np.random.Generator) -> np.ndarray:
    """A crescent: a disc without another one beside its centre."""
    offset, radius = rng.uniform(0.45, 0.6), rng.uniform(0.72, 0.82)
    # where the two circles meet: x = (1 + offset² − radius²) / (2 · offset)
    outer = np.arccos((1 + offset**2 - radius**2) / (2 * offset))
    inner = np.arccos((1 - offset**2 - radius**2) / (2 * offset * radius))
    rim = _around(np.linspace(outer, 2 * np.pi - outer, 28), np.ones(28))
    bite = _around(np.linspace(2 * np.pi - inner, inner, 20)[1:-1], np.full(18, radius))
    return np.concatenate([rim, bite + np.array([offset, 0])])


def _triangle(rng: np.random.Generator) -> np.ndarray:
    """Three corners, about equally far from each other."""
    return _around(np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.2, 0.2, 3), np.ones(3))


def _around(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Corners (K, 2) xy around the origin."""
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


OUTLINES = {"star": _star, "cross": _cross, "moon": _moon, "triangle": _triangle}
