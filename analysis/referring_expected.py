"""What was expected of Partial-RES's rows, and what their differences say of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise, product

from analysis.referring_rows import Key, Pair, Row, Run, Scores, difference
from analysis.summary_cells import table
from analysis.weak_shot_expected import verdict
from mal.metrics.bootstrap import Interval

ACCURACY = 0.75  # of boxes, to reach: an ellipse in a wrong box bounds no shape
FLOOR = 0.15  # of IoU: what a start from boxes adds to few masks alone, with every seed
FLOORS = (("naive", "alone"), ("full", "alone"), ("full", "alone, both parts"))  # the first is the larger
LARGER = (("both", "naive"), ("full", "both"), ("full", "ellipses"), ("ellipses", "boxes"))
OPEN = (  # sign and interval are the result
    *(("full", "naive"), ("+ CCTF", "naive"), ("+ PMCA", "naive"), ("+ CCTF", "+ CCTF, transposed")),
    *(("naive", "query"), ("alone", "query alone")),
)
TASKS = (("learnable", "zero"), ("learnable", "taskwise"), ("zero", "taskwise"))
RISING = ("alone", "naive", "both", "query alone", "query")  # with the share of the masks
SHAPED = ("naive", "both", "full")  # set against the ellipse in the box that needed no mask
# of a task-wise training: it crops nothing (R), and its warmup is a share of its own number of epochs
TASKWISE = re.compile(r".*\.(image\.(crop|scales)|res\.warmup)")
LONGER = (
    "alone",
    "alone, both parts",
    "query alone",
)  # may have been trained longer than the first

Runs = Mapping[Row, Mapping[Key, Run]]
Verdict = Callable[[Interval], str]
Compared = tuple[str, list[Pair]]


def open_verdict(found: Interval) -> str:
    """What an interval says of a difference of which no sign was expected."""
    return "above 0" if found.low > 0 else "below 0" if found.high < 0 else "not resolved"


def shape_verdict(found: Interval, accuracies: Mapping[int, float]) -> str:
    """What it says where the second is an ellipse that no mask was needed for.

    Args:
        accuracies: seed → of the boxes that the ellipses are in.
    """
    wrong = [f"{value:.2f} with seed {seed}" for seed, value in sorted(accuracies.items()) if value < ACCURACY]
    if wrong:
        return f"no verdict on shape: the boxes' accuracy, {', '.join(wrong)}, is below {ACCURACY:g}"
    return "shape was learned" if found.low > 0 else "shape was not learned"


def differences(
    measured: Runs,
    ellipses: Mapping[str | None, Scores],
    accuracies: Mapping[str | None, float],
    *,
    floors: bool,
    resamples: int,
) -> str:
    """A table of all that was expected, each seed's difference beside their mean.

    Args:
        ellipses: training of boxes → the IoUs of the ellipses inscribed in its boxes.
        accuracies: training of boxes → the accuracy of its boxes, where it is known.
        floors: whether the figures to reach are meant for this data.

    Raises:
        MalError: runs are measured on different expressions.
    """
    asked: list[tuple[str, list[Pair], Verdict, float | None]] = []
    absent = []
    for said, floor, names in (
        (verdict, FLOOR if floors else None, FLOORS),
        (verdict, None, LARGER),
        (open_verdict, None, OPEN),
    ):
        for larger, smaller in names:
            found = [(what, pairs) for what, pairs in _pairs(larger, smaller, measured) if pairs]
            asked += [(what, pairs, said, floor) for what, pairs in found]
            absent += [] if found else [f"{larger} − {smaller}"]
    asked += [(what, pairs, verdict, None) for what, pairs in (*_rising(measured), *_all_masks(measured))]
    asked += [(what, pairs, open_verdict, None) for what, pairs in _tasks(measured)]
    for row, runs in measured.items():
        if row.name in SHAPED:
            ordered = sorted(runs.items(), key=lambda it: it[0].seed)
            pairs = [(key.seed, run.scores, ellipses[run.rec]) for key, run in ordered if run.rec in ellipses]
            known = {key.seed: accuracies[run.rec] for key, run in runs.items() if run.rec in accuracies}
            asked.append((f"{row} − its box's ellipse", pairs, partial(shape_verdict, accuracies=known), None))
    cells = [_line(what, pairs, resamples, said, floor) for what, pairs, said, floor in asked if pairs]
    cells += [[what, "-", "-", "-", "no runs of both"] for what in absent]
    return table(["difference of", "IoU", "95 %", "each seed", "what it says"], cells)


def _pairs(larger: str, smaller: str, measured: Runs) -> Iterator[Compared]:
    """Two rows of one share of the masks and one length; or the second longer, where it may be."""
    for first, second in product(measured, measured):
        longer = second.name in LONGER and (second.steps or 0) > (first.steps or 0)
        same = first.percent == second.percent and (first.steps == second.steps or longer)
        if (first.name, second.name) == (larger, smaller) and same and _alike(first, second):
            length = f" for {second.steps:,} steps" if longer else ""
            yield f"{first} − {second.name}{length}", _shared(measured[first], measured[second])


def _rising(measured: Runs) -> Iterator[Compared]:
    """A row with a share of the masks, and with the next; of one length where there are such."""
    for name in RISING:
        rows = [row for row in measured if row.name == name]
        for few, more in pairwise(sorted({row.percent for row in rows})):
            both = [(a, b) for a, b in product(rows, rows) if (a.percent, b.percent) == (more, few) and _alike(a, b)]
            for a, b in [(a, b) for a, b in both if a.steps == b.steps] or both:
                yield f"{a} − {b}", _shared(measured[a], measured[b])


def _all_masks(measured: Runs) -> Iterator[Compared]:
    """What all masks have over a few with predictions."""
    for whole, full in product(measured, measured):
        names = (whole.name, whole.percent, full.name) == ("both", 100, "full")
        if names and full.percent < 100 and _alike(whole, full):
            yield f"{whole} − {full}", _shared(measured[whole], measured[full])


def _tasks(measured: Runs) -> Iterator[Compared]:
    """[TASK] tokens with the same masks, without parts."""
    rows = [row for row in measured if row.name in ("naive", "taskwise")]
    for (larger, smaller), first, second in product(TASKS, rows, rows):
        same = (first.percent, first.points) == (second.percent, second.points)
        if (first.task, second.task) == (larger, smaller) and same:
            both = [measured[row] for row in (first, second)]
            if smaller == "taskwise":
                both = [_without(TASKWISE, runs) for runs in both]
            yield f"{larger} − {smaller}, {first.percent:g} %", _shared(*both)


def _without(pattern: re.Pattern[str], runs: Mapping[Key, Run]) -> dict[Key, Run]:
    """The same, whatever their settings of some names are."""

    def plain(key: Key) -> Key:
        return key._replace(settings=tuple(pair for pair in key.settings if not pattern.fullmatch(pair[0])))

    return {plain(key): run for key, run in runs.items()}


def _alike(first: Row, second: Row) -> bool:
    """Whether two are of one [TASK] and number of points, where both are sequences."""
    return first.points is None or second.points is None or (first.task, first.points) == (second.task, second.points)


def _shared(first: Mapping[Key, Run], second: Mapping[Key, Run]) -> list[Pair]:
    """By rising seed. Two of one model are alike in what only sequences have, and start from one training of boxes."""
    pairs = []
    for (key, run), (other_key, other) in product(first.items(), second.items()):
        one_model = run.record["columns"]["model"] == other.record["columns"]["model"]
        if one_model:
            same = key == other_key and (None in (run.rec, other.rec) or run.rec == other.rec)
        else:
            same = key[:2] == other_key[:2]
        if same:
            pairs.append((key.seed, run.scores, other.scores))
    return sorted(pairs, key=lambda pair: pair[0])


def _line(what: str, pairs: list[Pair], resamples: int, said: Verdict, floor: float | None = None) -> list[str]:
    whole = difference(pairs, resamples)
    each = [(pair[0], difference([pair], resamples)) for pair in pairs]
    told = "; ".join(f"{seed}: {one.value:+.3f} {_ends(one)}" for seed, one in each)
    says = said(whole)
    if floor is not None:
        below = [str(seed) for seed, one in each if one.value < floor]
        says = f"below {floor:g} with seed {', '.join(below)}" if below else f"at least {floor:g} with every seed"
    return [what, f"{whole.value:+.3f}", _ends(whole), told, says]


def _ends(found: Interval) -> str:
    return f"[{found.low:+.3f}, {found.high:+.3f}]"
