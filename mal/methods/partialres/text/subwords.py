"""Expressions as the pieces of words that a language model's own tokenizer cuts them into."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from mal.engine.findings import some
from mal.errors import WeightsError
from mal.methods.partialres.text.vocabulary import PADDING

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
FILES = (CONFIG, TOKENIZER, WEIGHTS)  # of a model's folder, as transformers writes them
BEHIND_PADDING = PADDING + 1  # piece i of the tokenizer has id i + 1, since its own 0 may be any piece
SPECIAL = 2  # positions that some models (RoBERTa) count for padding, and no expression has
SPACES = "\u2581\u0120"  # how SentencePiece and byte-level tokenizers write the space before a word
NO_WORD = "\U0010fffd"  # which no tokenizer has a piece for
WAY_OUT = (
    "partialres.network.text.checkpoint names the folder of a text encoder such as BERT or RoBERTa, downloaded by "
    "`hf download NAME --local-dir FOLDER`"
)


def files_of(folder: Path) -> dict[str, Path]:
    """A model's files in its folder, by name.

    Raises:
        WeightsError: one is not there.
    """
    files = {name: folder / name for name in FILES}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing == [WEIGHTS] and (others := sorted(path.name for path in folder.glob("*model*.*") if _is_weights(path))):
        raise WeightsError(
            f"{folder} has its weights in {some(others)}, and they are read from one {WEIGHTS}: load the model with "
            "transformers, and save it by save_pretrained(FOLDER, max_shard_size='100GB')"
        )
    if missing:
        raise WeightsError(f"{folder} has no {', '.join(missing)}; {WAY_OUT}")
    return files


def _is_weights(path: Path) -> bool:
    return path.suffix in (".safetensors", ".bin", ".h5", ".msgpack")


@dataclass(frozen=True)
class Subwords:
    """A language model's tokenizer, and what the model is built by."""

    tokenizer: str  # JSON, as tokenizer.json has it
    model: str  # JSON, as config.json has it

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Of a model that was downloaded.

        Raises:
            WeightsError: a file of it is missing, or is not what its name says.
        """
        files = files_of(folder)
        try:
            found = cls(*(files[name].read_text(encoding="utf-8") for name in (TOKENIZER, CONFIG)))
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"{folder} cannot be read ({error}); {WAY_OUT}") from error
        if fault := found.fault():
            raise WeightsError(f"{folder}: {fault}; {WAY_OUT}")
        return found

    def fault(self) -> str | None:
        """Why they cannot be used; None where they can."""
        try:
            settings = json.loads(self.model)
        except ValueError as error:
            return f"{CONFIG} is no JSON ({error})"
        if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
            return f"{CONFIG} names no model_type"
        try:
            _ = self._cut
        except Exception as error:  # tokenizers raises bare Exceptions
            return f"{TOKENIZER} is none that the library tokenizers reads ({error})"
        try:
            for word in ("word", NO_WORD):
                self.encode([word], 1)
                self.knows(word)
        except Exception as error:
            return f"{TOKENIZER} cannot cut every word into pieces ({error})"
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The model's, as config.json has them."""
        found: dict[str, Any] = json.loads(self.model)
        return found

    @property
    def pieces(self) -> int:
        """One more than the greatest number of a piece."""
        return 1 + max(self._cut.get_vocab().values())

    def plain(self) -> dict[str, str]:
        """As a file has it; `lexicon.restored` is the way back."""
        return {"tokenizer": self.tokenizer, "model": self.model}

    def encode(self, words: Sequence[str], most: int) -> list[int]:
        """The ids of the first `most` words' pieces and of those that the tokenizer puts around them; no more than the
        model reads."""
        return [piece + BEHIND_PADDING for piece in self._cut.encode(" ".join(words[:most])).ids]

    def knows(self, word: str) -> bool:
        """Whether a word has a piece that is not the unknown one."""
        if word not in self._known:  # files have many expressions of few words
            pieces = self._cut.encode(word, add_special_tokens=False).ids
            named = (self._cut.id_to_token(piece) or "" for piece in pieces if piece != self._unknown)
            self._known[word] = any(name.strip(SPACES) for name in named)
        return self._known[word]

    def all_unknown(self, words: Sequence[str]) -> bool:
        """Whether it knows none of the words, so that they say nothing to a network."""
        return not any(map(self.knows, words))

    @cached_property
    def _cut(self) -> Tokenizer:
        found = Tokenizer.from_str(self.tokenizer)
        found.no_padding()
        positions = self.settings.get("max_position_embeddings")
        if isinstance(positions, int):
            found.enable_truncation(max(1 + SPECIAL, positions - SPECIAL))
        else:
            found.no_truncation()
        return found

    @cached_property
    def _known(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _unknown(self) -> int | None:
        model = json.loads(self.tokenizer)["model"]  # Unigram's names a number, the others a piece
        token = model.get("unk_token")
        return model.get("unk_id") if token is None else self._cut.token_to_id(token)
