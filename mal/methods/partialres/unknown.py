"""Expressions of which a network knows no word: nothing tells it which object is meant."""

from collections.abc import Sequence

from mal.engine.findings import number, some
from mal.engine.notes import say_once
from mal.errors import ConfigError
from mal.methods.partialres.infer import Asked
from mal.methods.partialres.text import Vocabulary


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


def check_known(asked: Sequence[Asked], vocabulary: Vocabulary, most: int) -> None:
    """Count such expressions on standard error, with some examples.

    Args:
        most: how many words of an expression are read.

    Raises:
        ConfigError: all expressions are such.
    """
    strange = [each.words for each in asked if vocabulary.all_unknown(each.words[:most])]
    if not strange:
        return
    examples = some(dict.fromkeys(repr(" ".join(each)) for each in strange))
    if len(strange) == len(asked):
        raise ConfigError(
            f"no validation expression ({examples}) has a word that the training expressions have; train on "
            "expressions in the same words, by data.train or data.labeler_train, or give others in data.val"
        )
    what = number(len(strange), "expression has", "expressions have")
    say_once(
        f"{what} no word that the training expressions have, of {len(asked)}: {examples}; nothing says which "
        "object is meant, and they count in the results"
    )
