"""GloVe's word vectors, from their text file."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mal.errors import WeightsError
from mal.methods.partialres.text.vocabulary import KNOWN, PADDING

NO_GLOVE = "set partialres.network.text.vectors to a text file of GloVe's, or to null, which learns embeddings"


def read_glove(path: str | Path, words: Sequence[str]) -> Tensor:
    """(len(words) + KNOWN, width) float32: the vectors of a vocabulary's words in a file of GloVe's.

    Padding is 0. The unknown word, and words that the file lacks, have the mean of the vectors found.

    Args:
        path: lines of a word and its numbers, separated by single spaces. Some of GloVe's words have spaces themselves,
            and are no word of an expression. A first line of two whole numbers, as word2vec writes it, is passed over.

    Raises:
        WeightsError: the file cannot be read, is something else, or has none of the words.
    """
    places = {word: i for i, word in enumerate(words, start=KNOWN)}
    found: dict[int, Tensor] = {}
    width = 0
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                fields = line.split()
                if not fields:
                    continue
                if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    continue
                width = width or len(fields) - 1
                word = fields[0]
                if word in places and not (len(fields) > width + 1 and any(map(_is_word, fields[1:-width]))):
                    found[places[word]] = _numbers(fields[1:], width, f"{path}, line {number}")
    except OSError as error:
        raise WeightsError(f"word vectors at {path} cannot be read ({error.strerror}); {NO_GLOVE}") from error
    if not found:
        raise WeightsError(f"{path} has a vector for none of the {len(words)} words of the expressions; {NO_GLOVE}")
    vectors = torch.stack(list(found.values())).mean(0).repeat(len(words) + KNOWN, 1)
    vectors[PADDING] = 0
    for place, vector in found.items():
        vectors[place] = vector
    return vectors


def _is_word(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return True
    return False


def _numbers(fields: Sequence[str], width: int, place: str) -> Tensor:
    try:
        vector = torch.tensor([float(each) for each in fields])
    except ValueError as error:
        raise WeightsError(f"{place}: a word must be followed by numbers ({error}); {NO_GLOVE}") from error
    if not width or len(vector) != width or not vector.isfinite().all():
        raise WeightsError(
            f"{place}: has {len(vector)} numbers, where the first has {width}, or one that is not finite; {NO_GLOVE}"
        )
    return vector
