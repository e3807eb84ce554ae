"""Figures 2 and 3 of AttentionShift's supplement: how parts come about, and what its maps and masks look like.

They read the parts.npz of parts_val stages (mal/methods/attentionshift/looks.py): squares around objects at equal steps
of the file's order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.drawing import HUMAN, PSEUDO, decode
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import Photographs, draw_masks, frame, photographs
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, Drawing, each, provenance
from analysis.recipes import recipe_name
from analysis.records import Record, address

MEMBERS = (
    *("ids", "windows", "points", "boxes", "attention", "foreground"),
    *("mask", "rounds", "parts", "found", "key_points"),
)
BEYOND = 0.88  # grey, where a square reaches beyond its image
SHADE = 0.75  # share of a part's colour where its cosine is 1
FAINT = 0.5  # cosine from which a part is coloured at all


@dataclass(frozen=True)
class Objects:
    """The objects of one stage that may be shown: arrays of looks.py, all of one length, and their images."""

    record: Record
    arrays: dict[str, np.ndarray]
    images: Photographs

    @property
    def count(self) -> int:
        return len(self.arrays["ids"])

    @property
    def shown(self) -> list[int]:
        """The images that they lie on."""
        return [self.images.humans[int(i)]["image_id"] for i in self.arrays["ids"]]

    def picture(self, place: int) -> np.ndarray:
        """The square of an object, (S, S, 3) in [0, 1]."""
        image = self.images.humans[int(self.arrays["ids"][place])]["image_id"]
        side = self.arrays["attention"].shape[-1]
        return cut(self.images.pixels(image), self.arrays["windows"][place], side, BEYOND)

    def human(self, place: int) -> np.ndarray:
        """Its human mask, (S, S) bool."""
        annotation = self.images.humans[int(self.arrays["ids"][place])]
        mask = decode(annotation["segmentation"], self.images.records[annotation["image_id"]])
        return cut(mask, self.arrays["windows"][place], self.arrays["attention"].shape[-1], 0)


def cut(pixels: np.ndarray, window: np.ndarray, side: int, beyond: float) -> np.ndarray:
    """(H, W, …) → (side, side, …): a square x0, y0, x1, y1 of an image by the nearest pixel, `beyond` outside of it."""
    found = np.full((side, side, *pixels.shape[2:]), beyond, dtype=pixels.dtype)
    steps = (np.arange(side) + 0.5) / side
    columns, rows = (np.floor(window[i] + steps * (window[i + 2] - window[i])).astype(int) for i in (0, 1))
    inside = (rows >= 0) & (rows < pixels.shape[0]), (columns >= 0) & (columns < pixels.shape[1])
    found[np.ix_(*inside)] = pixels[np.ix_(rows[inside[0]], columns[inside[1]])]
    return found


@each("parts_val")
def part_maps(groups: list[Group], results: Results) -> Drawing:
    """Figure 2: the parts of objects after some rounds; a column an object, a row a number of rounds."""
    found = _objects(groups[0], results)
    rounds = found.arrays["rounds"].tolist()
    names = {"kmeans": "K-Means", "kmeans_star": "K-Means*"}
    method = names.get(found.record["columns"].get("key_points"), "key-point shift")

    def draw(column: np.ndarray, place: int) -> None:
        _with_point(column[0], found, place)
        for number, axes in enumerate(column[1:]):
            _with_parts(axes, found, place, number)

    titles = ["image, point, box", *(f"{count} round{'' if count == 1 else 's'}" for count in rounds)]
    figure = _grid(found, titles, draw)
    caption = (
        f"Parts after rounds of {method}, filtered and merged after each number of them, by {_who(found, results)}. "
        f"Inside the chosen box each place has the colour of the part that it is most alike, stronger at a higher "
        f"cosine, none below {FAINT:g}; dots are key-points. Colours go by a part's size and name none. "
    )
    return figure, caption + _rule(found), found.images.notes()


@each("parts_val")
def maps_and_masks(groups: list[Group], results: Results) -> Drawing:
    """Figure 3: attention, foreground and mask of objects beside the human mask; a column an object."""
    found = _objects(groups[0], results)

    def draw(column: np.ndarray, place: int) -> None:
        _with_point(column[0], found, place)
        for axes, name in zip(column[1:], ("attention", "foreground"), strict=False):
            axes.imshow(found.arrays[name][place], cmap="viridis", vmin=0, vmax=255)
        picture = found.picture(place)
        draw_masks(column[3], picture, [(found.arrays["mask"][place], PSEUDO)])
        draw_masks(column[4], picture, [(found.human(place), HUMAN)])

    figure = _grid(found, ["image, point, box", "attention", "foreground", "mask", "human mask"], draw)
    caption = (
        f"Maps and masks of {_who(found, results)} for objects with points: the attention of the matched token at the "
        "chosen depth of the rollout (a), the foreground that grows from it (F), both from 0 (dark) to 1; the mask. "
    )
    return figure, caption + _rule(found), found.images.notes()


def _objects(group: Group, results: Results) -> Objects:
    """Of the first seed.

    Raises:
        LeftOut: a file is missing, or nothing may be shown.
    """
    record = group[0]
    arrays, images = results.arrays(record, "parts.npz", MEMBERS), photographs(results, record)
    kept = [
        int(i) in images.humans and images.humans[int(i)]["image_id"] in images.records for i in arrays["ids"].tolist()
    ]
    if not any(kept):
        raise LeftOut(f"{address(record)}: none of its objects may be shown")
    return Objects(record, {n: a if n == "rounds" else a[np.array(kept)] for n, a in arrays.items()}, images)


def _who(found: Objects, results: Results) -> str:
    columns = found.record["columns"]
    recipe = recipe_name(found.record, results.known)
    return f"AttentionShift ({columns['encoder']}, recipe {recipe}, seed {columns['seed']})"


def _rule(found: Objects) -> str:
    objects = f"{found.count} object{'' if found.count == 1 else 's'}"
    rule = f"Rule: {objects} at equal steps of the file's order. "
    return rule + provenance([[found.record]], objects) + found.images.attribution(found.shown)


def _grid(found: Objects, titles: list[str], draw: Callable[[np.ndarray, int], None]) -> Figure:
    """A column an object, a row a title; `draw` fills the axes of an object's column."""
    size = min(PAGE / max(found.count, 1), 1.15)
    figure = sheet(size * found.count + 0.3, size * len(titles) + 0.3)
    grid = figure.subplots(len(titles), found.count, squeeze=False)
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    for place, column in enumerate(grid.T):
        for axes in column:
            frame(axes)
        draw(column, place)
    return figure


