"""People's own words in figures: in installed fonts that have their letters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unicodedata import category

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from mal.engine.findings import some
from mal.engine.notes import say_once

OWN = "DejaVu Sans"  # matplotlib brings it
UNSEEN = ("Cc", "Cf", "Mn", "Me")  # Unicode's categories of what has no place of its own: controls, marks on letters


@contextmanager
def lettered(figure: Figure) -> Iterator[None]:
    """In it a figure is drawn: each text whose letters matplotlib's font lacks has fonts that have them.

    Letters that no installed font has are frames, which is said once on standard error; matplotlib would warn of each.
    """
    absent: set[str] = set()
    for axis in (axis for axes in figure.get_axes() for axis in (axes.xaxis, axes.yaxis)):
        strange = _strange("".join(label.get_text() for label in axis.get_ticklabels(which="both")))
        if strange:  # a tick's text is made anew whenever it is drawn
            axis.set_tick_params(which="both", labelfontfamily=_families(strange))
        absent |= strange
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if strange := _strange(text.get_text()):
            text.set_fontfamily(_families(strange))
            absent |= strange
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield
    lost = sorted(sign for sign in absent if _family(sign) is None and category(sign) not in UNSEEN)
    if lost:
        say_once(
            f"no installed font has the letters {some(lost)}, which figures show as frames; install one that has them, "
            "such as Noto"
        )


def _strange(text: str) -> set[str]:
    """The letters that matplotlib's font lacks."""
    return {sign for sign in text if sign != "\n" and ord(sign) not in _signs(OWN)}


def _families(letters: set[str]) -> list[str]:
    found = (_family(sign) for sign in sorted(letters))
    return [OWN, *dict.fromkeys(name for name in found if name is not None)]


@cache
def _family(sign: str) -> str | None:
    """The first installed family that has a letter."""
    return next((name for name in _faces() if ord(sign) in _signs(name)), None)


@cache
def _signs(family: str) -> frozenset[int]:
    """What a family's plain face has; nothing where it cannot be read, as of fonts of coloured pictures."""
    try:
        return frozenset(FT2Font(_faces()[family]).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _faces() -> dict[str, str]:
    """The file of each installed family's plain face, by its name; families without one are left out, and the last
    resort, whose letters are all frames."""
    plain = [
        face
        for face in fontManager.ttflist
        if face.style == "normal" and face.weight in (400, "normal") and not face.name.startswith("Last Resort")
    ]
    return {face.name: face.fname for face in sorted(plain, key=lambda face: (face.name, face.fname), reverse=True)}
