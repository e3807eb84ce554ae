"""The loss of sequences."""

from torch import Tensor
from torch.nn import functional as F

from mal.methods.partialres.sequences import UNLEARNED


def sequence_loss(logits: Tensor, labels: Tensor, weights: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy with smoothed labels, its weighted sum divided by the number of places, B·L; in float32.

    Divided by that, and not by the sum of the weights, a token's gradient does not depend on what else is in the batch:
    places that are not learned add 0 and are counted.

    Args:
        logits: (B, L, V).
        labels: (B, L) int64 in 0 … V − 1, or `UNLEARNED`.
        weights: (B, L).
        smoothing: ε; the target is (1 − ε) · label + ε / V everywhere.

    Returns:
        a scalar.
    """
    each = F.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=UNLEARNED,
        reduction="none",
        label_smoothing=smoothing,
    )
    return (each * weights.flatten()).sum() / labels.numel()
