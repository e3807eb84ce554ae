"""Mask quality beyond its mean: by the size of the box, and at the boundary."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from analysis.columns import line
from analysis.figures.drawn import COLUMN, PAGE, legend, sheet
from analysis.figures.results import Group, LeftOut, Results, Tables, read_groups
from analysis.figures.series import (
    COLOURS,
    SETTINGS,
    Drawing,
    alpha,
    bands,
    draw_band,
    each,
    looks,
    names,
    over_seeds_or_images,
    provenance,
)
from analysis.recipes import departures
from analysis.records import Record

BINS = 10  # of equal count
FEWEST = 20  # instances of a bin, below which a mean says little
TICKS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)  # pixels
PANELS = (("iou", "IoU", "lower left"), ("boundary_iou", "boundary IoU", "upper right"))


@each("quality_val")
def iou_by_size(groups: list[Group], results: Results) -> Drawing:
    """IoU against the square root of the box's area, in bins of equal count."""
    tables, left_out = readable(groups, results.instances, results)
    sides = np.sqrt(np.concatenate([table["area"] for table in tables[0][1]]))
    count = max(1, min(BINS, len(tables[0][1][0]) // FEWEST))
    edges = np.quantile(sides, np.linspace(0, 1, count + 1))
    for frame in (frame for _, frames in tables for frame in frames):
        frame["bin"] = bins_of(np.sqrt(frame["area"]), edges)
    figure = sheet(COLUMN, 2.3)
    axes = figure.subplots()
    places = middles(sides, bins_of(sides, edges), count)
    draw_lines(axes, places, tables, results, count)
    _size_axis(axes, places)
    axes.set_ylabel("mean IoU")
    legend(figure, axes)
    n = len(tables[0][1][0])
    caption = (
        f"Mean IoU with the human mask against the box's size, in {count} bins of equal count "
        f"(about {n // count} boxes each), at each bin's mean size. {bands([g for g, _ in tables])} "
        + provenance([g for g, _ in tables], f"{n} instances")
    )
    return figure, caption, left_out


@each("quality_val")
def iou_and_boundary(groups: list[Group], results: Results) -> Drawing:
    """What share of the masks reaches an IoU, and a boundary IoU."""
    tables, left_out = readable(groups, results.instances, results)
    levels = np.linspace(0, 1, 101)
    figure = sheet(PAGE, 2.3)
    panels = figure.subplots(1, 2, sharey=True)
    shown = [group for group, _ in tables]
    for axes, (column, title, place) in zip(panels, PANELS, strict=True):
        for name, look, (_, frames) in zip(names(shown, results), looks(shown), tables, strict=True):
            colour, faint = look["color"], alpha(look)
            each = np.array([(frame[column].to_numpy()[:, None] >= levels).mean(axis=0) for frame in frames])
            mean = np.mean([frame[column].mean() for frame in frames])
            look = {key: value for key, value in look.items() if key != "marker"}
            axes.plot(levels, each.mean(axis=0), label=f"{name}: {mean:.3f}", **look)
            if len(each) > 1:
                axes.fill_between(levels, each.min(axis=0), each.max(axis=0), color=colour, alpha=faint, lw=0)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=f"{title} at least")
        axes.legend(title=f"mean {title}", loc=place, alignment="left", title_fontsize=6.5)
    panels[0].set_ylabel("share of the masks")
    caption = (
        "Share of the masks whose IoU (left) and boundary IoU (right; the parts within 2 % of the image's diagonal "
        "of the contours) with the human mask reaches a value; the area below a curve is the mean in the legend. "
        "Bands: the range of the seeds. " + provenance(shown, f"{len(tables[0][1][0])} instances")
    )
    return figure, caption, left_out


def readable(
    groups: list[Group], read: Callable[[Record], pd.DataFrame], results: Results, *, same: bool = True
) -> tuple[Tables, list[str]]:
    """The groups' tables, flagged boxes included, and sentences about what cannot be shown.

    With `same`, all are of the same instances: those on which most kinds of labelers are scored. Of labelers with the
    same encoder, decoder, recipe and θ (the members of a sweep, say) one is shown, and at most one for each colour: of
    those that were made as the recipe is today, or else of all, the one that most results are built on.

    Raises:
        LeftOut: there is none.
    """
    found, left_out = read_groups(groups, read)
    if other := len(found) - len(found := _same_instances(found) if same else found):
        left_out.append(f"{other} labelers scored on other instances than those shown")
    found.sort(key=lambda entry: bool(departures(entry[0][0], results.known)))
    if hidden := len(found) - len(found := _one_each(found)):
        left_out.append(f"{hidden} labelers that fewer results are built on, or not as their recipe is today")
    found.sort(key=lambda entry: line(entry[0][0]["columns"]))
    if not found:
        raise LeftOut(*left_out)
    return found, left_out


def _same_instances(found: Tables) -> Tables:
    sets: dict[frozenset[int], Tables] = {}
    for entry in found:
        ids = {frozenset(frame["annotation_id"]) for frame in entry[1]}
        if len(ids) == 1:
            sets.setdefault(ids.pop(), []).append(entry)
    kinds = {ids: len({entry[0][0]["columns"].get("labeler") for entry in some}) for ids, some in sets.items()}
    return sets[max(kinds, key=lambda ids: kinds[ids])] if kinds else []


def _one_each(found: Tables) -> Tables:
    first: dict[tuple[str, ...], tuple[Group, list[pd.DataFrame]]] = {}
    for entry in found:
        first.setdefault(tuple(str(entry[0][0]["columns"].get(name)) for name in ("labeler", *SETTINGS)), entry)
    trained = [entry for entry in first.values() if "recipe" in entry[0][0]["columns"]]
    return [entry for entry in first.values() if not any(entry is other for other in trained[len(COLOURS) :])]


def draw_lines(axes: Axes, places: np.ndarray, tables: Tables, results: Results, count: int) -> None:
    """A line and a band a group: the mean IoU in each of `count` bins, the tables' column `bin`, over the places."""
    shown = [group for group, _ in tables]
    for name, look, (_, frames) in zip(names(shown, results), looks(shown), tables, strict=True):
        parts = [(f["iou"].to_numpy(), f["bin"].to_numpy(), f["image_id"].to_numpy()) for f in frames]
        draw_band(axes, places, over_seeds_or_images(parts, count), look, label=name)


def bins_of(values: ArrayLike, edges: np.ndarray) -> np.ndarray:
    """The bin of each value, from 0; the first and the last are open."""
    return np.searchsorted(edges[1:-1], np.asarray(values), side="right")


def middles(values: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    return np.array([values[bins == place].mean() if (bins == place).any() else np.nan for place in range(count)])


def _size_axis(axes: Axes, places: np.ndarray) -> None:
    """Log scale with COCO's limits of small and medium marked."""
    axes.set_xscale("log")
    axes.set_xlabel("√(box area), pixels")
    low, high = np.nanmin(places) / 1.1, np.nanmax(places) * 1.1
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low < tick < high]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    for limit in (32, 96):
        axes.axvline(limit, color="#bbbbbb", linewidth=0.6, linestyle=(0, (3, 2)), zorder=0)
    for place, name in ((32, "S "), (32, " M"), (96, "M "), (96, " L")):
        if low < place < high:
            axes.text(place, 1.0, name, transform=axes.get_xaxis_transform(), color="#888888", fontsize=6, va="top",
                      ha="right" if name.endswith(" ") else "left")  # fmt: skip
