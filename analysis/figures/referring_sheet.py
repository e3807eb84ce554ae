"""Expressions with the contour points, the mask and the human mask of what they mean, from the best to the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.drawing import HUMAN, PSEUDO, decode, even_places
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import Photographs, draw_masks, fit, frame, photographs
from analysis.figures.referring_looks import shortened, with_most_parts
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, draw_one, each, provenance
from analysis.recipes import recipe_name
from analysis.records import Json, Record, address
from analysis.referring_rows import row_of
from mal.engine.payload import flatten
from mal.methods.partialres.filling import mask_of

ROWS, ACROSS = 6, 2  # expressions below and beside each other
PARTS = ("image", "contour points", "mask", "human mask")
TITLE = 0.14  # inches, above the first row
SIDE = 300  # pixels of a picture, at most
TALLEST = 1.4  # of a row's height to a picture's width
LETTERS = 56  # of an expression
TINY = 0.04  # of a picture's longer side: a smaller mask has a ring
FILL = "partialres.sequence.fill"


@dataclass(frozen=True)
class Answered:
    """A run's answers to expressions on images that may be shown, best first, and their IoUs."""

    record: Record  # of res_val
    answers: list[tuple[float, Json]]
    asked: int  # expressions that were scored, whether or not their images may be shown
    images: Photographs
    fill: str  # how a mask is made of points


@each("res_val")
def expressions(groups: list[Group], results: Results) -> Drawing:
    """At equal steps of the ranking by IoU, of the network with the most parts."""
    figure, caption, notes = _drawn(with_most_parts(groups)[0], results)
    return figure, caption, [*notes, *([f"{len(groups) - 1} other networks on this data"] if groups[1:] else [])]


def draw_expressions(store: Path, records: Sequence[Record], out: Path) -> Path:
    """The sheet of one res_val stage; see `draw_one`.

    Raises:
        LeftOut: its images are not on this machine.
    """
    return draw_one("res_val", _drawn, store, records, out)


