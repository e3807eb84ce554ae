"""Figures 4 and 6: masks that MAL made, and the same beside human ones. Nothing is picked by hand."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

from analysis.drawing import HUMAN, PSEUDO, decode, even_places
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import Photographs, draw_masks, fit, frame, photographs
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, Drawing, each, is_mal, labeler, provenance
from analysis.images import by_id
from analysis.recipes import recipe_name
from analysis.records import Json, Record, address
from analysis.sheet import SMALLEST, window

ROWS, COLUMNS = 3, 5  # Figure 4: an odd number of images, so that the median is one of them
STEPS, WORST = 9, 9  # Figure 6: instances at equal steps of the ranking, and those at its end
SIDE = 400  # pixels of a picture in a figure, at most


@dataclass(frozen=True)
class Ranked:
    """A labeler's scored masks, best first, and the images that they lie on."""

    record: Record  # quality_val
    table: pd.DataFrame
    labels: dict[int, Json]
    images: Photographs


@each("quality_val", is_mal)
def masks_made(groups: list[Group], results: Results) -> Drawing:
    """Figure 4: images with all masks that MAL made in them, from the best image to the worst."""
    found = _ranked(groups[0], results)
    means = found.table.groupby("image_id")[["iou"]].mean().reset_index()
    means = means.sort_values(["iou", "image_id"], ascending=[False, True], ignore_index=True)
    chosen = even_places(len(means), ROWS * COLUMNS)
    figure = sheet(PAGE, 1.52 * ROWS)
    grid = figure.subplots(ROWS, COLUMNS).ravel()
    for axes in grid:
        frame(axes)
    special = {0: "best", chosen[-1]: "worst", chosen[len(chosen) // 2]: "median"}
    for axes, place in zip(grid, chosen, strict=False):
        _draw_masks(axes, found, int(means["image_id"][place]))
        axes.set_title(f"{special.get(place, f'rank {place + 1}')}: {means['iou'][place]:.2f}")
    rule = (
        f"Masks that {_who(found.record, groups, results)} made of boxes. Rule: of {len(means)} validation "
        f"images, those at {len(chosen)} equal steps of the ranking by the mean IoU of the image's masks with the "
        "human ones (above each), best, median and worst among them. Colours tell instances apart. "
    )
    images = [int(means["image_id"][place]) for place in chosen]
    caption = rule + provenance([[found.record]], f"{len(found.table)} instances") + found.images.attribution(images)
    return figure, caption, found.images.notes()


@each("quality_val", is_mal)
def beside_human(groups: list[Group], results: Results) -> Drawing:
    """Figure 6: boxes, MAL's masks and human masks, from the best to the worst, and the largest disagreements."""
    found = _ranked(groups[0], results)
    sides = np.array([min(found.labels[i]["bbox"][2:]) for i in found.table["annotation_id"]])
    table = found.table[sides >= SMALLEST].reset_index(drop=True)
    if table.empty:
        raise LeftOut(f"{address(found.record)}: no box of {SMALLEST} × {SMALLEST} pixels has a mask of its own")
    worst = list(range(max(len(table) - WORST, (len(table) + 1) // 2), len(table)))
    steps = even_places(len(table) - len(worst), STEPS)
    figure = sheet(PAGE, 5.1)
    parts = np.asarray(figure.subfigures(2, 1, hspace=0.02))
    _block(parts[0], f"at equal steps of the ranking of {len(table)} instances", table.iloc[steps], found)
    _block(parts[1], "largest disagreements", table.iloc[worst], found)
    rule = (
        f"Masks that {_who(found.record, groups, results)} made of boxes (blue) beside human ones (orange). "
        f"Rule: of the {len(table)} validation instances with a box of at least {SMALLEST} × {SMALLEST} pixels, "
        f"ranked by IoU, those at {len(steps)} equal steps (above), but for the {len(worst)} of lowest IoU, which "
        "are all shown (below). "
    )
    images = [int(image) for image in table.iloc[steps + worst]["image_id"]]
    caption = rule + provenance([[found.record]], f"{len(found.table)} instances") + found.images.attribution(images)
    return figure, caption, found.images.notes()


def _who(record: Record, groups: list[Group], results: Results) -> str:
    """The labeler shown, and by which rule where there are several."""
    columns = record["columns"]
    name = (
        f"{labeler(record)} ({columns['encoder']}, recipe {recipe_name(record, results.known)}, seed {columns['seed']})"
    )
    if len(groups) == 1:
        return name
    return f"{name}, of {len(groups)} labelers the one that most results of the store are built on,"


def _ranked(group: Group, results: Results) -> Ranked:
    """The first seed's masks; crowds are not scored, and boxes the labeler skipped have no mask of its own.

    Raises:
        LeftOut: a file is missing, or there is nothing to show.
    """
    record = group[0]
    labels = by_id(results.json(results.source(record, "label_"), "labels.json")["annotations"])
    images = photographs(results, record)
    table = results.instances(record)
    table = table[~table["flagged"] & table["image_id"].isin(images.records) & table["annotation_id"].isin(labels)]
    if table.empty:
        raise LeftOut(f"{address(record)}: no mask of the labeler's own on an image that may be shown")
    table = table.sort_values(["iou", "annotation_id"], ascending=[False, True], ignore_index=True)
    return Ranked(record, table, labels, images)


def _draw_masks(axes: Axes, found: Ranked, image: int) -> None:
    """An image with all masks that are scored in it, large ones first, so that small ones stay visible."""
    picture = fit(found.images.pixels(image), SIDE)
    here = found.table[found.table["image_id"] == image].sort_values("annotation_id")
    colours = {i: np.array(to_rgb(COLOURS[n % 6])) for n, i in enumerate(here["annotation_id"])}  # black is no tint
    masks = []
    for annotation in here.sort_values("area", ascending=False)["annotation_id"]:
        mask = decode(found.labels[annotation]["segmentation"], found.images.records[image])
        masks.append((fit(mask, SIDE), colours[annotation]))
    draw_masks(axes, picture, masks)


def _block(part: SubFigure, title: str, chosen: pd.DataFrame, found: Ranked) -> None:
    """Three rows of crops: the box, MAL's mask, the human mask; a column an instance."""
    part.suptitle(title, fontsize=7)
    grid = part.subplots(3, max(STEPS, WORST))
    for axes in grid.flat:
        frame(axes)
    for axes, name in zip(grid[:, 0], ("box", "MAL", "human"), strict=True):
        axes.set_ylabel(name)
    for column, row in zip(grid.T, chosen.to_dict("records"), strict=False):
        image = found.images.records[row["image_id"]]
        label, human = found.labels[row["annotation_id"]], found.images.humans[row["annotation_id"]]
        pixels = found.images.pixels(row["image_id"])
        left, top, wide, high = window(label["bbox"], pixels.shape[1::-1])
        part_of = slice(top, top + high), slice(left, left + wide)
        crop = fit(pixels[part_of], SIDE)
        share = len(crop) / len(pixels[part_of])
        column[0].imshow(crop)
        x, y, width, height = label["bbox"]
        corner = ((x - left) * share - 0.5, (y - top) * share - 0.5)
        for edge, line in (("w", 1.6), ("k", 0.7)):
            box = Rectangle(corner, width * share, height * share, fill=False, edgecolor=edge, linewidth=line)
            column[0].add_patch(box)
        column[0].set_title(f"IoU {row['iou']:.2f}", fontsize=6.5)
        for axes, one, colour in ((column[1], label, PSEUDO), (column[2], human, HUMAN)):
            draw_masks(axes, crop, [(fit(decode(one["segmentation"], image)[part_of], SIDE), colour)])
