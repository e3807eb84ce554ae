"""Procedural dataset: textured, concave, occluded objects with exact masks. The offline default.

It must not be easier than photographs, or the demo would prove nothing. Objects take their colours from the same
palette as their own background, so colour alone does not tell them apart; what does is texture, shading, and a contour
that shows most of the way. A test pins the mean IoU of the filled box, of the inscribed ellipse and of GrabCut to what
they are on COCO.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mal.data.annotations import instance, write
from mal.engine.files import atomic_write
from mal.engine.progress import Progress
from mal.engine.runtime import numpy_generator

TEXTURES = ("striped", "checkered", "spotted", "plain")
CATEGORIES = TEXTURES[:3]  # by texture: a star of each is as likely as a blob
OBJECTS = (4, 7)  # tried per image, both inclusive; hidden ones are dropped
SIDES = ((17, 31), (36, 92), (104, 160))  # side of a square as large as the box of S, M, L, before occlusion; pixels
SHARES = (0.30, 0.40, 0.30)  # of S, M and L among the objects tried
LARGEST = 0.62  # of the image's side
BEYOND = 0.3  # of an object's side: how far it may reach over the border
VISIBLE_SHARE, VISIBLE_PIXELS = 0.4, 30  # less of an object than this makes no fair annotation

PERIOD = (0.2, 0.35)  # of a pattern, as a share of what it covers
PALETTE = 3  # colours of an image; a texture runs through them in a ring
BACKGROUND_RANGE, OBJECT_RANGE = 1.2, 1.2  # how much of the ring one texture runs through; over 1, all of it
PATTERN = 0.5  # its share in an object's texture, against broad clouds; the ground is clouds alone
RIM = (0.1, 0.35)  # how much darker an object gets towards its contour
NOISE = (0.01, 0.04)  # standard deviation of the sensor's noise; colours are in [0, 1]
BLUR = (0.3, 0.8)  # sigma of the lens's blur, pixels
SUBPIXEL = 4  # fractional bits of polygon corners


@dataclass(frozen=True)
class Shape:
    """An object: index into CATEGORIES, its whole silhouette and what is visible of it, both bool (size, size)."""

    category: int
    whole: np.ndarray
    visible: np.ndarray


Drawn = tuple[np.ndarray, list[tuple[Shape, dict[str, Any]]]]  # an image, its objects and more of their annotations


def generate(folder: Path, *, images: int, size: int, seed: int, split: str) -> None:
    """Write `folder`/annotations.json (COCO instances) and `folder`/images/NNNNNN.png.

    Image i follows from (size, seed, split, i) alone: the same bytes on every call, whatever `images` is. Masks are
    the exact visible pixels as compressed RLE, boxes the tight ones around them. The annotation file is written last,
    so a folder that has it is complete.

    Args:
        images: how many.
        size: side of the square images in pixels.
        seed, split: another split of the same seed shares no image with this one.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    coco = empty_file(f"procedural shapes, split {split}, seed {seed}, {size} x {size}", CATEGORIES, "shape")

    def drawn(index: int) -> Drawn:
        pixels, shapes = draw(index, size=size, seed=seed, split=split)
        return pixels, [(shape, {}) for shape in shapes]

    write_drawn(folder, coco, drawn, images=images, name=f"shapes {split}")


def write_drawn(folder: Path, coco: dict[str, Any], drawn: Callable[[int], Drawn], *, images: int, name: str) -> None:
    """Draw images and write them, with what is in them, to a folder.

    Args:
        coco: `empty_file`'s; it is filled.
        drawn: index → the image, and its objects with what their annotations say besides.
        name: in front of the progress.
    """
    with Progress(name, total=images, unit="image") as progress:
        for index in range(images):
            pixels, shapes = drawn(index)
            coco["images"].append(write_image(folder, index, pixels))
            for shape, more in shapes:
                coco["annotations"].append(entry(len(coco["annotations"]) + 1, index, shape) | more)
            progress.advance()
    write(folder / "annotations.json", coco)


def empty_file(description: str, categories: Sequence[str], supercategory: str) -> dict[str, Any]:
    """A COCO file that holds its categories so far."""
    named = [{"id": i, "name": name, "supercategory": supercategory} for i, name in enumerate(categories, 1)]
    return {"info": {"description": description}, "images": [], "annotations": [], "categories": named}


def write_image(folder: Path, index: int, pixels: np.ndarray) -> dict[str, Any]:
    """Write `folder`/images/NNNNNN.png and give what a COCO file says of it.

    Args:
        index: of the image, from 0; its id and its name count from 1.
        pixels: (height, width, 3) uint8 RGB.
    """
    name = f"{index + 1:06}.png"
    with atomic_write(folder / "images" / name, "wb") as file:
        file.write(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())
    height, width = pixels.shape[:2]
    return {"id": index + 1, "file_name": name, "width": width, "height": height}


