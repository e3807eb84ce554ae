"""A published language model (BERT, RoBERTa, …) in the GRU's place, from transformers: an expression → one vector."""

from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
from transformers.utils import logging

from mal.engine.runtime import sent
from mal.errors import WeightsError
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.text.subwords import BEHIND_PADDING, WAY_OUT, WEIGHTS, Subwords
from mal.methods.partialres.text.vocabulary import PADDING

logging.set_verbosity_error()  # what matters of loading weights is said here, in sentences
logging.disable_progress_bar()

LONGEST = 200  # characters of what transformers says
UNREAD = "pooler."  # what some models make of their first token for other tasks; it gets no gradient here


class LanguageModel(nn.Module):
    """A text encoder of transformers', and its largest output over an expression's pieces.

    Args:
        config: `checkpoint` and `rate` are used; at a rate of 0 the model is frozen, and never drops anything out.
        subwords: of the model.
        load: read its weights from `config.checkpoint`; false when a trained network's will follow.

    Attributes:
        channels: of the output, the model's own width.

    Raises:
        WeightsError: the model is no text encoder, or its weights cannot be had or do not fit.
    """

    def __init__(self, config: TextConfig, subwords: Subwords, *, load: bool) -> None:
        super().__init__()
        self.frozen = config.rate == 0
        self.model = _built(subwords)
        pieces = _pieces(self.model)
        if pieces and subwords.pieces > pieces:
            raise WeightsError(
                f"the tokenizer has {subwords.pieces} pieces and its model {pieces}: they do not belong together; "
                f"{WAY_OUT}"
            )
        padding = getattr(self.model.config, "pad_token_id", None)
        # the piece behind the last one, which is masked
        self.filler = padding if isinstance(padding, int) and 0 <= padding < pieces else 0
        self.channels = self._tried(subwords)
        if load:
            self.model = _loaded(Path(config.checkpoint or ""), type(self.model))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not self.frozen and not name.startswith(UNREAD))

    def _tried(self, subwords: Subwords) -> int:
        """The width of its output for a word, as it reads in training.

        Raises:
            WeightsError: it reads no text alone.
        """
        ids = torch.tensor([subwords.encode(["word"], 1) or [PADDING]])
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                return self.train()(ids).shape[-1]
        except Exception as error:
            raise WeightsError(
                f"a model of the type {self.model.config.model_type} does not make a text into a vector for each of "
                f"its pieces: {_line(error)}; {WAY_OUT}"
            ) from error

    def train(self, mode: bool = True) -> "LanguageModel":
        """A frozen model stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, words: Tensor) -> Tensor:
        """
        Args:
            words: (B, T) int64 ids of `Subwords`, on the CPU, PADDING behind the last; a row of padding alone is read
                as one piece.

        Returns:
            (B, channels) float32.
        """
        words = sent(words, self.model.device)
        present = words != PADDING
        present[:, 0] = True
        pieces = (words - BEHIND_PADDING).where(words != PADDING, self.filler)
        states = self.model(input_ids=pieces, attention_mask=present.long()).last_hidden_state.float()
        return states.masked_fill(~present[..., None], -torch.inf).amax(1)


def _pieces(model: PreTrainedModel) -> int:
    """How many pieces a model has embeddings of; 0 of one that reads no texts."""
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return 0
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else 0


def _built(subwords: Subwords) -> PreTrainedModel:
    """As the settings describe it, with random weights.

    Raises:
        WeightsError: transformers knows no such model, or cannot build it.
    """
    settings = subwords.settings
    kind = settings.pop("model_type")
    # transformers lists text encoders, and not all; of the others the plain model may be one, which a trial shows
    known = kind in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    try:
        config = AutoConfig.for_model(kind, **settings)
        return (AutoModelForTextEncoding if known else AutoModel).from_config(config, dtype=torch.float32)
    except Exception as error:  # transformers fails in as many ways as there are models
        raise WeightsError(
            f"a model of the type {kind}, which config.json describes, cannot be built: {_line(error)}; {WAY_OUT}"
        ) from error


def _loaded(folder: Path, kind: type[PreTrainedModel]) -> PreTrainedModel:
    """A model of a folder, with its weights.

    Raises:
        WeightsError: they cannot be read, or are another model's.
    """
    try:
        model, found = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, with a sentence
            output_loading_info=True,
        )
    except Exception as error:
        raise WeightsError(f"{folder / WEIGHTS} cannot be read: {_line(error)}; {WAY_OUT}") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNREAD))
    others = sorted(str(it[0] if isinstance(it, tuple) else it) for it in found["mismatched_keys"])
    if missing or others:
        raise WeightsError(
            f"{folder / WEIGHTS} is not of the model that its config.json describes: it lacks {len(missing)} weights, "
            f"and {len(others)} have another shape, such as {[*missing, *others][0]}; {WAY_OUT}"
        )
    return model


def _line(error: Exception) -> str:
    """What an error says, as one short line."""
    return shorten(" ".join(str(error).split()), LONGEST, placeholder=" …")
