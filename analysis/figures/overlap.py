"""Mask quality against occlusion: how much of a box other boxes of the image cover."""

import numpy as np
import pandas as pd

from analysis.figures.drawn import COLUMN, legend, sheet
from analysis.figures.quality import draw_lines, readable
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, bands, each, provenance
from analysis.records import Json, Record, address, grouped

SHARES = (0, 0.1, 0.25, 0.5, 0.75)  # lower ends of the bins, each open below; a bin of none at all stands before them


@each("quality_val")
def iou_by_overlap(groups: list[Group], results: Results) -> Drawing:
    """IoU against the share of the box that other boxes of the image cover."""

    def read(record: Record) -> pd.DataFrame:
        labels = results.json(results.source(record, "label_"), "labels.json")
        covered = covered_shares(labels["annotations"])
        table = results.instances(record)
        if absent := set(table["annotation_id"]) - covered.keys():
            raise LeftOut(f"{address(record)}: its labels have no box for annotation {min(absent)}")
        return table.assign(bin=overlap_bins(table["annotation_id"].map(covered).to_numpy()))

    tables, left_out = readable(groups, read, results)
    count = len(SHARES) + 1
    titles = ["none", *(f"{a:g}–{b:g}".replace("0.", ".") for a, b in zip(SHARES, (*SHARES[1:], 1), strict=True))]
    first = np.bincount(tables[0][1][0]["bin"], minlength=count)
    shown = np.flatnonzero(first)
    for frame in (frame for _, frames in tables for frame in frames):
        frame["bin"] = np.searchsorted(shown, frame["bin"])
    figure = sheet(COLUMN, 2.4)
    axes = figure.subplots()
    draw_lines(axes, np.arange(len(shown)), tables, results, len(shown))
    axes.set_xticks(range(len(shown)), [f"{titles[place]}\n{first[place]}" for place in shown])
    axes.set_xlabel("share of the box covered by other boxes / instances")
    axes.set_ylabel("mean IoU")
    legend(figure, axes)
    caption = (
        "Mean IoU with the human mask against the share of the box's area that the image's other annotated boxes "
        "cover together (crowds do not count); which of two objects is in front is not known. Below each bin: "
        f"how many instances. {bands([g for g, _ in tables])} "
        + provenance([g for g, _ in tables], f"{len(tables[0][1][0])} instances")
    )
    return figure, caption, left_out


def covered_shares(annotations: list[Json]) -> dict[int, float]:
    """Annotation id → the share of its box's area, in [0, 1], that the other boxes of its image cover together.

    Boxes are real-valued x, y, width, height; crowds cover nothing. A box without area is covered by nothing.
    """
    found = {}
    for group in grouped(annotations, lambda annotation: annotation["image_id"]).values():
        boxes = np.array([a["bbox"] for a in group], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        solid = np.array([not a.get("iscrowd") for a in group])
        for place, annotation in enumerate(group):
            others = np.delete(boxes, place, axis=0)[np.delete(solid, place)]
            found[annotation["id"]] = _covered(boxes[place], others)
    return found


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """The share of a box (x0, y0, x1, y1) inside the union of others, (n, 4), on the grid of all edges."""
    clipped = np.clip(others, np.tile(box[:2], 2), np.tile(box[2:], 2))
    clipped = clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]
    area = (box[2:] - box[:2]).prod()
    if not len(clipped) or area <= 0:
        return 0.0
    x, y = (np.unique(clipped[:, axis::2]) for axis in (0, 1))
    left, top, right, bottom = clipped.T[..., None]
    across = (left <= x[:-1]) & (x[1:] <= right)  # (n, cells)
    down = (top <= y[:-1]) & (y[1:] <= bottom)
    covered = (down[:, :, None] & across[:, None, :]).any(axis=0)
    return float(np.diff(y) @ covered @ np.diff(x) / area)


def overlap_bins(covered: np.ndarray) -> np.ndarray:
    """0 where nothing covers a box, else the number of the bin of SHARES, counted from 1, it lies in."""
    return np.where(covered <= 0, 0, np.searchsorted(SHARES, covered, side="left"))
