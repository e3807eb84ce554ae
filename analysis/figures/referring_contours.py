"""Figure 3 of Partial-RES's supplement: a filled prediction, points that are sampled on it again, the human mask's."""

import numpy as np

from analysis.drawing import HUMAN, PSEUDO
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.referring_looks import Looks, draw_contour, gap_variation, known, read_looks, with_most_parts
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, each, provenance
from analysis.recipes import recipe_name
from analysis.records import address
from analysis.referring_rows import row_of
from mal.engine.findings import number

COLUMNS = 7  # expressions
ROWS = {  # member of looks.npz → what stands beside its row
    "points": "prediction",
    "resampled": "sampled again",
    "true_points": "human mask's",
}


@each("looks_val")
def contours(groups: list[Group], results: Results) -> Drawing:
    """A column an expression, of the network with the most parts."""
    found = read_looks(with_most_parts(groups)[0], results)
    answered = [place for place in range(found.count) if len(known(found.arrays["points"][place]))]
    if not answered:
        raise LeftOut(f"{address(found.record)}: no expression has predicted points")
    seen = found.shown(answered)
    chosen = seen[:COLUMNS]
    size = PAGE / COLUMNS
    tallest = max(float(down / wide) for wide, down in found.arrays["valid"][chosen])
    figure = sheet(size * len(chosen) + 0.3, len(ROWS) * size * tallest + 0.35)
    grid = figure.subplots(len(ROWS), len(chosen), squeeze=False)
    for line, (name, title) in zip(grid, ROWS.items(), strict=True):
        line[0].set_ylabel(title)
        for axes, place in zip(line, chosen, strict=True):
            found.pictured(axes, place)
            colour = HUMAN if name == "true_points" else PSEUDO
            draw_contour(axes, found.arrays[name][place], colour, filled=name == "points")
    for axes, place in zip(grid[0], chosen, strict=True):
        axes.set_title(found.text(place, 20), fontsize=6)
    notes = [*found.images.notes(), *([f"{len(groups) - 1} other networks on this data"] if groups[1:] else [])]
    caption = _caption(found, chosen, found.count - len(answered), len(answered) - len(seen), results)
    return figure, caption, notes


def _caption(found: Looks, chosen: list[int], silent: int, unseen: int, results: Results) -> str:
    told = [_mean([gap_variation(points) for points in found.arrays[name]]) for name in ROWS]
    return (
        "Predicted points, joined and filled; points sampled on that mask as on a human one; the human mask's "
        f"({row_of(found.record) or 'a network of its own'}; recipe {recipe_name(found.record, results.known)}). "
        f"Variation of the gaps between neighbours (standard deviation over mean): {told[0]} as predicted, {told[1]} "
        f"sampled again, {told[2]} of the human masks'. "
        + found.rule(
            f"the first {len(chosen)} with predicted points",
            without=f"{number(silent, 'has', 'have')} none" if silent else "",
            unseen=unseen,
        )
        + provenance([[found.record]], f"{found.count} expressions")
        + found.images.attribution(found.image_ids(chosen))
    )


def _mean(values: list[float]) -> str:
    """Of those that there are."""
    return f"{np.nanmean(values):.2f}" if np.isfinite(values).any() else "-"
