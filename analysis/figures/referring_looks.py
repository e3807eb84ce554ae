"""What Partial-RES's networks make of some validation expressions, for figures; and numbers about it.

It reads the looks.npz of looks_val stages. All is in the square that the network is shown, S pixels a side, the image
at its top left: `images` (n, S, S, 3) uint8, `truth` (n, S, S) bool, `points`, `resampled` and `true_points` (n, N, 2)
contours as predicted, of the filled prediction and of the truth, NaN beyond their ends; `attention` (n, 2N, h, w) of
each token, NaN beyond the last; `valid` (n, 2), width and height of the image in the square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from analysis.drawing import HUMAN
from analysis.figures.photographs import Photographs, frame, photographs
from analysis.figures.results import Group, LeftOut, Results
from analysis.records import Record, address
from analysis.referring_rows import row_of
from mal.engine.findings import number

MEMBERS = (
    *("ids", "image_ids", "expressions", "images", "valid"),
    *("truth", "points", "resampled", "true_points", "attention"),
)
BEST = ("full", "both", "naive")  # rows, the one with the most parts first
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Looks:
    """The expressions of one stage: arrays of looks.npz, all of one length, and the images that may be shown."""

    record: Record
    arrays: dict[str, np.ndarray]
    images: Photographs

    def shown(self, places: list[int]) -> list[int]:
        """Those of some expressions whose images are at hand and may be shown.

        Raises:
            LeftOut: there are none.
        """
        found = [place for place in places if int(self.arrays["image_ids"][place]) in self.images.records]
        if not found:
            raise LeftOut(f"{address(self.record)}: no expression with predicted points is about an image to be shown")
        return found

    def rule(self, chosen: str, *, without: str, unseen: int) -> str:
        """Which expressions a figure shows.

        Args:
            chosen: "the first 3 with predicted points". without: how many have none, in words; empty where all have.
            unseen: how many have some, and an image that cannot be shown.
        """
        pictures = f"{number(unseen, 'has an image', 'have images')} that cannot be shown" if unseen else ""
        out = ", ".join(filter(None, (without, pictures)))
        return (
            f"Rule: of {self.count} expressions at equal steps of the file's order {chosen}{f' ({out})' * bool(out)}. "
        )

    @property
    def count(self) -> int:
        return len(self.arrays["ids"])

    def image_ids(self, places: list[int]) -> list[int]:
        """The images that some expressions are about."""
        return [int(self.arrays["image_ids"][place]) for place in places]

    def text(self, place: int, most: int) -> str:
        """An expression, of at most so many characters."""
        return shortened(str(self.arrays["expressions"][place]), most)

    def pictured(self, axes: Axes, place: int) -> None:
        """The image, without the square's padding, in the square's pixels."""
        frame(axes)
        side = self.arrays["images"].shape[1]
        axes.imshow(self.arrays["images"][place], extent=(0, side, side, 0))
        self.cut(axes, place)

    def cut(self, axes: Axes, place: int) -> None:
        """Show no padding."""
        across, down = self.arrays["valid"][place]
        axes.set(xlim=(0, across), ylim=(down, 0))

    def masses(self) -> Floats:
        """The attention in the true mask, a mean over the tokens of each expression: (n,), NaN where it has none."""
        names = ("attention", "truth", "valid")
        found = []
        for maps, truth, valid in zip(*(self.arrays[name] for name in names), strict=True):
            each = [mass(one, truth, valid) for one in maps if not np.isnan(one).any()]
            found.append(np.mean(each) if each else np.nan)
        return np.array(found)

    def areas(self) -> Floats:
        """The shares of the images that the true masks take, what evenly spread attention has: (n,)."""
        truth, valid = self.arrays["truth"], self.arrays["valid"]
        return np.array([mask.sum() / np.prod(size) for mask, size in zip(truth, valid, strict=True)])


def read_looks(record: Record, results: Results) -> Looks:
    """
    Raises:
        LeftOut: a file is missing.
    """
    return Looks(record, results.arrays(record, "looks.npz", MEMBERS), photographs(results, record))


def mass(attention: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """What of attention lies in a mask.

    Args:
        attention: (h, w) on the cells of the square, 1 in sum. truth: (S, S) bool in the square; h and w divide S.
        valid: width and height of the image in the square, in pixels.

    Returns:
        In [0, 1]: a cell counts by the share of its pixels in the image that the mask takes.
    """
    height, width = attention.shape
    middles = np.arange(len(truth)) + 0.5
    inside = (middles < valid[1])[:, None] & (middles < valid[0])

    def cells(values: np.ndarray) -> np.ndarray:
        return values.reshape(height, len(truth) // height, width, len(truth) // width).sum(axis=(1, 3))

    share = cells(truth & inside) / np.maximum(cells(inside), 1)
    return float((attention * share).sum())


def known(points: np.ndarray) -> np.ndarray:
    """The points (k, 2) of (N, 2) before the end."""
    return points[~np.isnan(points).any(axis=1)]


def gap_variation(points: np.ndarray) -> float:
    """How unevenly points lie: standard deviation over mean of the distances between neighbours on the closed contour.

    Args: points (N, 2). Returns 0 where all gaps are alike, NaN where there are fewer than three points or no gaps.
    """
    here = known(points)
    gaps = np.linalg.norm(np.roll(here, -1, axis=0) - here, axis=1)
    return float(gaps.std() / gaps.mean()) if len(here) >= 3 and gaps.any() else float("nan")


def draw_contour(axes: Axes, points: np.ndarray, colour: np.ndarray, *, filled: bool = False) -> None:
    """A closed contour with its points, and what it encloses if asked; the axes keep their limits."""
    here, limits = known(points), (axes.get_xlim(), axes.get_ylim())
    red, green, blue = colour.tolist()
    if filled and len(here) > 2:
        axes.add_patch(Polygon(here, facecolor=(red, green, blue, 0.45), edgecolor="none"))
    if len(here):
        x, y = np.vstack([here, here[:1]]).T
        axes.plot(x, y, color="white", linewidth=1.3)
        axes.plot(x, y, color=(red, green, blue), linewidth=0.8)
        axes.scatter(x, y, s=6, c="white", edgecolors=(red, green, blue), linewidths=0.6, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])


def draw_truth(axes: Axes, mask: np.ndarray) -> None:
    """The contour of a human mask (S, S) bool of the square; the axes keep their limits."""
    if not mask.any():
        return
    limits = axes.get_xlim(), axes.get_ylim()
    centres = np.arange(-1, len(mask) + 1) + 0.5
    for colour, width in (("white", 1.6), (tuple(HUMAN), 0.9)):
        axes.contour(centres, centres, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=width)
    axes.set(xlim=limits[0], ylim=limits[1])


def shortened(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def with_most_parts(groups: Sequence[Group]) -> Group:
    """What is shown of several: the first of BEST that there is, else the first."""
    named = [(network_name(group[0]), group) for group in groups]
    return next((group for wanted in BEST for name, group in named if name == wanted), groups[0])


def network_name(record: Record) -> str:
    """Its row, or what it is where it is none."""
    row = row_of(record)
    return "network" if row is None else row.name
