"""Figure 1 of Partial-RES's supplement: IoU of contour points and of the rival without a sequence, each from the
training of boxes and from scratch, over the share of the masks; and in the course of their trainings. Beside them what
the whole method makes of the same masks.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.drawn import PAGE, legend, sheet
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, Ends, Look, bands, draw_band, each, over_course, provenance
from analysis.intervals import interval
from analysis.records import Record, address, grouped
from analysis.referring_rows import Row, key_of, row_of
from mal.engine.findings import number

LINES: dict[str, tuple[str, Look]] = {  # row → its name and look: colours are models, dashes starts
    "naive": ("contour points, from boxes", {"color": "#0072B2", "linestyle": "solid", "marker": "o"}),
    "alone": ("contour points, from scratch", {"color": "#0072B2", "linestyle": (0, (4, 2)), "marker": "s"}),
    "query": ("query and pixel mask, from boxes", {"color": "#D55E00", "linestyle": "solid", "marker": "^"}),
    "query alone": (
        "query and pixel mask, from scratch",
        {"color": "#D55E00", "linestyle": (0, (4, 2)), "marker": "D"},
    ),
    "full": (
        "contour points, all of Partial-RES",
        {"color": "#009E73", "linestyle": "solid", "marker": "v"},
    ),
}


class Line(NamedTuple):
    """Groups of one row, by rising share of the masks."""

    name: str
    look: Look
    groups: list[tuple[float, Group]]


def _asked(record: Record) -> bool:
    row = row_of(record)
    return row is not None and row.name in LINES and row.task in ("", "learnable")


def _row(record: Record) -> Row:
    """Of a result that was asked for."""
    row = row_of(record)
    assert row is not None
    return row


@each("res_val", _asked)
def fractions(groups: list[Group], results: Results) -> Drawing:
    """IoU over the share of the masks, and in the course of training with the fewest and with the most."""
    groups, left = _alike(groups, results)
    lines = [*_lines(groups)]
    shares = sorted({percent for line in lines for percent, _ in line.groups})
    ends = shares[:: len(shares) - 1] if shares[1:] else shares
    found, notes = _courses(lines, ends, results)
    if len(shares) < 2 and not found:
        raise LeftOut(
            f"results with {shares[0]:g} % of the masks alone, and none of a training's course: no axis to draw"
        )
    figure = sheet(PAGE, 2.5)
    first, *others = figure.subplots(1, 1 + len(found), squeeze=False)[0]
    for line in lines:
        values = np.array([(percent, *_ends(group, results)) for percent, group in line.groups]).T
        draw_band(first, values[0], [*values[1:]], line.look, label=line.name)
    first.set(xscale="log", xlabel="objects with a mask, %", ylabel="IoU", title="after training")
    first.set_xticks(shares, [f"{share:g}" for share in shares])
    first.minorticks_off()
    first.set_ylim(bottom=0)
    for axes, (share, courses) in zip(others, found.items(), strict=True):
        _draw_courses(axes, courses, share)
    left_out = [f"{number(left, 'result')} of other lengths or settings"] if left else []
    left_out += notes
    legend(figure, first)
    shown = [group for line in lines for _, group in line.groups]
    caption = (
        "Masks from expressions by the share of the training objects whose masks are seen, by a sequence of contour "
        "points and by a query with a pixel mask, each trained from the training of boxes (naive) or from scratch, "
        f"without CCTF, PMCA and pseudo points{': after training, and in its course' if found else ''}. {_whole(lines)}"
        f"{bands(shown)} "
    )
    expressions = {entry["n"] for r in (g[0] for g in shown) if (entry := r["metrics"].get("mean_iou"))}
    counts = f"{' or '.join(map(str, sorted(expressions)))} expressions"
    return figure, caption + provenance(shown, counts), left_out


def _alike(groups: Sequence[Group], results: Results) -> tuple[list[Group], int]:
    """The most results that differ in share, model, start and parts alone, of several equally many those of fewest
    steps; of predictions learned from those of one threshold; and how many others there are. A rival has none of a
    sequence's settings to be alike in."""

    def settings(group: Group) -> tuple[int, Any]:
        return _row(group[0]).steps or 0, key_of(group[0], results.known).settings

    def of_sequence(group: Group) -> tuple[Any, ...] | None:
        row = _row(group[0])
        return None if row.points is None else (row.points, key_of(group[0], results.known).sequence)

    def fit(one: tuple[Any, Any]) -> list[Group]:
        return [group for group in groups if settings(group) == one[0] and of_sequence(group) in (None, one[1])]

    families = dict.fromkeys((settings(group), of_sequence(group)) for group in groups)
    chosen = max(map(fit, families), key=lambda found: (len(found), -settings(found[0])[0]))
    by_threshold = grouped(chosen, lambda group: _row(group[0]).threshold)
    plain = by_threshold.pop(None, [])
    of_one = max(by_threshold.items(), key=lambda it: (len(it[1]), -(it[0] or 0)))[1] if by_threshold else []
    alike = {_row(group[0]): group for group in (*plain, *of_one)}
    return [*alike.values()], len(groups) - len(alike)


