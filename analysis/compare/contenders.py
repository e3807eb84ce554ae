"""What is compared: results that are alike in all but one setting and the seed, and how each stands to a baseline."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from analysis.compare.rankings import Stability, stability
from analysis.compare.resampled import ComparisonError, Measured, Runs, Sampled
from analysis.lineage import choices, differing, settings_of, shown
from analysis.records import Record, address, grouped
from analysis.stats import (
    ByImage,
    Floats,
    Interval,
    bootstrap_p,
    holm,
    percentile,
    seeds_interval,
    sign_flip_p,
)


@dataclass(frozen=True)
class Row:
    """One contender against the baseline."""

    name: str
    seeds: list[int]
    value: Interval  # mean over seeds, over images
    difference: Interval | None  # to the baseline, of the seeds that both have; None for the baseline
    p: float
    adjusted: float
    by_seed: dict[int, float] = field(default_factory=dict)  # seed → difference
    over_seeds: Interval | None = None  # Student's t over the seeds' differences; None for fewer than two


@dataclass(frozen=True)
class Comparison:
    """All contenders by one number."""

    baseline: str
    rows: list[Row]
    images: int
    seeds: list[int]  # that all contenders have
    stability: Stability | None  # over these seeds; None for fewer than two


def contenders(
    records: Iterable[Record], known: Mapping[str, Record], *, by: str, along: Iterable[str] = ()
) -> dict[str, Runs]:
    """Value of the compared setting → its runs by seed, in the order of the values (numbers by size).

    Raises:
        ComparisonError: two results differ in more than that setting and the seed; names the settings and the flags.
    """
    records = [record for record in records if record["columns"].get(by) is not None]
    records.sort(key=lambda r: (_order(r["columns"][by]), r["columns"].get("seed") or 0, r["key"]))
    groups = grouped(records, lambda record: shown(record["columns"][by]))
    settings = {address(r): settings_of(r, known) for group in groups.values() for r in group}
    everything = list(settings.values())
    if unlike := differing(everything, by=by, along=along):
        raise ComparisonError(
            f"these results differ in more than {by} and seed: {choices(unlike, everything)}, or let a "
            f"setting differ with {by} by --along KEY"
        )
    for value, group in groups.items():
        mine = [settings[address(r)] for r in group]
        if unlike := differing(mine):
            raise ComparisonError(f"the results of {by} {value} differ in more than the seed: {choices(unlike, mine)}")
    return {value: {r["columns"].get("seed"): r for r in group} for value, group in groups.items()}


def _order(value: object) -> tuple[bool, float, str]:
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, str(value))


def compared(measured: Measured, *, baseline: str) -> Comparison:
    """Every contender against the baseline, p adjusted for their number by Holm's method.

    A difference is taken seed by seed, over the seeds that both have, and averaged. Its interval and p are of the
    images alone, for these very trainings; the interval over seeds says what another training would change.

    Raises:
        ComparisonError: the baseline is not among the contenders, or shares no seed with another.
    """
    if baseline not in measured:
        raise ComparisonError(f"there is no result of {baseline}; the baseline can be {', '.join(measured)}")
    others = [name for name in measured if name != baseline]
    differences = {name: _differences(measured, name, baseline) for name in others}
    p = {name: _p(list(pairs.values())) for name, pairs in differences.items()}
    adjusted = dict(zip(others, holm([p[name] for name in others]), strict=True))
    rows = []
    for name, group in measured.items():
        own = percentile(*_mean(list(group.values())))
        seeds = sorted(s for s in group if s is not None)
        if name == baseline:
            rows.append(Row(name, seeds, own, None, math.nan, math.nan))
            continue
        pairs = differences[name]
        by_seed = {s: pair.value for s, pair in pairs.items() if s is not None}
        over = seeds_interval(list(by_seed.values())) if len(by_seed) > 1 else None
        between = percentile(*_mean(list(pairs.values())))
        rows.append(Row(name, seeds, own, between, p[name], adjusted[name], by_seed, over))
    common = _common(list(measured.values()))
    seeds = [s for s in common if s is not None]
    scores = [[_at(group, s).value for group in measured.values()] for s in seeds]
    ranking = stability(scores) if len(seeds) > 1 and len(measured) > 1 else None
    images = next(run.images for group in measured.values() for run in group.values())
    return Comparison(baseline, rows, images, seeds, ranking)


def _differences(measured: Measured, name: str, baseline: str) -> dict[int | None, Sampled]:
    a, b = measured[name], measured[baseline]
    seeds = _common([a, b])
    if not seeds:
        raise ComparisonError(
            f"{name} and the baseline {baseline} have no seed in common ({_listed(a)} and {_listed(b)}); compute one "
            "more, or take another --baseline"
        )
    return {s: _minus(_at(a, s), _at(b, s)) for s in seeds}


def _minus(a: Sampled, b: Sampled) -> Sampled:
    grouped = None
    if a.grouped is not None and b.grouped is not None:
        grouped = ByImage(a.grouped.sums - b.grouped.sums, a.grouped.counts)
    return Sampled(a.value - b.value, a.samples - b.samples, a.images, grouped)


def _p(pairs: list[Sampled]) -> float:
    """By swapping images where the number is a mean over instances, else from the bootstrap."""
    grouped = [pair.grouped for pair in pairs if pair.grouped is not None]
    if grouped:
        return sign_flip_p(ByImage(np.mean([g.sums for g in grouped], axis=0), grouped[0].counts))
    return bootstrap_p(_mean(pairs)[1])


def _mean(runs: list[Sampled]) -> tuple[float, Floats]:
    return float(np.mean([run.value for run in runs])), np.mean([run.samples for run in runs], axis=0)


def _common(groups: list[dict[int | None, Sampled]]) -> list[int | None]:
    """The seeds that all have; [None] where none of them depends on the seed."""
    seeded = [set(group) for group in groups if None not in group]
    return sorted(set.intersection(*seeded), key=lambda s: s or 0) if seeded else [None]


def _at(group: dict[int | None, Sampled], seed: int | None) -> Sampled:
    return group[None] if None in group else group[seed]


def _listed(group: dict[int | None, Sampled]) -> str:
    return ", ".join("any" if s is None else str(s) for s in group)
