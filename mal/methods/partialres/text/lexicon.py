"""Words as numbers and the network that reads these: those of the training and a GRU, or a language model's."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.text.glove import read_glove
from mal.methods.partialres.text.gru import TextEncoder
from mal.methods.partialres.text.sides import swapped
from mal.methods.partialres.text.subwords import Subwords
from mal.methods.partialres.text.vocabulary import PADDING, Vocabulary

if TYPE_CHECKING:  # transformers takes seconds
    from mal.methods.partialres.text.language_model import LanguageModel

# Turns words into ids (`encode`), of which no network sees more than `partialres.network.text.words`; those of
# expressions side by side are padded to one length by `side_by_side`.
Lexicon = Vocabulary | Subwords


def lexicon_of(config: PartialresConfig, texts: Iterable[Sequence[str]]) -> Lexicon:
    """For a training on some expressions.

    Args:
        config: `network.text` and `image.flip` are used, as a mirrored image's expression may have a word of its own.

    Raises:
        WeightsError: the language model cannot be had.
    """
    text = config.network.text
    if text.encoder == "transformer":
        return Subwords.of_folder(Path(text.checkpoint or ""))
    read = [words[: text.words] for words in texts]
    return Vocabulary.build([*read, *map(swapped, read if config.image.flip else ())])


def is_plain(value: Any) -> bool:
    """Whether something has the form of what `Lexicon.plain` gives."""
    if isinstance(value, dict):
        return value.keys() == {"tokenizer", "model"} and all(isinstance(text, str) for text in value.values())
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def restored(plain: Any) -> Lexicon:
    """From what `Lexicon.plain` gave."""
    return Subwords(**plain) if isinstance(plain, dict) else Vocabulary(tuple(plain))


def text_encoder(config: TextConfig, lexicon: Lexicon, *, load: bool) -> "TextEncoder | LanguageModel":
    """What makes one vector of the ids: a `TextEncoder` or a `LanguageModel`, with `channels`.

    Args:
        load: read word vectors, or a language model's weights, from their files; false when a trained network's follow.

    Raises:
        WeightsError: they cannot be had, or do not fit.
    """
    if isinstance(lexicon, Subwords):
        from mal.methods.partialres.text.language_model import LanguageModel

        return LanguageModel(config, lexicon, load=load)
    vectors = None
    if load and config.vectors and lexicon.words:  # an empty vocabulary has none
        vectors = read_glove(config.vectors, lexicon.words)
    return TextEncoder(config, ids=len(lexicon), vectors=vectors)


def side_by_side(ids: Sequence[Sequence[int]]) -> Tensor:
    """(B, T) int64: expressions' ids, padded to the longest; T is at least 1."""
    longest = max(1, *map(len, ids))
    return torch.tensor([[*row, *[PADDING] * (longest - len(row))] for row in ids], dtype=torch.int64)
