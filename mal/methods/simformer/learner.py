"""All that learns: the network, SimNet beside it, and the head through which pixel embeddings learn alone at first."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.config import Config
from mal.data.semantic import IGNORED
from mal.engine import ranks
from mal.engine.precision import autocast
from mal.methods.simformer.criterion import criterion
from mal.methods.simformer.data import PAIRED, Batch
from mal.methods.simformer.network import Outputs, SimFormer
from mal.methods.simformer.pair_losses import PairLosses
from mal.methods.simformer.points import STRIDE, PairPoints


class Learner(nn.Module):
    """
    Args:
        config: `encoder` and `simformer` are used.
        classes: base and novel ones together. novel: which of them are.
        dtype: that the network computes in; all losses are in float32.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(self, config: Config, *, classes: int, novel: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        own = config.simformer
        self.losses, self.dtype = own.losses, dtype
        self.network = SimFormer(config.encoder, own.network, classes=classes)
        width = own.network.width
        self.head = nn.Conv2d(width, classes, 1) if own.learning.warm_start else None
        self.pairs = None
        if PAIRED[own.pairs.kind](1):
            self.pairs = PairLosses(width, novel, similarity=own.similarity, distillation=own.distillation)

    def forward(self, batch: Batch, points: list[PairPoints], *, warm: bool) -> dict[str, Tensor]:
        """The losses of a batch, by names that are always the same; their sum is the loss.

        Args:
            points: of each of the batch's pairs, on the same device.
            warm: the pixel embeddings learn alone.
        """
        with autocast(batch.images.device, self.dtype):
            outputs = self.network(batch.images)
        outputs = outputs.float()
        losses = self._names(outputs)
        if warm:
            return {**losses, "embeddings": self._embeddings_loss(outputs.pixels, batch)}
        losses |= criterion(outputs, batch.labels, batch.inside, batch.base, batch.tags, self.losses)
        if self.pairs is not None:
            losses |= self.pairs(outputs.pixels, outputs.classes[-1], outputs.masks[-1], points)
        return losses

    def similarity_state(self) -> dict[str, Any] | None:
        """Of SimNet; None where it does not learn."""
        trained = self.pairs is not None and self.pairs.similarity.weight > 0
        return self.pairs.simnet.state_dict() if trained and self.pairs is not None else None

    def _names(self, outputs: Outputs) -> dict[str, Tensor]:
        names = ["cls", "mask", "complement"]
        names += ["embeddings"] if self.head is not None else []
        names += ["similarity", "distillation"] if self.pairs is not None else []
        return {name: outputs.pixels.new_zeros(()) for name in names}

    def _embeddings_loss(self, pixels: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the pixels with a known class, the mean over those of all processes."""
        assert self.head is not None
        labels = batch.labels[:, ::STRIDE, ::STRIDE]
        number = (labels != IGNORED).sum()
        total = F.cross_entropy(self.head(pixels), labels, ignore_index=IGNORED, reduction="sum")
        return ranks.weight(number, device=pixels.device) * total / number.clamp(min=1)
