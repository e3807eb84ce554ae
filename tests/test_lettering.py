"""Words in any script are drawn without a warning: in fonts that have their letters, or as frames that are told."""

from collections.abc import Callable
from io import BytesIO

import pytest
from matplotlib.figure import Figure

from analysis.lettering import lettered
from mal.engine import notes

# matplotlib brings DejaVu Sans, which has the first, and STIXGeneral, which alone has the second
KNOWN, OF_STIX, OF_NONE = "naïve Ωμέγα Кот", "\u1d81", "\U0010fffd"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have said."""
    monkeypatch.setattr(notes, "_known", bytearray(len(notes._known)))


def plain(figure: Figure, text: str) -> None:
    figure.text(0.1, 0.5, text, parse_math=False)


def ticks(figure: Figure, text: str) -> None:
    figure.subplots().set_yticks([0, 1], ["first", text])


def categories(figure: Figure, text: str) -> None:
    figure.subplots().bar(["first", text], [1, 2])


def legend(figure: Figure, text: str) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], label=text)
    axes.legend(title=text)
    axes.set_xlabel(text, fontweight="bold")


PLACES = [plain, ticks, categories, legend]
Place = Callable[[Figure, str], None]


def drawn(put: Place, text: str) -> bytes:
    """A picture with a text; a warning is an error."""
    figure, file = Figure(figsize=(3, 2)), BytesIO()
    put(figure, text)
    with lettered(figure):
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


@pytest.mark.parametrize("put", PLACES)
def test_letters_that_the_usual_font_has_are_drawn_as_ever(put: Place, capsys: pytest.CaptureFixture[str]) -> None:
    figure, file = Figure(figsize=(3, 2)), BytesIO()
    put(figure, KNOWN)
    figure.savefig(file, format="png", metadata={"Software": None})
    assert drawn(put, KNOWN) == file.getvalue()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("put", PLACES)
def test_other_letters_take_an_installed_font(put: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert len({drawn(put, text) for text in (f"a {OF_STIX}", f"a {OF_NONE}", "a □", "a")}) == 4
    said = capsys.readouterr().err
    assert OF_STIX not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("put", PLACES)
def test_letters_of_no_font_are_told_once(put: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        drawn(put, f"two\nlines of {OF_NONE}{OF_NONE}!")
    said = capsys.readouterr().err
    assert "no installed font has the letters" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["a\u200db", "\u2764\ufe0f", "tab\there", "left \u202e right"])
def test_what_has_no_place_of_its_own_is_not_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(plain, text)
    assert capsys.readouterr().err == ""
