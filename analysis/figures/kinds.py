"""Which figures there are, what computes their data, and what draws them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.figures.drawn import Sketch
from analysis.figures.results import Results


@dataclass(frozen=True)
class Kind:
    """A figure of the paper, or one that it lacks."""

    title: str
    command: str  # computes its data
    draw: Callable[[Results], Iterable[Sketch]]


KINDS: dict[str, Kind] = {}
