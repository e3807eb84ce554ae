"""Words as numbers: those of the training expressions, each with its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

PADDING, UNKNOWN, KNOWN = 0, 1, 2  # ids: behind the last word, of a word that no training text has, of the first known


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

    def plain(self) -> list[str]:
        """As a file has it; `lexicon.restored` is the way back."""
        return list(self.words)

    def knows(self, word: str) -> bool:
        """Whether a word has an id of its own."""
        return word in self._ids

    def all_unknown(self, words: Sequence[str]) -> bool:
        """Whether it knows none of the words, so that they say nothing to a network."""
        return not any(map(self.knows, words))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=KNOWN)}
