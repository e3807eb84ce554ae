"""The causal decoder: from the tokens so far and the memory to the logits of the next one."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mal.methods.partialres.attention import Attention, KeysValues, causal, hide, wide
from mal.methods.partialres.cctf import NONE, Lines, X, Y, content, lines
from mal.methods.partialres.config.network import NetworkConfig, PartsConfig
from mal.methods.partialres.config.sequence import SequenceConfig
from mal.methods.partialres.feed_forward import perceptron
from mal.methods.partialres.memory import Memory
from mal.methods.partialres.pmca import PointModulation
from mal.methods.partialres.sequences import BOX, end, length, task_box, task_mask

Past = list[KeysValues]  # of each layer's self-attention


class Read(NamedTuple):
    """What each step of decoding needs of a memory, made once."""

    memory: Memory
    cells: Tensor  # (B, 2) valid columns and rows
    layers: list[KeysValues]  # what each layer's cross-attention sees
    hidden: Tensor  # (B, 1, 1, S) bias
    lines: Lines | None


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward network, each followed by its norm.

    Args:
        parts: with `pmca` the cross-attention is modulated.
    """

    def __init__(self, config: NetworkConfig, parts: PartsConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.own = Attention(width, heads, dropout=config.dropout)
        self.cross = Attention(width, heads, dropout=config.dropout)
        self.modulation = PointModulation(width, heads, start=parts.pmca_start) if parts.pmca else None
        self.feed_forward = perceptron([width, config.feed_forward, width], dropout=config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        states: Tensor,
        positions: Tensor,
        read: Read,
        seen: KeysValues,
        *,
        bias: Tensor | None = None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """(B, L, d) → (B, L, d), and what self-attention sees of these tokens and of those before.

        Args:
            positions: (L, d). seen: of the memory. bias: of self-attention, see `causal`. past: of the tokens before.
        """
        states, own = self.after_own(states, positions, bias=bias, past=past)
        found = self.cross.attend(self.cross.queries(states + positions), seen, self.cross_bias(states, read))
        states = self.norms[1](states + self.dropout(found))
        return self.norms[2](states + self.dropout(self.feed_forward(states))), own

    def after_own(
        self, states: Tensor, positions: Tensor, *, bias: Tensor | None = None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """`forward` up to the norm after self-attention."""
        queries, own = self.own.projected(states + positions, states)
        own = own if past is None else past.followed_by(own)
        return self.norms[0](states + self.dropout(self.own.attend(queries, own, bias))), own

    def cross_bias(self, states: Tensor, read: Read) -> Tensor:
        """Of the cross-attention, from `after_own`: padding, and the modulation."""
        if self.modulation is None:
            return read.hidden
        return self.modulation(states, read.memory.grid, read.cells, read.memory.others) + read.hidden


class Decoder(nn.Module):
    """
    Tokens are those of `sequences`.

    Args:
        boxes_only: of the training of boxes that one of masks starts from: its longest sequence is a box, and its
            [TASK] is 0.

    Attributes:
        task: (1, d) of masks with `learnable`, (2, d) of boxes and masks with `taskwise`; None: [TASK] is 0.
        places: (longest sequence, d), learned positions.
    """

    def __init__(
        self, config: NetworkConfig, sequence: SequenceConfig, parts: PartsConfig, *, boxes_only: bool = False
    ) -> None:
        super().__init__()
        width, self.bins, self.cctf = config.width, sequence.bins, parts.cctf
        self.kind = "zero" if boxes_only else sequence.task
        self.end, self.task_box, self.task_mask = end(self.bins), task_box(self.bins), task_mask(self.bins)
        self.embedding = nn.Embedding(self.bins + 1, width)
        tasks = {"zero": 0, "learnable": 1, "taskwise": 2}[self.kind]
        self.task = nn.Parameter(torch.randn(tasks, width)) if tasks else None
        longest = "box" if boxes_only else "taskwise" if self.kind == "taskwise" else "mask"
        self.places = nn.Parameter(torch.randn(length(longest, sequence.points), width))
        self.layers = nn.ModuleList(DecoderLayer(config, parts) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.head = perceptron([width, width, width, self.bins + 1])

    def read(self, memory: Memory) -> Read:
        """What decoding needs of a memory."""
        placed = memory.tokens + memory.positions
        layers = [layer.cross.seen(placed, memory.tokens) for layer in self.layers]  # type: ignore[union-attr, operator]
        means = None if self.cctf == "none" else lines(*memory.image(), self.cctf)
        return Read(memory, memory.cells, layers, hide(memory.padding), means)

    def forward(self, inputs: Tensor, read: Read) -> Tensor:
        """(B, L, bins + 1) logits of each next token, from input tokens (B, L): teacher forcing."""
        states = self._embed(inputs, axes_of(inputs, self.end), read)
        return self._logits(self._run(states, self.places[: inputs.shape[1]], read))

    def step(self, tokens: Tensor, axis: int, read: Read, past: Past) -> Tensor:
        """(B, bins + 1) logits of the next token.

        Args:
            tokens: (B,), the last ones. axis: what they are: X, Y, or NONE of [TASK].
            past: of the earlier tokens, at first empty; it grows.
        """
        place = past[0].keys.shape[2] if past else 0
        states = self._embed(tokens[:, None], torch.full_like(tokens[:, None], axis), read)
        positions = self.places[place : place + 1]
        before: list[KeysValues | None] = [*past] or [None] * len(self.layers)
        past.clear()
        for layer, seen, earlier in zip(self.layers, read.layers, before, strict=True):
            states, own = layer(states, positions, read, seen, past=earlier)
            past.append(own)
        return self._logits(states)[:, 0]

    def attention(self, inputs: Tensor, read: Read) -> Tensor:
        """(B, L, h, w): where the last layer looks in the image, the mean of its heads; each row sums to 1."""
        states, positions = self._embed(inputs, axes_of(inputs, self.end), read), self.places[: inputs.shape[1]]
        states = self._run(states, positions, read, layers=len(self.layers) - 1)
        last: DecoderLayer = self.layers[-1]  # type: ignore[assignment]
        states, _ = last.after_own(states, positions, bias=causal(inputs.shape[1], inputs.device))
        queries = last.cross.queries(states + positions)
        rows, columns = read.memory.grid
        weights = last.cross.weights(queries, read.layers[-1], last.cross_bias(states, read)).mean(1)
        of_image = weights[..., : rows * columns]
        return (of_image / of_image.sum(-1, keepdim=True)).unflatten(-1, (rows, columns))

    def _run(self, states: Tensor, positions: Tensor, read: Read, *, layers: int | None = None) -> Tensor:
        bias = causal(states.shape[1], states.device)
        for layer, seen in list(zip(self.layers, read.layers, strict=True))[:layers]:
            states, _ = layer(states, positions, read, seen, bias=bias)
        return states

    def _logits(self, states: Tensor) -> Tensor:
        return wide(self.head(self.norm(states)))

    def _embed(self, inputs: Tensor, axes: Tensor, read: Read) -> Tensor:
        """(B, L, d): of [TASK] its vector; of the others their embeddings, and with CCTF what they point at."""
        states = self.embedding(inputs.clamp(max=self.end))
        if read.lines is not None:
            states = states + content(inputs, axes, read.lines, self.bins)
        nothing = states.new_zeros(states.shape[-1])
        of_box = self.task[0].to(states) if self.task is not None and self.kind == "taskwise" else nothing
        of_mask = self.task[-1].to(states) if self.task is not None else nothing
        states = torch.where((inputs == self.task_box)[..., None], of_box, states)
        return torch.where((inputs == self.task_mask)[..., None], of_mask, states)


def axes_of(inputs: Tensor, end: int) -> Tensor:
    """(B, L): X or Y by a token's place behind the last [TASK] before it, NONE of [TASK].

    Args:
        inputs: (B, L), beginning with a [TASK]. end: END's number, below both [TASK]s'.
    """
    is_task = inputs > end
    places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    start = torch.where(is_task, places, 0).cummax(1).values
    axes = torch.where((places - start) % 2 == 1, X, Y)
    return axes.masked_fill(is_task, NONE)


@torch.no_grad()
def greedy(decoder: Decoder, memory: Memory, task: int, steps: int) -> Tensor:
    """(B, steps) int64: the likeliest token after each; see `network.PartialRes.greedy`."""
    read, past = decoder.read(memory), Past()
    batch, device = len(memory.tokens), memory.tokens.device
    taskwise = decoder.kind == "taskwise" and task == decoder.task_mask

    def follow(start: int, count: int, *, ends: bool) -> Tensor:
        tokens = torch.full((batch,), start, device=device)
        found: list[Tensor] = []
        for i in range(count):
            logits = decoder.step(tokens, NONE if i == 0 else (X, Y)[(i - 1) % 2], read, past)
            tokens = (logits if ends else logits[:, : decoder.end]).argmax(-1)
            found.append(tokens)
        return torch.stack(found, dim=1)

    if taskwise:
        box = follow(decoder.task_box, BOX, ends=False)
        decoder.step(box[:, -1], Y, read, past)
    return follow(task, steps, ends=task == decoder.task_mask)
