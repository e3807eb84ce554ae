"""Where a labeler's threshold should lie, and whether the score of a mask tells how good it is."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.drawn import COLUMN, PAGE, Sketch, legend, sheet
from analysis.figures.quality import BINS, FEWEST, bins_of, middles, readable
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import (
    COLOURS,
    Drawing,
    Ends,
    bands,
    draw_band,
    each,
    file_part,
    is_mal,
    looks,
    mean_iou,
    names,
    over_seeds_or_images,
    provenance,
)
from analysis.figures.sweeps import draw_sweeps, sweeps
from analysis.records import Record, address

SIZES = {"all sizes": "SML", "small": "S", "medium": "M", "large": "L"}


def iou_by_threshold(results: Results) -> Iterator[Sketch]:
    """IoU against label.threshold, the same for all sizes; a panel a size of boxes."""
    found = sweeps(results, "quality_val", at="label_val", path=("label", "threshold"), value=_single, wanted=is_mal)
    for (data, profile), several in found.items():
        several = several[: len(COLOURS)]
        figure = sheet(PAGE, 1.85)
        titles = names([sweep.groups[0] for sweep in several], results)
        panels = figure.subplots(1, len(SIZES), sharey=True)
        for axes, sizes in zip(panels, SIZES.values(), strict=True):
            left_out: list[str] = []  # the same in each panel
            shown = draw_sweeps(axes, several, titles, partial(_mean, results, sizes), left_out)
        if not shown:
            yield Sketch(file_part(data, profile), None, left_out=tuple(left_out))
            continue
        for axes, title in zip(panels, SIZES, strict=True):
            axes.set(title=title, xlabel="threshold")
        panels[0].set_ylabel("mean IoU")
        legend(figure, panels[0])
        caption = (
            "Mean IoU with the human mask against the probability above which a pixel is called foreground "
            "(label.threshold, the same for all sizes): the same labelers label again with each value. "
            f"{bands(shown)} {provenance(shown, f'{len(shown)} labellings')}"
        )
        yield Sketch(file_part(data, profile), figure, caption, tuple(left_out))


@each("quality_val", is_mal)
def iou_by_score(groups: list[Group], results: Results) -> Drawing:
    """IoU against the score that a labeler gives its masks, in bins of equal count."""

    def read(record: Record) -> pd.DataFrame:
        labels = results.json(results.source(record, "label_"), "labels.json")["annotations"]
        scores = {one["id"]: one["score"] for one in labels if "score" in one and not one.get("flagged")}
        table = results.instances(record)
        table = table.assign(score=table["annotation_id"].map(scores)).dropna(subset="score")
        if table.empty:
            raise LeftOut(f"{address(record)}: its masks have no scores")
        return table

    tables, left_out = readable(groups, read, results, same=False)
    figure = sheet(COLUMN, 2.5)
    axes = figure.subplots()
    shown = [group for group, _ in tables]
    for name, look, (_, frames) in zip(names(shown, results), looks(shown), tables, strict=True):
        scores = np.concatenate([frame["score"] for frame in frames])
        count = max(1, min(BINS, len(frames[0]) // FEWEST))
        edges = np.quantile(scores, np.linspace(0, 1, count + 1))
        parts = [(f["iou"].to_numpy(), bins_of(f["score"], edges), f["image_id"].to_numpy()) for f in frames]
        places = middles(scores, bins_of(scores, edges), count)
        draw_band(axes, places, over_seeds_or_images(parts, count), look, label=name)
    axes.set(xlabel="score of a mask", ylabel="mean IoU")
    bottom = min(axes.get_xlim()[0], axes.get_ylim()[0])
    axes.plot([bottom, 1], [bottom, 1], color="#aaaaaa", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
    axes.set(xlim=(bottom, 1), ylim=(bottom, 1))
    legend(figure, axes)
    caption = (
        "Mean IoU with the human mask against the mask's score (the mean probability of its pixels), in bins of "
        "equal count, at each bin's mean score. Dashed: score = IoU. "
        f"{bands(shown)} {provenance(shown, f'{len(tables[0][1][0])} instances')}"
    )
    return figure, caption, left_out


def _single(thresholds: Any) -> float | None:
    """The threshold of all three sizes, where it is one."""
    same = isinstance(thresholds, list) and len(set(thresholds)) == 1
    return float(thresholds[0]) if same else None


def _mean(results: Results, sizes: str, group: Group) -> Ends:
    """Mean IoU of the boxes of some sizes, and its band; nan where there is none."""
    frames = [results.instances(record) for record in group]
    kept = [frame[frame["size"].isin(list(sizes))] for frame in frames]
    return (np.nan, np.nan, np.nan) if any(frame.empty for frame in kept) else mean_iou(kept)
