"""What single changes of the labeler's settings do to its masks: one at a time, from what most results have."""

from collections.abc import Iterator
from statistics import fmean

from analysis.compare.changes import SEVERAL, UNCHANGED, by_changes
from analysis.compare.contenders import Comparison, compared
from analysis.compare.resampled import Runs, mask_iou
from analysis.figures.drawn import PAGE, Sketch, sheet
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, RESAMPLES, file_part, is_mal, provenance
from analysis.records import Record
from mal.errors import MalError

ROW = 0.17  # inches of a change
SPREAD = (
    "Grey: the range of the seeds with nothing changed, {:.3f} wide; a change that one seed alone was trained with may "
    "owe as much to its training's luck. "
)


def changes(results: Results) -> Iterator[Sketch]:
    """A row a change: how far the mean IoU moves, over images and for each seed."""
    for (data, profile), groups in results.groups("quality_val", is_mal).items():
        records, left_out = _alike([record for group in groups for record in group], results)
        of = file_part(data, profile)
        try:
            runs = _single(by_changes(records, results.known))
            if len(runs) < 2:
                continue
            measured = mask_iou(runs, results.store, resamples=RESAMPLES, seed=0)
            found = compared(measured, baseline=UNCHANGED)
        except MalError as error:
            yield Sketch(of, None, left_out=(*left_out, str(error)))
            continue
        shown: list[Group] = [list(group.values()) for group in runs.values()]
        alone = [one.value for one in measured[UNCHANGED].values()]
        yield _drawn(of, found, shown, left_out, alone=alone)


def _alike(records: list[Record], results: Results) -> tuple[list[Record], tuple[str, ...]]:
    """Those that score the same instances as most do."""
    sets: dict[frozenset[int], list[Record]] = {}
    left_out = []
    for record in records:
        try:
            sets.setdefault(frozenset(results.instances(record)["annotation_id"]), []).append(record)
        except LeftOut as error:
            left_out.append(str(error))
    kept = max(sets.values(), key=len, default=[])
    if other := sum(map(len, sets.values())) - len(kept):
        left_out.append(f"{other} of the results: scored on other instances than most")
    return kept, tuple(left_out)


def _single(runs: dict[str, Runs]) -> dict[str, Runs]:
    """The unchanged, and what changes one setting of it and shares a seed with it."""
    seeds = set(runs.get(UNCHANGED, {}))
    return {name: group for name, group in runs.items() if SEVERAL not in name and seeds & set(group)}


def _drawn(of: str, found: Comparison, shown: list[Group], left_out: tuple[str, ...], *, alone: list[float]) -> Sketch:
    """
    Args:
        alone: the mean IoU of each seed with nothing changed.
    """
    base = next(row for row in found.rows if row.difference is None)
    changed = [(row, row.difference) for row in found.rows if row.difference is not None]
    rows = sorted(changed, key=lambda pair: -pair[1].value)
    figure = sheet(PAGE, ROW * len(rows) + 0.6)
    axes = figure.subplots()
    if len(alone) > 1:
        low, high = (bound - fmean(alone) for bound in (min(alone), max(alone)))
        axes.axvspan(low, high, color="#888888", alpha=0.18, linewidth=0)
    axes.axvline(0, color="#888888", linewidth=0.7)
    for place, (row, change) in enumerate(rows):
        axes.plot([change.low, change.high], [place, place], color=COLOURS[0], linewidth=1.2, solid_capstyle="butt")
        axes.plot(change.value, place, "o", color=COLOURS[0], markersize=3.5)
        if len(row.by_seed) > 1:
            axes.plot(list(row.by_seed.values()), [place] * len(row.by_seed), "|", color="black", markersize=5)
    axes.set_yticks(range(len(rows)), [row.name for row, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"change of the mean IoU; with nothing changed it is {base.value.value:.3f}")
    seeds = ", ".join(map(str, base.seeds))
    luck = SPREAD.format(max(alone) - min(alone)) if len(alone) > 1 else ""
    caption = (
        "What a single change of a setting does to the mean IoU with the human masks, largest gain first. "
        f"Compared with the settings that most results have (seeds {seeds}), over the seeds that both have. Bars: 95 % "
        "bootstrap intervals over images, for these very trainings; upright strokes: each seed. "
        f"{luck}{provenance(shown, f'{found.images} images')}"
    )
    return Sketch(of, figure, caption, left_out)
