"""Figure 2 of Partial-RES's supplement: where the points of a contour look, naive above, with all parts below."""

import numpy as np

from analysis.drawing import PSEUDO
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import frame
from analysis.figures.referring_looks import Looks, draw_contour, draw_truth, known, network_name, read_looks
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, each, provenance
from analysis.recipes import recipe_name
from analysis.records import Record, address, grouped
from analysis.referring_rows import row_of
from analysis.stats import mean_interval
from mal.engine.findings import number

BESIDE = ("full", "both")  # of the runs that naive is set against, the first that there is
EXPRESSIONS = 3  # in two rows each
POINTS = 4  # of a contour, at equal steps
ALIKE = ("percent", "seed", "encoder", "contour_points", "task", "recipe")  # columns of the two


@each("looks_val")
def attention(groups: list[Group], results: Results) -> Drawing:
    """Predicted points of some expressions, and the attention of a few of them."""
    runs = [read_looks(record, results) for record in side_by_side(groups)]
    naive, full = runs
    if naive.arrays["ids"].tolist() != full.arrays["ids"].tolist():
        raise LeftOut(f"{address(naive.record)} and {address(full.record)} show other expressions")
    chosen = [place for place in range(naive.count) if all(len(known(run.arrays["points"][place])) for run in runs)]
    if not chosen:
        raise LeftOut(f"{address(naive.record)}: no expression has points of both networks")
    silent, seen = naive.count - len(chosen), naive.shown(chosen)
    unseen, chosen = len(chosen) - len(seen), seen[:EXPRESSIONS]
    size = PAGE * 0.8 / (1 + POINTS)
    heights = [2 * size * float(down / wide) + 0.25 for wide, down in naive.arrays["valid"][chosen]]
    figure = sheet(PAGE * 0.8, sum(heights))
    parts = np.asarray(figure.subfigures(len(chosen), 1, squeeze=False, height_ratios=heights)).ravel()
    for place, part in zip(chosen, parts, strict=True):
        part.suptitle(naive.text(place, 60), x=0.005, ha="left", fontsize=7)
        for line, run in zip(part.subplots(2, 1 + POINTS), runs, strict=True):
            for axes in line:
                frame(axes)
            line[0].set_ylabel(network_name(run.record))
            run.pictured(line[0], place)
            draw_truth(line[0], run.arrays["truth"][place])
            draw_contour(line[0], run.arrays["points"][place], PSEUDO)
            _looking(line[1:], run, place)
    return figure, _caption(naive, full, chosen, silent, unseen, results), naive.images.notes()


def side_by_side(groups: list[Group]) -> tuple[Record, Record]:
    """Naive, and the network with all parts; alike in ALIKE, with the fewest masks and the lowest seed.

    Raises:
        LeftOut: the store has no such two.
    """
    records = [record for group in groups for record in group]
    alike = grouped(records, lambda record: tuple(record["columns"].get(name) for name in ALIKE))
    for _, some in sorted(alike.items(), key=lambda it: (it[0][0] or 0, it[0][1] or 0, str(it[0]))):
        rows: dict[str, Record] = {}
        for record in some:
            if (row := row_of(record)) is not None:
                rows.setdefault(row.name, record)
        beside = next((rows[name] for name in BESIDE if name in rows), None)
        if "naive" in rows and beside is not None:
            return rows["naive"], beside
    raise LeftOut("no naive network stands beside one with CCTF and PMCA, of one seed and share of the masks")


def _looking(line: np.ndarray, run: Looks, place: int) -> None:
    """The attention of some points on the image's cells, the mean of their two tokens, and the points in red."""
    points, maps = run.arrays["points"][place], run.arrays["attention"][place]
    side = run.arrays["images"].shape[1]
    tokens = sorted({*np.linspace(0, len(known(points)), POINTS, endpoint=False).astype(int).tolist()})
    for axes in line[len(tokens) :]:
        axes.set_axis_off()
    for axes, token in zip(line, tokens, strict=False):
        axes.imshow(np.mean(maps[2 * token : 2 * token + 2], axis=0), cmap="viridis", extent=(0, side, side, 0))
        axes.scatter(points[token, 0], points[token, 1], s=14, c="red", edgecolors="white", linewidths=0.6, zorder=3)
        run.cut(axes, place)
        draw_truth(axes, run.arrays["truth"][place])


def _caption(naive: Looks, full: Looks, chosen: list[int], silent: int, unseen: int, results: Results) -> str:
    before, after = naive.masses(), full.masses()
    both = ~np.isnan(before) & ~np.isnan(after)
    gain = mean_interval((after - before)[both], naive.arrays["image_ids"][both])
    name, columns = network_name(full.record), full.record["columns"]
    settings = f"recipe {recipe_name(full.record, results.known)}, {columns['percent']:g} % of the masks"
    means = f"naive {before[both].mean():.3f}, {name} {after[both].mean():.3f}"
    return (
        "Cross-attention of the last layer, mean of its heads, for some predicted contour points (red; the mean of x "
        f"and y), brighter where there is more; naive above, {name} below ({settings}). Attention in the true mask "
        f"(orange line): {means}, difference {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over images; "
        f"spread evenly it is {naive.areas()[both].mean():.3f}. "
        + naive.rule(
            f"the first {len(chosen)} with predicted points of both",
            without=f"{number(silent, 'lacks', 'lack')} points of one or both" if silent else "",
            unseen=unseen,
        )
        + provenance([[naive.record], [full.record]], f"{int(both.sum())} expressions")
        + naive.images.attribution(naive.image_ids(chosen))
    )
