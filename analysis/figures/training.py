"""Losses over the steps of training: of labelers, and of segmenters by what they were trained on."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.columns import line
from analysis.figures.drawn import PAGE, legend, sheet
from analysis.figures.results import Group, LeftOut, Results, read_groups
from analysis.figures.series import COLOURS, Drawing, Look, alpha, each, labeler, looks, names, provenance
from analysis.records import Record, grouped

PARTS = {  # of a labeler's log → the title of its panel
    "mil": "MIL loss",
    "crf": "CRF loss",
    "total": "weighted sum (weights warm up)",
    "foreground": "refined share of the box",
}
HUMAN: Look = {"color": "#000000", "linestyle": "solid", "marker": ""}  # masks that no labeler made
INSTEAD = "#8C564B"  # of black, which is that of human masks
ACROSS = 3  # panels beside each other
ROOM = 5  # lines that a panel can name inside


@each("train_labeler")
def of_labelers(groups: list[Group], results: Results) -> Drawing:
    """MIL and CRF loss, their weighted sum, and the share of foreground, a panel each."""
    curves, left_out = read_groups(groups[: len(COLOURS)], results.curves)
    if (hidden := len(groups) - len(COLOURS)) > 0:
        left_out.append(f"{hidden} labelers that fewer results are built on")
    if not curves:
        raise LeftOut(*left_out)
    parts = {part: title for part, title in PARTS.items() if all(part in f for _, fs in curves for f in fs)}
    figure = sheet(PAGE, 1.9)
    shown = [group for group, _ in curves]
    for axes, (part, title) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        for name, look, (_, frames) in zip(names(shown, results), looks(shown), curves, strict=True):
            draw_curve(axes, frames, part, name, look)
        axes.set(title=title, xlabel="step")
        axes.set_ylim(bottom=0)
    legend(figure, axes)
    caption = (
        "What labelers logged while they learned from boxes: each point is the mean over the steps since the last. "
        "Bands: the range of the seeds. " + provenance(shown, _batches(shown[0][0], "RoIs"))
    )
    return figure, caption, left_out


@each("train_segmenter")
def of_segmenters(groups: list[Group], results: Results) -> Drawing:
    """The training loss, a panel a segmenter, a line a kind of masks that it was trained on."""
    panels = grouped(groups, lambda group: group[0]["columns"]["segmenter"])
    rows = -(-len(panels) // ACROSS)
    figure = sheet(PAGE, 1.75 * rows + 0.2)
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    shown: list[Group] = []
    left_out: list[str] = []
    most = 0
    for axes, (segmenter, members) in zip(grid, sorted(panels.items()), strict=False):
        members.sort(key=lambda group: _place(group[0]["columns"]))
        curves, missing = read_groups(members, results.curves)
        left_out += missing
        kept = [group for group, _ in curves]
        pseudo = iter(_apart_from_human(looks([group for group in kept if not _is_human(group[0])])))
        for name, (group, frames) in zip(names(kept, results, _trained_on), curves, strict=True):
            draw_curve(axes, frames, "loss", name, HUMAN if _is_human(group[0]) else next(pseudo))
        axes.set(title=segmenter, xlabel="step")
        most = max(most, len(kept))
        shown += kept
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if not shown:
        raise LeftOut(*left_out)
    drawn = grid[: len(panels)]
    if most > ROOM:
        legend(figure, *drawn)
    else:
        for axes in drawn:
            axes.legend(loc="upper right")
    caption = (
        "Training loss of segmenters, each against the masks that it was trained on: a lower loss on simpler masks "
        "(filled boxes) says nothing about their truth. Bands: the range of the seeds. "
        + provenance(shown, f"{sum(map(len, shown))} trainings")
    )
    return figure, caption, left_out


def _place(columns: Mapping[str, Any]) -> int:
    """Where a segmenter's line stands among others: on human masks first, then by the labeler, on boxes alone last."""
    if columns.get("supervision") == "human" or columns.get("labeler") == "gt":
        return -1
    return line(columns)


def _is_human(record: Record) -> bool:
    """Whether a segmenter learned from the annotators' own masks or boxes."""
    return record["columns"].get("supervision") in ("human", "boxes")


def _apart_from_human(found: list[Look]) -> list[Look]:
    return [{**look, "color": INSTEAD} if look["color"] == HUMAN["color"] else look for look in found]


def _trained_on(record: Record) -> str:
    supervision = record["columns"].get("supervision")
    return {"human": "human masks", "boxes": "boxes, no mask head"}.get(supervision) or labeler(record)


def draw_curve(axes: Axes, frames: list[pd.DataFrame], part: str, name: str, look: Look) -> None:
    """The mean over seeds at each step that all of them logged, and their range."""
    table = pd.concat([frame.set_index("step")[part] for frame in frames if part in frame], axis=1, join="inner")
    single = len(table) == 1  # one point makes no line
    look = {**look, "marker": (look.get("marker") or "o") if single else ""}
    axes.plot(table.index, table.mean(axis=1), label=name, **look)
    if table.shape[1] > 1:
        colour, faint = look["color"], alpha(look)
        axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=colour, alpha=faint, linewidth=0)


def _batches(record: Record, what: str) -> str:
    batch = record["config"].get("train", {}).get("batch")
    return f"batches of {batch} {what}" if batch else "batches of unknown size"
