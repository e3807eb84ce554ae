"""A network and its losses as one module, whose gradients several processes average."""

import torch
from torch import Tensor, nn

from mal.engine.precision import autocast
from mal.methods.partialres.checkpoint import Network
from mal.methods.partialres.data import Batch
from mal.methods.partialres.losses import sequence_loss
from mal.methods.partialres.query import QueryNetwork, query_losses


class Learner(nn.Module):
    """
    Args:
        smoothing: of labels.
        dtype: that the network computes in; losses are in float32.
    """

    def __init__(self, network: Network, *, smoothing: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.smoothing, self.dtype = network, smoothing, dtype

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch, by names that are always the same; their sum is the loss."""
        if isinstance(self.network, QueryNetwork):
            with autocast(batch.pixels.device, self.dtype):
                outputs = self.network(batch.images, batch.words, batch.valid, batch.boxes)
            return query_losses(outputs, batch.boxes, batch.masks, batch.valid)
        with autocast(batch.pixels.device, self.dtype):
            logits = self.network(batch.images, batch.words, batch.valid, batch.inputs)
        return {"tokens": sequence_loss(logits, batch.labels, batch.weights, smoothing=self.smoothing)}