def _whole(lines: Sequence[Line]) -> str:
    """What the line of the whole method is, if it is drawn."""
    whole = next((row for line in lines for _, group in line.groups if (row := _row(group[0])).name == "full"), None)
    if whole is None:
        return ""
    return f"All of Partial-RES: with all three, pseudo masks being its own predictions of d < {whole.threshold:g}. "


def _lines(groups: Sequence[Group]) -> Iterator[Line]:
    """In the order of LINES."""
    found = grouped(groups, lambda group: _row(group[0]).name)
    for row, (name, look) in LINES.items():
        if some := found.get(row):
            yield Line(name, look, sorted(((float(g[0]["columns"]["percent"]), g) for g in some), key=lambda it: it[0]))


def _ends(group: Group, results: Results) -> Ends:
    """The mean IoU, and the seeds' range, or of one seed its interval over images."""
    values = [record["metrics"]["mean_iou"]["value"] for record in group]
    found = interval(group[0], "mean_iou", results.store)
    if len(values) > 1 or found is None:
        return float(np.mean(values)), min(values), max(values)
    return found.value, found.low, found.high


def _courses(
    lines: Sequence[Line], shares: Sequence[float], results: Results
) -> tuple[dict[float, list[tuple[Look, NDArray[np.float64]]]], list[str]]:
    """share → the look of a line and its mean IoU over the course of training (seeds, parts), where its networks were
    kept; and why others are not shown."""
    found: dict[float, list[tuple[Look, NDArray[np.float64]]]] = {}
    notes = []
    for share in shares:
        for line in lines:
            for _, group in (pair for pair in line.groups if pair[0] == share):
                try:
                    means = [_measured(record, results) for record in group]
                except LeftOut as error:
                    notes.append(str(error))
                    continue
                found.setdefault(share, []).append((line.look, np.array(means)))
    return found, notes


def _draw_courses(axes: Axes, courses: Sequence[tuple[Look, NDArray[np.float64]]], share: float) -> None:
    for look, means in courses:
        parts = np.arange(1, means.shape[1] + 1) / means.shape[1]
        draw_band(axes, 100 * parts, [means.mean(axis=0), means.min(axis=0), means.max(axis=0)], look)
    axes.set(title=f"in training with {share:g} % of the masks", xlabel="share of the steps, %", ylabel="IoU")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _course(record: Record, results: Results) -> Record | None:
    """How good the network that a result is of was in the course of its training; None where nothing of it was kept."""
    trained = next((name for name in results.ancestors(record) if name.startswith("train_res/")), None)
    courses = (one for one in results.records if one["stage"] == "course_val")
    return next((one for one in courses if trained in one["inputs"].values()), None)


def _measured(record: Record, results: Results) -> list[float]:
    """Its mean IoU over the course.

    Raises:
        LeftOut: there is none.
    """
    if (course := _course(record, results)) is None:
        raise LeftOut(f"{address(record)}: no networks were kept during its training (partialres.res.snapshots=8 does)")
    return over_course(course, "mean_iou")
