"""A published language model (BERT, RoBERTa, …) in the GRU's place, from transformers: an expression → one vector."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTextEncoding, PreTrainedModel
from transformers.utils import logging

from mal.errors import WeightsError
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.subwords import BEHIND_PADDING, WAY_OUT, WEIGHTS, Subwords
from mal.methods.partialres.vocabulary import PADDING

logging.set_verbosity_error()
logging.disable_progress_bar()

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
        self.model = _loaded(Path(config.checkpoint or ""), subwords) if load else _built(subwords)
        self.channels = int(self.model.config.hidden_size)
        self.filler = self.model.config.pad_token_id or 0  # the piece behind the last one, which is masked
        pieces = self.model.get_input_embeddings().weight.shape[0]
        if subwords.pieces > pieces:
            raise WeightsError(
                f"the tokenizer has {subwords.pieces} pieces and its model {pieces}: they do not belong together; "
                f"{WAY_OUT}"
            )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not self.frozen and not name.startswith(UNREAD))

    def train(self, mode: bool = True) -> "LanguageModel":
        """A frozen model stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, words: Tensor) -> Tensor:
        """
        Args:
            words: (B, T) int64 ids of `Subwords`, PADDING behind the last; a row of padding alone is read as one piece.

        Returns:
            (B, channels) float32.
        """
        present = words != PADDING
        present[:, 0] = True
        pieces = (words - BEHIND_PADDING).where(words != PADDING, self.filler)
        states = self.model(input_ids=pieces, attention_mask=present.long()).last_hidden_state.float()
        return states.masked_fill(~present[..., None], -torch.inf).amax(1)


def _built(subwords: Subwords) -> PreTrainedModel:
    """As the settings describe it, with random weights."""
    settings = subwords.settings
    kind = settings.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **settings)
        return AutoModelForTextEncoding.from_config(config, dtype=torch.float32)
    except Exception as error:  # transformers fails in as many ways as there are models
        raise WeightsError(f"a {kind} is no text encoder that transformers can build ({error}); {WAY_OUT}") from error


def _loaded(folder: Path, subwords: Subwords) -> PreTrainedModel:
    model = _built(subwords)  # what is no text encoder is said to be none, and no weights are read
    try:
        model, found = type(model).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        raise WeightsError(f"{folder / WEIGHTS} cannot be read ({error}); {WAY_OUT}") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNREAD))
    if missing or found["mismatched_keys"]:
        raise WeightsError(
            f"{folder / WEIGHTS} lacks {len(missing)} weights of the model that its config.json describes, such as "
            f"{missing[0] if missing else found['mismatched_keys'][0]}; {WAY_OUT}"
        )
    return model
