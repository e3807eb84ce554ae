"""Expressions of which a network knows no word: nothing tells it which object is meant."""

from collections.abc import Sequence

from mal.engine.faults import show
from mal.engine.findings import number, some
from mal.engine.notes import say_once
from mal.errors import ConfigError
from mal.methods.partialres.text.lexicon import Lexicon
from mal.methods.partialres.text.vocabulary import Vocabulary


def say_unread(texts: Sequence[Sequence[str]], most: int, *, whose: str) -> None:
    """Count expressions whose end is not read on standard error.

    Args:
        most: how many words are read. whose: "training", "validation".
    """
    if long := sum(len(words) > most for words in texts):
        say_once(
            f"{long} of {number(len(texts), f'{whose} expression')} {'has' if long == 1 else 'have'} more than {most} "
            "words, of which no more are read (partialres.network.text.words)"
        )


def all_strange(
    texts: Sequence[Sequence[str]], lexicon: Lexicon, most: int, *, whose: str = "validation"
) -> str | None:
    """That no expression has a known word, with some examples and the way out; None where one has, or there is none.

    Args:
        most: how many words of an expression are read. whose: "training", "validation".
    """
    if not texts or len(_strange(texts, lexicon, most)) < len(texts):
        return None
    known, way_out = _knowing(lexicon)
    return f"no {whose} expression ({_examples(texts)}) has a word{_read(texts, most)} that {known}; {way_out}"


def check_known(texts: Sequence[Sequence[str]], lexicon: Lexicon, most: int) -> None:
    """Count validation expressions without a known word on standard error, with some examples.

    Args:
        most: how many words of an expression are read.

    Raises:
        ConfigError: all expressions are such.
    """
    if fault := all_strange(texts, lexicon, most):
        raise ConfigError(fault)
    if strange := _strange(texts, lexicon, most):
        what = number(len(strange), "expression has", "expressions have")
        say_once(
            f"{what} no word{_read(strange, most)} that {_knowing(lexicon)[0]}, of {len(texts)}: {_examples(strange)}; "
            "nothing says which object is meant, and they count in the results"
        )


def _strange(texts: Sequence[Sequence[str]], lexicon: Lexicon, most: int) -> list[Sequence[str]]:
    return [each for each in texts if lexicon.all_unknown(each[:most])]


def _read(texts: Sequence[Sequence[str]], most: int) -> str:
    """Which of their words count, where some have others."""
    return f" among the first {most}" if any(len(each) > most for each in texts) else ""


def _knowing(lexicon: Lexicon) -> tuple[str, str]:
    """Who knows the words, and what to do where nobody does."""
    if isinstance(lexicon, Vocabulary):
        return "the training expressions have", (
            "train on expressions in the same words, by data.train or data.labeler_train, or give others in data.val"
        )
    return "the language model knows", "set partialres.network.text.checkpoint to a model of their language"


def _examples(texts: Sequence[Sequence[str]]) -> str:
    return some(dict.fromkeys(show(" ".join(each)) for each in texts))
