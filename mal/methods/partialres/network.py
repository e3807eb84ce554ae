"""Partial-RES's network: an image and an expression → the contour points of what it means, one token after another."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mal.config import Config
from mal.errors import ConfigError
from mal.methods.partialres.config.network import PartsConfig
from mal.methods.partialres.decoder import Decoder, greedy
from mal.methods.partialres.memory import Encoders, Memory
from mal.methods.partialres.text.lexicon import Lexicon

NEW = ("decoder.places", "decoder.task")  # initialised anew when the training of masks starts from that of boxes


class PartialRes(nn.Module):
    """
    Args:
        config: `encoder` and `partialres` are used, `partialres.parts` excepted.
        lexicon, load: see `Encoders`.
        parts: which parts the decoder has; of the training of boxes see `lessons.rec_parts`.
        boxes_only: see `Decoder`.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(
        self,
        config: Config,
        *,
        lexicon: Lexicon,
        parts: PartsConfig,
        load: bool = True,
        boxes_only: bool = False,
    ) -> None:
        super().__init__()
        settings = config.partialres
        self.encoders = Encoders(config, lexicon=lexicon, load=load)
        self.decoder = Decoder(settings.network, settings.sequence, parts, boxes_only=boxes_only)

    def forward(self, images: Tensor, words: Tensor, valid: Tensor, inputs: Tensor) -> Tensor:
        """(B, L, bins + 1) float32 logits of each next token; see `encode` and `logits`."""
        return self.logits(self.encode(images, words, valid), inputs)

    def encode(self, images: Tensor, words: Tensor, valid: Tensor) -> Memory:
        """
        Args:
            images: (B, 3, S, S) RGB in [0, 1], letterboxed; S is a multiple of 32.
            words: (B, T) int64 ids, 0 behind the last, on the CPU.
            valid: (B, 2) width and height of the image as shares of S.
        """
        return self.encoders(images, words, valid)

    def logits(self, memory: Memory, inputs: Tensor) -> Tensor:
        """(B, L, bins + 1) float32, from input tokens (B, L) int64 that begin with a [TASK].

        Raises:
            ConfigError: the sequence is longer than the network's longest.
        """
        self._check(inputs.shape[1])
        return self.decoder(inputs, self.decoder.read(memory))

    def greedy(self, memory: Memory, task: int, steps: int) -> Tensor:
        """(B, steps) int64: the likeliest token after each, 0 … bins − 1 or END; what follows an END means nothing.

        Of a `taskwise` network a mask follows the network's own box, whose tokens are not returned.

        Args:
            task: TASK_BOX, whose tokens are never END, or TASK_MASK.

        Raises:
            ConfigError: see `logits`.
        """
        taskwise = self.decoder.kind == "taskwise" and task == self.decoder.task_mask
        self._check(steps + (5 if taskwise else 0))
        return greedy(self.decoder, memory, task, steps)

    @torch.no_grad()
    def attention(self, memory: Memory, inputs: Tensor) -> Tensor:
        """(B, L, h, w) float32: where in the image the last layer's cross-attention looks for the token after each
        input, the mean of its heads; each sums to 1."""
        self._check(inputs.shape[1])
        return self.decoder.attention(inputs, self.decoder.read(memory))

    def _check(self, length: int) -> None:
        if length > (most := len(self.decoder.places)):
            raise ConfigError(
                f"a sequence of {length} tokens is longer than the {most} that this network learned; set "
                "partialres.sequence.points to what it was trained with"
            )


def load_fitting(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load the entries of a state that fit the network by name and shape, except the table of positions and [TASK].

    Returns:
        Names of the network's entries that were not loaded, sorted.
    """
    own = network.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in own and own[name].shape == value.shape and name not in NEW
    }
    network.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())
