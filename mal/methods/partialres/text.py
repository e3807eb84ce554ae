"""Expressions: words as numbers, and a bidirectional GRU that makes one vector of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mal.errors import WeightsError
from mal.methods.partialres.config.network import TextConfig

PADDING, UNKNOWN, KNOWN = 0, 1, 2  # ids: behind the last word, of a word that no training text has, of the first known
NO_GLOVE = "set partialres.network.text.vectors to a text file of GloVe's, or to null, which learns embeddings"


@dataclass(frozen=True)
class Vocabulary:
    """The words that a network knows, sorted; word i has id i + KNOWN."""

    words: tuple[str, ...]

    @classmethod
    def build(cls, texts: Iterable[Sequence[str]]) -> Self:
        """Every word of some expressions, each once."""
        return cls(tuple(sorted({word for text in texts for word in text})))

    def __len__(self) -> int:
        """Number of ids: padding and the unknown word count."""
        return len(self.words) + KNOWN

    def encode(self, words: Sequence[str], length: int) -> list[int]:
        """The ids of the first `length` words, then PADDING up to that length."""
        ids = [self._ids.get(word, UNKNOWN) for word in words[:length]]
        return ids + [PADDING] * (length - len(ids))

    def all_unknown(self, words: Sequence[str]) -> bool:
        """Whether it knows none of the words, so that they say nothing to a network."""
        return not any(word in self._ids for word in words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=KNOWN)}


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


class TextEncoder(nn.Module):
    """Word embeddings, a GRU that reads them both ways, and its largest output over the words.

    Args:
        config: `words` is not used.
        ids: number of ids, `len(vocabulary)`.
        vectors: (ids, config.width) that the embeddings start at; None: N(0, 1), 0 for the unknown word, which learns
            nothing. With `config.vectors` they are frozen, whether given here or by a state that follows.

    Attributes:
        channels: of the output, 2 · config.hidden.

    Raises:
        WeightsError: the vectors have another shape.
    """

    def __init__(self, config: TextConfig, *, ids: int, vectors: Tensor | None = None) -> None:
        super().__init__()
        self.channels = 2 * config.hidden
        self.embedding = nn.Embedding(ids, config.width, padding_idx=PADDING)
        with torch.no_grad():
            self.embedding.weight[UNKNOWN:KNOWN].zero_()
            if vectors is not None:
                if tuple(vectors.shape) != (ids, config.width):
                    raise WeightsError(
                        f"word vectors of {vectors.shape[1]} numbers do not fit partialres.network.text.width="
                        f"{config.width}; set it to {vectors.shape[1]}"
                    )
                self.embedding.weight.copy_(vectors)
        self.embedding.requires_grad_(config.vectors is None)
        self.gru = nn.GRU(config.width, config.hidden, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> Tensor:
        """
        Args:
            words: (B, T) int64 ids; a row of padding alone is read as one word of zeros.

        Returns:
            (B, channels) float32, in [−1, 1]; also under autocast, as a recurrence sums its rounding.
        """
        lengths = (words != PADDING).sum(1).clamp(min=1)
        self.gru.flatten_parameters()  # a copy's, such as an average's, lie apart on a GPU: cuDNN warns at each pass
        with torch.autocast(words.device.type, enabled=False):
            packed = pack_padded_sequence(self.embedding(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        behind = torch.arange(states.shape[1], device=words.device) >= lengths[:, None]
        return states.masked_fill(behind[..., None], -torch.inf).amax(1)
