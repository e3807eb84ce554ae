"""A bidirectional GRU that makes one vector of an expression's words."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mal.engine.runtime import sent
from mal.errors import WeightsError
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.text.vocabulary import KNOWN, PADDING, UNKNOWN


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
            words: (B, T) int64 ids, on the CPU, which needs their numbers; a row of padding alone is read as one word
                of zeros.

        Returns:
            (B, channels) float32, in [−1, 1]; also under autocast, as a recurrence sums its rounding.
        """
        device = self.embedding.weight.device
        lengths, order = (words != PADDING).sum(1).clamp(min=1).sort(descending=True)
        behind = torch.arange(int(lengths[0])) >= lengths[:, None]
        self.gru.flatten_parameters()  # a copy's, such as an average's, lie apart on a GPU: cuDNN warns at each pass
        with torch.autocast(device.type, enabled=False):
            seen = self.embedding(sent(words, device)).index_select(0, sent(order, device))
            packed = pack_padded_sequence(seen, lengths, batch_first=True)  # unsorted, it would wait for a GPU
            states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        largest = states.masked_fill(sent(behind[..., None], device), -torch.inf).amax(1)
        return largest.index_select(0, sent(order.argsort(), device))
