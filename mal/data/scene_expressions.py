"""The expressions of procedural scenes: all of a small language that mean exactly one object.

An expression is `the [side] [colour] noun`: a noun is a form, or `shape` for any. A side is "left", "right", "top" or
"bottom" of two objects of that colour and noun, "leftmost" and the like of more.
"""

from collections.abc import Sequence
from itertools import chain, product, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mal.data.templates import extremes

FORMS = ("star", "cross", "moon", "triangle")
COLOURS = ("red", "yellow", "green", "blue")
ANY = "shape"  # the noun of every form


class Said(NamedTuple):
    """All expressions that mean an object alone: those without a side, and those with one."""

    by_look: list[str]
    by_place: list[str]

    def some(self, rng: np.random.Generator, most: int) -> list[str]:
        """At most so many of them, of both sorts in turns, in any order otherwise."""
        looks, places = (rng.permutation(np.array(texts, dtype=object)).tolist() for texts in self)
        return [text for text in chain(*zip_longest(looks, places)) if text is not None][:most]


def expressions(kinds: Sequence[tuple[str, str]], boxes: NDArray[np.float64], size: float) -> list[Said]:
    """What means each object of an image alone.

    Args:
        kinds: form and colour of each object.
        boxes: (n, 4) xywh of what is visible of them. size: of the square image, in the same unit.
    """
    found = [Said([], []) for _ in kinds]
    forms, colours = ({kind[place] for kind in kinds} for place in (0, 1))
    for colour, noun in product((None, *sorted(colours)), (ANY, *sorted(forms))):
        meant = [place for place, (form, own) in enumerate(kinds) if noun in (ANY, form) and colour in (None, own)]
        name = f"{colour} {noun}" if colour else noun
        if len(meant) == 1:
            found[meant[0]].by_look.append(f"the {name}")
        elif len(meant) > 1:
            centres = boxes[meant, :2] + boxes[meant, 2:] / 2
            for side, place in extremes(centres, (size, size)).items():
                found[meant[place]].by_place.append(f"the {_word(side, len(meant))} {name}")
    return found


def _word(side: str, among: int) -> str:
    """ "left" of two, "leftmost" of more; `side` is of `templates.SIDES`."""
    return side.removesuffix("most") if among == 2 else side
