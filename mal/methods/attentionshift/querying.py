"""Step 1: point tokens are matched to an image's points, and learn their classes and places."""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from mal.methods.attentionshift.config.network import QueryingConfig


@dataclass
class Points:
    """What is known of an image in training; n may be 0.

    Attributes:
        xy: (n, 2), x and y in pixels of the image as it is shown.
        labels: (n,) classes from 0.
        size: (height, width) of the image before padding.
    """

    xy: Tensor
    labels: Tensor
    size: tuple[int, int]

    @property
    def places(self) -> Tensor:
        """(n, 2) in [0, 1]."""
        height, width = self.size
        return self.xy / self.xy.new_tensor([width, height])


@torch.no_grad()
def matched(logits: Tensor, places: Tensor, points: Points, config: QueryingConfig) -> Tensor:
    """The token of each point: (n,) indices, by the assignment of the least cost over all points together.

    The cost of token t for a point is that of the focal loss at the point's class, what it would be there less what it
    would be elsewhere, plus `place` times |Δx| + |Δy| in shares of the image.

    Args:
        logits: (T, K). places: (T, 2). T ≥ n.
    """
    probability = logits.double().sigmoid()[:, points.labels]
    positive = -config.alpha * (1 - probability) ** config.gamma * (probability + 1e-12).log()
    negative = -(1 - config.alpha) * probability**config.gamma * (1 - probability + 1e-12).log()
    apart = (places.double()[:, None] - points.places.double()[None]).abs().sum(dim=-1)
    # what is no number is left to the losses, which are looked at
    cost = torch.nan_to_num(positive - negative + config.place * apart)
    tokens, order = linear_sum_assignment(cost.cpu().numpy())
    found = torch.empty(len(points.labels), dtype=torch.int64)
    found[torch.as_tensor(order)] = torch.as_tensor(tokens)
    return found.to(logits.device)


def querying_losses(
    logits: Tensor, places: Tensor, points: list[Points], tokens: list[Tensor], config: QueryingConfig
) -> tuple[Tensor, Tensor]:
    """The focal loss of all tokens (Lin et al., 2017), and `place` times the L1 distance of the matched ones; both are
    sums over the images, to be divided by the number of points.

    Args:
        logits: (B, T, K). places: (B, T, 2).
        tokens: of each image's points, see `matched`.
    """
    wanted, apart = torch.zeros_like(logits), places.sum() * 0
    for image, (known, own) in enumerate(zip(points, tokens, strict=True)):
        wanted[image, own, known.labels] = 1
        apart = apart + F.l1_loss(places[image, own], known.places.to(places), reduction="sum")
    focal = sigmoid_focal_loss(logits, wanted, alpha=config.alpha, gamma=config.gamma, reduction="sum")
    return focal, config.place * apart