def _with_point(axes: Axes, found: Objects, place: int) -> None:
    picture = found.picture(place)
    axes.imshow(picture)
    _box(axes, found, place)
    _dots(axes, found.arrays["points"][place][None], len(picture))


def _with_parts(axes: Axes, found: Objects, place: int, number: int) -> None:
    """The picture, its colours paled, with the parts after a number of rounds."""
    picture = found.picture(place)
    picture = 0.5 * picture.mean(2, keepdims=True).repeat(3, 2) + 0.5
    count = int(found.arrays["found"][place, number])
    maps = found.arrays["parts"][place, number, :count] / 255
    if count:
        side = len(picture)
        x0, y0, x1, y1 = found.arrays["boxes"][place] * side
        middles = np.arange(side) + 0.5
        boxed = ((middles >= y0) & (middles <= y1))[:, None] & ((middles >= x0) & (middles <= x1))
        colours = np.array([to_rgb(COLOURS[i % 6]) for i in range(count)])[maps.argmax(0)]
        weight = (SHADE * ((maps.max(0) - FAINT) / (1 - FAINT)).clip(0, 1) * boxed)[..., None]
        picture = (1 - weight) * picture + weight * colours
    axes.imshow(picture)
    _box(axes, found, place)
    points = found.arrays["key_points"][place, number]
    _dots(axes, points[~np.isnan(points).any(1)], len(picture))


def _box(axes: Axes, found: Objects, place: int) -> None:
    """The chosen box; where it is cut at the picture's border, only its inner sides show."""
    side = found.arrays["attention"].shape[-1]
    x0, y0, x1, y1 = found.arrays["boxes"][place] * side - 0.5
    for edge, width in (("w", 1.4), ("k", 0.6)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=width))


def _dots(axes: Axes, shares: np.ndarray, side: int) -> None:
    x, y = (shares * side - 0.5).T
    axes.scatter(x, y, s=9, c="white", edgecolors="black", linewidths=0.6, zorder=3)
    axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
