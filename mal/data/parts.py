"""Procedural dataset of objects with parts: two to four of them, of two textures that together make the class.

Silhouettes, sizes, occlusion, colours and lens are those of `mal.data.shapes`. What differs is the inside of an object:
it is cut into parts, and these bear the two textures of its class in turns. Each texture belongs to several classes, so
none of them alone tells the class, and whoever looks at one part alone cannot know it.
"""

from itertools import combinations
from pathlib import Path

import numpy as np

from mal.data.annotations import write
from mal.data.shapes import TEXTURES, Shape, empty_file, entry, paint, photograph, scene, write_image
from mal.engine.progress import Progress
from mal.engine.runtime import numpy_generator

PAIRS = tuple(combinations(range(len(TEXTURES)), 2))  # of textures, one for each class
CATEGORIES = tuple(f"{TEXTURES[a]}-{TEXTURES[b]}" for a, b in PAIRS)
MOST = 4  # parts of an object
PART_SIDE = 12  # pixels; an object has no more parts than fit into what is seen of it with this side
ROUNDS = 4  # of moving each part's seed to the middle of the part


def generate(folder: Path, *, images: int, size: int, seed: int, split: str) -> None:
    """Write what `shapes.generate` writes, with objects of parts, and `folder`/parts.json.

    That is a COCO instance file of the same images with an annotation for each part: its category is its texture,
    `object_id` the id of the object in annotations.json that it is a part of, its mask the exact visible pixels. An
    object's parts are disjoint and together the object. Methods never see the file: their views are of
    annotations.json, which says nothing about parts.

    Args and errors are those of `shapes.generate`.
    """
    about = f"split {split}, seed {seed}, {size} x {size}"
    objects = empty_file(f"procedural objects of parts, {about}", CATEGORIES, "object")
    parts = empty_file(f"the parts of procedural objects, {about}", TEXTURES, "part")
    with Progress(f"parts {split}", total=images, unit="image") as progress:
        for index in range(images):
            pixels, drawn = draw(index, size=size, seed=seed, split=split)
            objects["images"].append(write_image(folder, index, pixels))
            for whole, inside in drawn:
                identity = len(objects["annotations"]) + 1
                objects["annotations"].append(entry(identity, index, whole))
                for part in inside:
                    one = entry(len(parts["annotations"]) + 1, index, part)
                    parts["annotations"].append({**one, "object_id": identity})
            progress.advance()
    write(folder / "parts.json", {**parts, "images": objects["images"]})
    write(folder / "annotations.json", objects)


def draw(index: int, *, size: int, seed: int, split: str) -> tuple[np.ndarray, list[tuple[Shape, list[Shape]]]]:
    """Image `index` of a split, (size, size, 3) uint8 RGB, and its objects, the farthest first, each with its parts.

    An object's category is an index into CATEGORIES, a part's into TEXTURES. A part's `whole` is its share of the
    object's.
    """
    rng = numpy_generator("parts", size, seed, split, index)
    objects, canvas, ring = scene(rng, size, categories=len(CATEGORIES))
    drawn = [(it, _parts(rng, it)) for it in objects]
    for _, inside in drawn:
        for part in inside:
            paint(rng, canvas, part, ring)
    return photograph(rng, canvas), drawn


def _parts(rng: np.random.Generator, shape: Shape) -> list[Shape]:
    """An object cut into cells around seeds, which are spread over what is seen of it: no part is hidden as a whole.

    The cells are those of k-means on the visible pixels, started from pixels far from each other. In the order of the
    longest way through the object they bear one texture and the other in turns.
    """
    seen = np.argwhere(shape.visible).astype(np.float64)  # rows, columns
    most = min(MOST, max(2, int(np.sqrt(len(seen)) / PART_SIDE)))
    seeds = _spread(rng, seen, int(rng.integers(2, most + 1)))
    for _ in range(ROUNDS):
        nearest = _nearest(seen, seeds)
        seeds = np.stack([seen[nearest == cell].mean(axis=0) for cell in np.unique(nearest)])
    seeds = seeds[np.unique(_nearest(seen, seeds))]  # of three and more, one could in the end be nearest to nothing
    along = np.linalg.svd(seeds - seeds.mean(axis=0), full_matrices=False)[2][0]
    seeds = seeds[np.argsort(seeds @ along, kind="stable")]
    pixels = np.argwhere(shape.whole)
    nearest = _nearest(pixels.astype(np.float64), seeds)
    turn = int(rng.integers(2))
    parts = []
    for cell in range(len(seeds)):
        whole = np.zeros_like(shape.whole)
        whole[tuple(pixels[nearest == cell].T)] = True
        parts.append(Shape(PAIRS[shape.category][(cell + turn) % 2], whole, whole & shape.visible))
    return parts


def _spread(rng: np.random.Generator, pixels: np.ndarray, count: int) -> np.ndarray:
    """`count` of the pixels (N, 2): any first one is left for the farthest from it, then each is farthest from all."""
    start = pixels[rng.integers(len(pixels))]
    seeds = pixels[[np.argmax(((pixels - start) ** 2).sum(axis=1))]]
    while len(seeds) < count:
        far = ((pixels[:, None] - seeds) ** 2).sum(axis=2).min(axis=1)
        seeds = np.concatenate([seeds, pixels[[np.argmax(far)]]])
    return seeds


def _nearest(pixels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Which of the seeds (K, 2) each of the pixels (N, 2) is nearest to: (N,)."""
    return ((pixels[:, None] - seeds) ** 2).sum(axis=2).argmin(axis=1)
