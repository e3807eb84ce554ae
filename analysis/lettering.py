"""People's own words in figures: in installed fonts that have their letters, or as □ where there is none."""

from functools import cache
from unicodedata import category

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from mal.engine.findings import some
from mal.engine.notes import say_once

OWN = "DejaVu Sans"  # matplotlib brings it
ABSENT = "□"
UNSEEN = ("Cc", "Cf", "Mn", "Me")  # Unicode's categories of what has no place of its own: controls, marks on letters


def letter(figure: Figure) -> None:
    """Before a figure is written: give each text whose letters matplotlib's font lacks a font that has them.

    Letters that no installed font has are replaced and counted on standard error; matplotlib would warn of each.
    """
    absent: dict[str, None] = {}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        strange = {sign for sign in text.get_text() if sign != "\n" and ord(sign) not in _signs(OWN)}
        if not strange:
            continue
        found = {sign: name for sign in sorted(strange) if (name := _family(sign)) is not None}
        text.set_fontfamily([OWN, *dict.fromkeys(found.values())])
        lost = {sign: "" if category(sign) in UNSEEN else ABSENT for sign in sorted(strange - found.keys())}
        text.set_text("".join(lost.get(sign, sign) for sign in text.get_text()))
        absent |= dict.fromkeys(sign for sign, shown in lost.items() if shown)
    if absent:
        say_once(
            f"no installed font has the letters {some(absent)}, which figures show as {ABSENT}; install one that has "
            "them, such as Noto"
        )


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