def entry(identity: int, index: int, shape: Shape) -> dict[str, Any]:
    """An annotation of what is visible of a shape, on the image of an index."""
    place = {"id": identity, "image_id": index + 1, "category_id": shape.category + 1}
    return place | instance(shape.visible)


def draw(index: int, *, size: int, seed: int, split: str) -> tuple[np.ndarray, list[Shape]]:
    """Image `index` of a split, (size, size, 3) uint8 RGB, and its objects, the farthest first."""
    rng = numpy_generator("shapes", size, seed, split, index)
    shapes, canvas, ring = scene(rng, size, categories=len(CATEGORIES))
    for shape in shapes:
        paint(rng, canvas, shape, ring)
    return photograph(rng, canvas), shapes


def scene(rng: np.random.Generator, size: int, *, categories: int) -> tuple[list[Shape], np.ndarray, np.ndarray]:
    """What an image is painted from.

    Returns:
        the objects, the farthest first; the ground (size, size, 3) float32 RGB in [0, 1], to be painted on; the ring of
        colours (1024, 3) that it has in common with the objects.
    """
    ring = _colour_ring(rng.uniform(0.05, 0.95, (PALETTE, 3)))
    placed = [_place(rng, size, categories) for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1))]
    shapes = occlude(sorted(placed, key=lambda item: -item[0]), size)
    field = clouds(rng, size, size, period=size / 4)
    return shapes, _colour(ring, rng.uniform() + BACKGROUND_RANGE * field), ring


def photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """A painting (size, size, 3), blurred by a lens and grained by a sensor, as uint8."""
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(*BLUR))
    grain = np.float32(rng.uniform(*NOISE))
    canvas = canvas + grain * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)


def _place(rng: np.random.Generator, size: int, categories: int) -> tuple[float, int, np.ndarray]:
    """Depth (large: far), category, and the corners (K, 2) xy in pixels of an object's silhouette."""
    low, high = SIDES[rng.choice(len(SIDES), p=SHARES)]
    side = min(np.exp(rng.uniform(np.log(low), np.log(high))), LARGEST * size)
    category = int(rng.integers(categories))
    depth, outline = silhouette(rng, side, size)
    return depth, category, outline


def silhouette(rng: np.random.Generator, side: float, size: int) -> tuple[float, np.ndarray]:
    """Depth (large: far) and corners (K, 2) xy in pixels of a star, a bracket or a blob.

    Args:
        side: of a square as large as its box. size: of the image, which it may stick out of by BEYOND of its side.
    """
    return laid(rng, (_star, _bracket, _blob)[rng.integers(3)](rng), side, size)


def laid(
    rng: np.random.Generator, outline: np.ndarray, side: float, size: int, *, stretch: float = 0.3
) -> tuple[float, np.ndarray]:
    """An outline's corners (K, 2) stretched, turned by any angle and laid somewhere; see `silhouette`.

    Args:
        stretch: largest log of the factor of one axis, by which the other is divided, before the turn.
    """
    factor = np.exp(rng.uniform(-stretch, stretch))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outline = outline * (factor, 1 / factor) @ turn.T
    low_corner, high_corner = outline.min(axis=0), outline.max(axis=0)
    outline = (outline - (low_corner + high_corner) / 2) * side / np.sqrt(np.prod(high_corner - low_corner))
    centre = rng.uniform((0.5 - BEYOND) * side, size - (0.5 - BEYOND) * side, 2)
    return side * np.exp(rng.normal(0, 0.4)), outline + centre


