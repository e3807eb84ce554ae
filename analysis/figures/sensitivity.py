"""Figure 7: mask AP of a segmenter, and the IoU of the masks it learned from, against MAL's four constants."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.figures.drawn import COLUMN, PAGE, Sketch, sheet
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, Ends, bands, file_part, is_mal, mean_iou, names, provenance
from analysis.figures.sweeps import Sweep, draw_sweeps, sweeps
from analysis.intervals import interval
from analysis.records import address
from mal.errors import MalError

PANELS = {  # title → where the labeler's config has it, and the paper's value (§4.2)
    "α_mil": (("loss", "mil_weight"), 4.0),
    "α_crf": (("loss", "crf_weight"), 0.5),
    "ζ": (("crf", "zeta"), 0.5),
    "ω": (("crf", "omega"), 2.0),
}
ROWS = (("ap_val", "mask AP"), ("quality_val", "mask IoU"))


def sensitivity(results: Results) -> Iterator[Sketch]:
    """A panel a constant that was varied; above mask AP (the paper's figure), below the masks' IoU with human ones."""
    found = {
        (stage, title): sweeps(results, stage, at="train_labeler", path=path, wanted=is_mal)
        for stage, _ in ROWS
        for title, (path, _) in PANELS.items()
    }
    for data, profile in sorted(set().union(*found.values())):
        here = {key: several.get((data, profile), []) for key, several in found.items()}
        rows = [row for row in ROWS if any(here[row[0], title] for title in PANELS)]
        panels = [title for title in PANELS if any(here[stage, title] for stage, _ in rows)]
        figure = sheet(max(COLUMN, PAGE * len(panels) / len(PANELS)), 1.55 * len(rows) + 0.25)
        grid = figure.subplots(len(rows), len(panels), sharey="row", squeeze=False)
        shown: list[Group] = []
        left_out: list[str] = []
        for place, (line, (stage, ylabel)) in enumerate(zip(grid, rows, strict=True)):
            line[0].set_ylabel(ylabel)
            measure = _ap if stage == "ap_val" else _iou
            for axes, title in zip(line, panels, strict=True):
                axes.axvline(PANELS[title][1], color="#aaaaaa", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
                shown += _panel(axes, here[stage, title], measure, results, left_out)
                if place == len(rows) - 1:
                    axes.set_xlabel(f"{title[0]}$_{{\\mathrm{{{title[2:]}}}}}$" if title[1:] else title)
        what = "Above the AP of a segmenter trained on the masks, below the IoU of the masks with human ones, both"
        caption = (
            "Sensitivity to the weights of the losses and the constants of the mean field: results joined by a line "
            "differ in that value alone and have the same seeds. Dashed: the paper's value. "
            f"{what if len(rows) == len(ROWS) else rows[0][1]} on the validation images. "
        )
        distinct = list({group[0]["key"]: group for group in shown}.values())
        if not distinct:
            yield Sketch(file_part(data, profile), None, left_out=tuple(left_out))
            continue
        counts = f"{len(distinct)} results"
        caption += f"{bands(distinct)} {provenance(distinct, counts)}"
        yield Sketch(file_part(data, profile), figure, caption, tuple(dict.fromkeys(left_out)))


def _panel(
    axes: Axes, several: list[Sweep], measure: Callable[[Group, Results], Ends], results: Results, left_out: list[str]
) -> list[Group]:
    """Draw the sweeps of one constant; returns the groups shown."""
    if hidden := len(several) - len(COLOURS):
        left_out += [f"{hidden} shorter series of a panel"] * (hidden > 0)
    several = several[: len(COLOURS)]
    titles = names([sweep.groups[0] for sweep in several], results, lambda r: str(r["columns"].get("segmenter", "MAL")))
    shown = draw_sweeps(axes, several, titles, lambda group: measure(group, results), left_out)
    values = sorted({value for sweep in several for value in sweep.values})
    if values and min(values) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    if values:
        axes.xaxis.set_major_locator(FixedLocator(_apart(values)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".removeprefix("0") or "0")
    if len(several) > 1:
        axes.legend()
    return shown


def _apart(values: list[float]) -> list[float]:
    """Those of rising values that leave room for their labels on a log scale: each 1.5 times the last at least."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= 1.5 * kept[-1]:
            kept.append(value)
    return kept


def _ap(group: Group, results: Results) -> Ends:
    """Mean over seeds and their range; of one seed the interval over images, from the saved matches.

    Raises:
        LeftOut: there is no AP of masks, or its matches are not in the store.
    """
    if absent := [r for r in group if not isinstance((r["metrics"].get("mask_ap") or {}).get("value"), float)]:
        raise LeftOut(f"{address(absent[0])}: no mask AP")
    values = [record["metrics"]["mask_ap"]["value"] for record in group]
    if len(values) > 1:
        return float(np.mean(values)), min(values), max(values)
    try:
        found = interval(group[0], "mask_ap", results.store)
    except MalError as error:
        raise LeftOut(str(error)) from error
    if found is None:
        raise LeftOut(f"{address(group[0])}: its matches_segm.npz is not in the store")
    return found.value, found.low, found.high


def _iou(group: Group, results: Results) -> Ends:
    """Mean over seeds and their range; of one seed the interval over images.

    Raises:
        LeftOut: there is no table of instances.
    """
    return mean_iou([results.instances(record) for record in group])
