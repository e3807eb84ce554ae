"""Results that differ in one config value alone, seeds apart: what a sensitivity curve may join."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, MARKERS, Ends, draw_band
from analysis.lineage import ancestors, lineage
from analysis.records import Json, Record, address


@dataclass(frozen=True)
class Sweep:
    """Groups of the same seeds by rising value of one setting; everything else behind them is alike."""

    values: list[float]
    groups: list[Group]


def sweeps(
    results: Results,
    stage: str,
    *,
    at: str,
    path: tuple[str, ...],
    value: Callable[[Any], float | None] = lambda found: found if isinstance(found, int | float) else None,
    wanted: Callable[[Record], bool] = lambda _: True,
) -> dict[tuple[str, str], list[Sweep]]:
    """(data, profile) → the sweeps of a setting that a stage's results show, longest first.

    Args:
        stage: of the results. at: the stage whose config has the setting at `path`; it is among what they come from.
        value: what stands at `path` → the number to plot, or None where it is no single one.
    """
    blanked = {name: _without(r, path) if r["stage"] == at else r for name, r in results.known.items()}
    found: dict[tuple[str, str], list[Sweep]] = {}
    for place, groups in results.groups(stage, wanted).items():
        alike: dict[str, list[tuple[float, Group]]] = {}
        for group in groups:
            number = value(_setting(group[0], results, at, path))
            if number is not None:
                alike.setdefault(lineage(blanked[address(group[0])], blanked), []).append((number, group))
        same = [sorted(_same_seeds(pairs), key=lambda pair: pair[0]) for pairs in alike.values()]
        kept = [pairs for pairs in same if len({number for number, _ in pairs}) > 1]
        kept.sort(key=lambda pairs: -len(pairs))
        if kept:
            found[place] = [Sweep([n for n, _ in pairs], [g for _, g in pairs]) for pairs in kept]
    return found


def draw_sweeps(
    axes: Axes,
    several: Sequence[Sweep],
    titles: Sequence[str],
    measure: Callable[[Group], Ends],
    left_out: list[str],
) -> list[Group]:
    """A line and a band a sweep, of what is measured of each of its groups (nan: not shown); returns the groups that
    could be read, and appends why others could not."""
    shown: list[Group] = []
    for sweep, title, colour, marker in zip(several, titles, COLOURS, MARKERS, strict=False):
        points = []
        for value, group in zip(sweep.values, sweep.groups, strict=True):
            try:
                points.append((value, *measure(group)))
                shown.append(group)
            except LeftOut as error:
                left_out.append(str(error))
        if points := [point for point in points if np.isfinite(point[1])]:
            x, *ends = np.array(points).T
            draw_band(axes, x, ends, {"color": colour, "marker": marker}, label=title)
    return shown


def _same_seeds(pairs: list[tuple[float, Group]]) -> list[tuple[float, Group]]:
    """The same seeds of every value, since one seed beside the mean of three makes a kink that is none.

    Values without the seed that most of them have are left out; of the others, the seeds that all of these have.
    """
    seeds = [{record["columns"].get("seed") for record in group} for _, group in pairs]
    counts = Counter(seed for one in seeds for seed in one)
    main = min(counts, key=lambda seed: (-counts[seed], str(seed)))
    shared = set.intersection(*(one for one in seeds if main in one))
    return [
        (number, [record for record in group if record["columns"].get("seed") in shared])
        for (number, group), one in zip(pairs, seeds, strict=True)
        if main in one
    ]


def _setting(record: Record, results: Results, at: str, path: tuple[str, ...]) -> Any:
    """What a record, or the nearest it comes from, has at a path of its config; None where there is no such stage."""
    origins = filter(None, ancestors(record, results.known).values())
    part: Any = next((origin["config"] for origin in origins if origin["stage"] == at), None)
    for name in path:
        part = part.get(name) if isinstance(part, dict) else None
    return part


def _without(record: Record, path: tuple[str, ...]) -> Record:
    """A copy whose config has nothing at a path."""

    def cut(part: Any, names: tuple[str, ...]) -> Json:
        if not isinstance(part, dict):
            return part
        if len(names) == 1:
            return {key: value for key, value in part.items() if key != names[0]}
        return {key: cut(value, names[1:]) if key == names[0] else value for key, value in part.items()}

    return {**record, "config": cut(record["config"], path)}