def _drawn(record: Record, results: Results) -> Drawing:
    """
    Raises:
        LeftOut: a file is missing or fits no other, or nothing may be shown.
    """
    found = _answered(record, results)
    chosen = [found.answers[place] for place in even_places(len(found.answers), ROWS * ACROSS)]
    rows = -(-len(chosen) // ACROSS)
    shapes = [found.images.records[answer["image_id"]] for _, answer in chosen]
    tall = [min(entry["height"] / entry["width"], TALLEST) for entry in shapes]
    heights = [max(tall[row::rows]) * PAGE / (ACROSS * len(PARTS)) + 0.2 for row in range(rows)]
    heights[0] += TITLE
    figure = sheet(PAGE, sum(heights))
    parts = np.asarray(figure.subfigures(rows, ACROSS, squeeze=False, height_ratios=heights))
    # the best is at the top of the left column
    for place, (part, (iou, answer)) in enumerate(zip(parts.T.ravel(), chosen, strict=False)):
        part.suptitle(f"“{shortened(answer['expression'], LETTERS)}”, IoU {iou:.2f}", x=0.01, ha="left", fontsize=6.5)
        line = part.subplots(1, len(PARTS))
        for axes in line:
            frame(axes)
        _draw(line, answer, found.images, fill=found.fill)
        for axes, title in zip(line, PARTS if place % rows == 0 else (), strict=False):
            axes.set_title(title, fontsize=6)
    recipe, seed = recipe_name(found.record, results.known), found.record["columns"]["seed"]
    who = f"Partial-RES ({row_of(found.record) or 'a network of its own'}; recipe {recipe}, seed {seed})"
    caption = (
        f"What expressions mean, by {who}: image, predicted contour points, the mask that they enclose (blue) "
        f"and the human mask (orange), with its IoU. Rule: of {_counted(found)} those at "
        f"{len(chosen)} equal steps of the ranking by IoU, from the best to the worst. "
        + provenance([[found.record]], f"{found.asked} expressions")
        + found.images.attribution([int(answer["image_id"]) for _, answer in chosen])
    )
    return figure, caption, found.images.notes()


def _answered(record: Record, results: Results) -> Answered:
    """
    Raises:
        LeftOut: a file is missing or fits no other, or nothing may be shown.
    """
    scores = results.arrays(record, "iou.npz", ("ids", "iou"))
    asked = results.source(record, "refer_")
    measured = {int(i) for i in scores["ids"]}
    answers = [answer for answer in results.json(asked, "refer.json") if answer["id"] in measured]
    if [answer["id"] for answer in answers] != scores["ids"].tolist():
        raise LeftOut(f"{address(record)}: iou.npz is not of the expressions of {address(asked)}/refer.json")
    images = photographs(results, record)
    kept = [
        (float(iou), answer)
        for iou, answer in zip(scores["iou"], answers, strict=True)
        if answer["image_id"] in images.records and answer["id"] in images.humans
    ]
    if not kept:
        raise LeftOut(f"{address(record)}: no expression is about an image that may be shown")
    order = sorted(range(len(kept)), key=lambda place: (-kept[place][0], place))
    settings = dict(flatten(asked["config"]))
    ranked = [kept[place] for place in order]
    return Answered(record, ranked, len(answers), images, settings.get(FILL, "contour"))


def _counted(found: Answered) -> str:
    if len(found.answers) == found.asked:
        return f"{found.asked} validation expressions"
    return f"the {len(found.answers)} of {found.asked} validation expressions whose images can be shown"


def answered(answer: Json, entry: Json, *, fill: str) -> np.ndarray:
    """The mask of an answer that was scored, (height, width) bool: its own, or what its points enclose.

    Args:
        answer: `segmentation` or `points`, [[x, y], …]. entry: of its image. fill: see `mask_of`.
    """
    if answer.get("segmentation"):
        return decode(answer["segmentation"], entry)
    points = np.array(answer.get("points", []), dtype=np.float64).reshape(-1, 2)
    return mask_of(points, entry["height"], entry["width"], fill)


def shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask (H, W) bool as `fit` shrinks it, or, where that leaves nothing of it, all that it touches."""
    found = fit(mask, side)
    if found.any() or not mask.any():
        return found
    height, width = found.shape
    rows, columns = mask.nonzero()
    found = np.zeros_like(found)
    found[rows * height // len(mask), columns * width // mask.shape[1]] = True
    return found


def _mask(axes: Axes, picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """A mask on a picture; a ring around one that is too small to be seen."""
    here = shrunk(mask, SIDE)
    draw_masks(axes, picture, [(here, colour)])
    rows, columns = here.nonzero()
    if len(rows) and max(np.ptp(rows), np.ptp(columns)) < TINY * max(here.shape):
        axes.scatter(columns.mean(), rows.mean(), s=60, facecolors="none", edgecolors=[tuple(colour)], linewidths=0.8)


def _draw(line: Any, answer: Json, images: Photographs, *, fill: str) -> None:
    """A row of pictures, as PARTS names them."""
    entry, human = images.records[answer["image_id"]], images.humans[answer["id"]]
    pixels = images.pixels(answer["image_id"])
    picture = fit(pixels, SIDE)
    line[0].imshow(picture)
    points = answer.get("points", [])
    _points(line[1], picture, np.array(points, dtype=np.float64).reshape(-1, 2) * len(picture) / len(pixels))
    _mask(line[2], picture, answered(answer, entry, fill=fill), PSEUDO)
    _mask(line[3], picture, decode(human["segmentation"], entry), HUMAN)


def _points(axes: Axes, picture: np.ndarray, points: np.ndarray) -> None:
    """The first point is red: the sequence begins there."""
    axes.imshow(picture)
    if len(points):
        red, green, blue = PSEUDO.tolist()
        x, y = (points - 0.5).T
        axes.plot([*x, x[0]], [*y, y[0]], color="white", linewidth=1.3)
        axes.plot([*x, x[0]], [*y, y[0]], color=(red, green, blue), linewidth=0.8)
        faces = ["red", *["white"] * (len(x) - 1)]
        axes.scatter(x, y, s=6, c=faces, edgecolors=(red, green, blue), linewidths=0.6, zorder=3)
    axes.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
