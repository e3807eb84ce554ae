"""Validation expressions of which a network knows no word are told, and refused where there are no others."""

import pytest

from mal.engine import notes
from mal.errors import ConfigError
from mal.methods.partialres.infer import Asked
from mal.methods.partialres.text import Vocabulary
from mal.methods.partialres.unknown import check_known

KNOWN = Vocabulary(("left", "red", "star"))


def asked(*texts: str) -> list[Asked]:
    return [Asked({"id": 1}, i, tuple(text.split())) for i, text in enumerate(texts)]


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have said."""
    monkeypatch.setattr(notes, "_known", bytearray(len(notes._known)))


def test_expressions_without_a_known_word_are_counted_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("the red star", "a b", "c", "d", "a b", "e", "left"), KNOWN, 15)
    said = capsys.readouterr().err
    assert "note: 5 expressions have no word that the training expressions have, of 7: 'a b', 'c', 'd', …" in said
    assert said.count("\n") == 1


def test_nothing_is_said_where_each_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("the red star", "my left"), KNOWN, 15)
    assert capsys.readouterr().err == ""


def test_words_that_are_not_read_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("red", "the one that is left"), KNOWN, 4)
    assert "1 expression has no word" in capsys.readouterr().err


def test_no_expression_with_a_known_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no validation expression \('a b', 'c'\) has a word .*data\.val"):
        check_known(asked("a b", "c"), KNOWN, 15)
