"""What was expected of SimFormer's rows, and what their differences say of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations, product
from typing import NamedTuple

from analysis.summary_cells import table
from mal.metrics.bootstrap import Interval
from mal.metrics.semantic import Measured, miou_difference

EXPECTED = (  # the first is the larger; the last three tell what else a gain may come from
    *(("oracle", "cross*"), ("cross*", "cross"), ("cross", "self"), ("self", "basic"), ("basic", "no CompLoss")),
    *(("cross", "sampler"), ("cross*", "basic*"), ("cross*", "complement*")),
)
FLAT = 0.01  # of novel mIoU: J makes no difference that is within this; the largest step in Table 1 is .004
FALLING = ("cross", "cross*")


class Row(NamedTuple):
    """A key of ROWS, with J where pixels are drawn."""

    name: str
    points: int | None

    def __str__(self) -> str:
        return self.name if self.points is None else f"{self.name}, J {self.points}"


class Key(NamedTuple):
    """All in which runs that are compared are alike."""

    split: str
    novel: tuple[int, ...]
    seed: int
    settings: tuple[tuple[str, str], ...]


Runs = Mapping[Row, Mapping[Key, Measured]]
Pairs = list[tuple[Key, Measured, Measured]]


def verdict(difference: Interval) -> str:
    """What an interval says of a difference that was expected to be positive."""
    return "shows" if difference.low > 0 else "is reversed" if difference.high < 0 else "does not show"


def flat(difference: Interval) -> str:
    """What it says where none was expected."""
    if difference.low >= -FLAT and difference.high <= FLAT:
        return "shows"
    return "is reversed" if difference.low > 0 or difference.high < 0 else "does not show"


def differences(measured: Runs, *, resamples: int) -> str:
    """A table of all that was expected.

    Raises:
        MalError: runs are measured on different images.
    """
    cells = [line for pair in EXPECTED for line in _larger(*pair, measured, resamples)]
    cells += _flat(measured, resamples) + _falling(measured, resamples)
    return table(["difference of", "points", "95 %", "pairs", "what was expected"], cells)


def _larger(larger: str, smaller: str, measured: Runs, resamples: int) -> list[list[str]]:
    """Two rows, of one J where both have one."""
    cells = []
    for first, second in product(measured, measured):
        wanted = (first.name, second.name) == (larger, smaller)
        alike = None in (first.points, second.points) or first.points == second.points
        if wanted and alike and (pairs := _shared(measured[first], measured[second])):
            cells.append(_line(f"{first} − {second}", pairs, resamples, verdict))
    return cells or [[f"{larger} − {smaller}", "-", "-", "0", "no runs of both"]]


def _flat(measured: Runs, resamples: int) -> list[list[str]]:
    """One row with one J and with the next."""
    cells = []
    for first, second in pairwise(measured):
        if first.name == second.name and (pairs := _shared(measured[second], measured[first])):
            cells.append(_line(f"{second} − {first}", pairs, resamples, flat))
    return cells or [["cross with another J", "-", "-", "0", "no runs of both"]]


def _falling(measured: Runs, resamples: int) -> list[list[str]]:
    """One row on a split and on the next that has its classes and more, by the first one's classes."""
    found: dict[str, Pairs] = {}
    for row, runs in measured.items():
        for key, more in permutations(runs if row.name in FALLING else (), 2):
            if _next(key, more, runs):
                run, other = runs[key], replace(runs[more], which=runs[key].which)
                found.setdefault(f"{row}: {key.split} − {more.split}", []).append((key, run, other))
    cells = [_line(what, pairs, resamples, verdict) for what, pairs in found.items()]
    return cells or [["cross on a split within another", "-", "-", "0", "no runs of both"]]


def _next(key: Key, more: Key, runs: Iterable[Key]) -> bool:
    """Whether the second is of the smallest split of one letter (D4, D6) beyond the first one's, all else alike."""
    chain = [it for it in runs if it[2:] == key[2:] and it.split[0] == key.split[0] and {*it.novel} > {*key.novel}]
    return more in chain and not any({*it.novel} < {*more.novel} for it in chain)


def _shared(first: Mapping[Key, Measured], second: Mapping[Key, Measured]) -> Pairs:
    return [(key, run, second[key]) for key, run in first.items() if key in second]


def _line(what: str, pairs: Pairs, resamples: int, said: Callable[[Interval], str]) -> list[str]:
    units = together([(key.seed, {*key.novel}) for key, *_ in pairs])
    found = miou_difference([(first, second) for _, first, second in pairs], units=units, resamples=resamples)
    ends = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return [what, f"{100 * found.value:+.1f}", ends, str(len(pairs)), said(found)]


def together(runs: Sequence[tuple[int, set[int]]]) -> list[int]:
    """Seeds and novel classes of runs → a number for each, equal where splits of one seed share classes, be it through
    a third: nested ones are no independent evidence, disjoint folds are."""
    units = list(range(len(runs)))
    for (i, (seed, novel)), (j, (other, others)) in combinations(enumerate(runs), 2):
        if seed == other and novel & others:
            units = [units[i] if unit == units[j] else unit for unit in units]
    return units