def _star(rng: np.random.Generator) -> np.ndarray:
    """A star of five to seven rays, some longer than others."""
    rays = int(rng.integers(5, 8))
    angles = np.arange(2 * rays) * np.pi / rays
    radii = np.where(np.arange(2 * rays) % 2, rng.uniform(0.52, 0.72), rng.uniform(0.85, 1.15, 2 * rays))
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _bracket(rng: np.random.Generator) -> np.ndarray:
    """An L, a U or an arc that may be as thin as a crescent at its ends."""
    kind, thick = rng.integers(3), rng.uniform(0.34, 0.44)
    if kind == 0:
        return np.array([(0, 0), (1, 0), (1, thick), (thick, thick), (thick, 1), (0, 1)])
    if kind == 1:
        return np.array(
            [(0, 0), (thick, 0), (thick, 1 - thick), (1 - thick, 1 - thick), (1 - thick, 0), (1, 0), (1, 1), (0, 1)]
        )
    angles = np.linspace(0, rng.uniform(1.1, 1.6) * np.pi, 24)
    inner = 1 - 1.6 * thick * (1 - rng.uniform(0, 0.9) * np.linspace(-1, 1, 24) ** 2)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([ring, (inner[:, None] * ring)[::-1]])


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A smooth closed curve with two to four lobes."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    lobes = int(rng.integers(2, 5))
    radii = (
        1 + rng.uniform(0.1, 0.3) * np.cos(lobes * angles) + rng.uniform(0, 0.15) * np.cos(angles - rng.uniform(0, 6))
    )
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def occlude(placed: list[tuple[float, int, np.ndarray]], size: int) -> list[Shape]:
    """Rasterise the far-to-near outlines and drop, from the nearest on, those of which too little can be seen."""
    covered = np.zeros((size, size), dtype=bool)
    shapes = []
    for _, category, outline in reversed(placed):
        whole = np.zeros((size, size), dtype=np.uint8)
        corners = np.round((outline - 0.5) * 2**SUBPIXEL).astype(np.int32)  # pixel 0 has its centre at .5
        cv2.fillPoly(whole, [corners], 1, shift=SUBPIXEL)
        visible = whole.astype(bool) & ~covered
        pixels, area = np.count_nonzero(visible), cv2.contourArea(outline.astype(np.float32))
        if pixels >= max(VISIBLE_PIXELS, VISIBLE_SHARE * area):
            shapes.append(Shape(category, whole.astype(bool), visible))
            covered |= visible
    return shapes[::-1]


def paint(rng: np.random.Generator, canvas: np.ndarray, shape: Shape, ring: np.ndarray) -> None:
    """Texture an object into the canvas (size, size, 3), darker towards its contour as round things are.

    Args:
        shape: its category is that of its pattern, as an index into TEXTURES.
    """
    rows, columns = np.flatnonzero(shape.whole.any(axis=1)), np.flatnonzero(shape.whole.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    whole, visible = shape.whole[window], shape.visible[window]
    height, width = whole.shape
    side = float(np.sqrt(height * width))
    marks = pattern(rng, height, width, scale=side, kind=shape.category)
    field = PATTERN * marks + (1 - PATTERN) * clouds(rng, height, width, period=side / 2)
    colours = _colour(ring, rng.uniform() + OBJECT_RANGE * field)
    depth = cv2.distanceTransform(np.pad(whole, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    colours *= (1 - rng.uniform(*RIM) * np.exp(-depth / (0.06 * side)))[:, :, None]
    canvas[window][visible] = colours[visible]


def pattern(
    rng: np.random.Generator, height: int, width: int, *, scale: float, kind: int, period: tuple[float, float] = PERIOD
) -> np.ndarray:
    """Stripes, a checker or spots, turned by any angle; or nothing.

    Args:
        scale: size in pixels of what is covered.
        kind: as an index into TEXTURES.
        period: least and largest, as shares of `scale`; in no case less than 4 pixels.

    Returns:
        (height, width) float32 in [0, 1]: 0 and 1 with soft edges, for `plain` .5 everywhere.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, length = rng.uniform(0, np.pi), max(4.0, scale * rng.uniform(*period))
    cosine, sine = np.float32(2 * np.pi / length) * np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    along, across = x * cosine + y * sine, y * cosine - x * sine
    if kind == 0:
        mix = _step(np.sin(along))
    elif kind == 1:
        mix = _step(2 * np.sin(along) * np.sin(across))
    elif kind == 2:
        mix = _step(np.cos(along) + np.cos(across) - 0.5)
    else:
        mix = np.full_like(along, 0.5)
    return mix


def _step(wave: np.ndarray) -> np.ndarray:
    """A wave turned into a soft-edged pattern of two levels, 0 and 1."""
    return np.clip(0.5 + 1.5 * wave, 0, 1)


def clouds(rng: np.random.Generator, height: int, width: int, *, period: float) -> np.ndarray:
    """(height, width) float32 in [0, 1]: random values every `period` pixels, smoothly interpolated."""
    rows, columns = int(height / period) + 3, int(width / period) + 3
    coarse = rng.uniform(0, 1, (rows, columns)).astype(np.float32)
    shape = max(width, round(columns * period)), max(height, round(rows * period))
    return np.clip(cv2.resize(coarse, shape, interpolation=cv2.INTER_CUBIC)[:height, :width], 0, 1)


def _colour_ring(palette: np.ndarray) -> np.ndarray:
    """(1024, 3) float32: the palette's colours (K, 3) blended one into the next, the last into the first."""
    closed = np.concatenate([palette, palette[:1]])
    position = np.arange(1024) / 1024 * len(palette)
    return np.stack([np.interp(position, np.arange(len(closed)), c) for c in closed.T], axis=1).astype(np.float32)


def _colour(ring: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) at places `field` (h, w) of the ring; 0 and 1 are the same place."""
    return ring[(field * len(ring)).astype(np.int32) % len(ring)]
