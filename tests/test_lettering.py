"""Words in any script are drawn without a warning: in a font that has their letters, or as squares that are told."""

from io import BytesIO

import pytest
from matplotlib.figure import Figure

from analysis.lettering import letter
from mal.engine import notes

# matplotlib brings DejaVu Sans, which has the first, and STIXGeneral, which alone has the second
KNOWN, OF_STIX, OF_NONE = "naïve Ωμέγα Кот", "\u1d81", "\U0010fffd"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have said."""
    monkeypatch.setattr(notes, "_known", bytearray(len(notes._known)))


def drawn(text: str) -> tuple[str, list[str], bytes]:
    """What is shown of a text, in which fonts, and the picture; a warning is an error."""
    figure, file = Figure(figsize=(3, 1)), BytesIO()
    shown = figure.text(0.1, 0.5, text, parse_math=False)
    letter(figure)
    figure.savefig(file, format="png", metadata={"Software": None})
    return shown.get_text(), list(shown.get_fontfamily()), file.getvalue()


def test_letters_that_the_usual_font_has_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text, families, _ = drawn(KNOWN)
    assert (text, len(families)) == (KNOWN, 1)
    assert capsys.readouterr().err == ""


def test_other_letters_take_an_installed_font(capsys: pytest.CaptureFixture[str]) -> None:
    text, families, picture = drawn(f"a {OF_STIX}")
    assert text == f"a {OF_STIX}"
    assert families[0] == "DejaVu Sans"
    assert len(families) == 2
    assert picture != drawn("a □")[2]
    assert capsys.readouterr().err == ""


def test_letters_of_no_font_are_squares_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(f"two\nlines of {OF_NONE}{OF_NONE}!")[0] == "two\nlines of □□!"
    said = capsys.readouterr().err
    assert "no installed font has the letters" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["a\u200db", "\u2764\ufe0f", "tab\there", "left \u202e right"])
def test_what_has_no_place_of_its_own_leaves_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "□" not in drawn(text)[0]
    assert capsys.readouterr().err == ""
