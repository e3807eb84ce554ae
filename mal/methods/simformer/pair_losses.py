"""SimLoss and DistLoss of a batch, from the outputs of the last layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.similarity import SimilarityConfig
from mal.methods.simformer.distillation import dist_loss, novel_scores, student
from mal.methods.simformer.points import PairPoints
from mal.methods.simformer.similarity import Balance, SimNet, count, sim_loss, targets


class PairLosses(nn.Module):
    """SimNet with its balance, and the losses of pairs of images; all of it belongs into a checkpoint.

    Args:
        width: channels of the pixel embeddings.
        novel: places of the novel classes.
    """

    novel: Tensor

    def __init__(
        self, width: int, novel: Sequence[int], *, similarity: SimilarityConfig, distillation: DistillationConfig
    ) -> None:
        super().__init__()
        self.similarity, self.distillation = similarity, distillation
        self.simnet = SimNet(width)
        self.balance = Balance(similarity.window)
        self.register_buffer("novel", torch.tensor(novel, dtype=torch.int64), persistent=False)

    def forward(self, pixels: Tensor, classes: Tensor, masks: Tensor, points: list[PairPoints]) -> dict[str, Tensor]:
        """The weighted losses, means over the pairs of images; float32 or wider.

        Processes with equally many pairs average to what one with all of them has.

        Args:
            pixels: (B, C, h, w) pixel embeddings. classes: (B, Q, classes + 1) logits. masks: (B, Q, h, w) logits.
            points: of each pair, on the same device; at least one.
        """
        pixels, classes, masks = (
            each.to(torch.promote_types(each.dtype, torch.float32)) for each in (pixels, classes, masks)
        )
        pixels, masks = pixels.flatten(2), masks.flatten(2)
        losses = {"similarity": pixels.new_zeros(()), "distillation": pixels.new_zeros(())}
        if self.similarity.weight:
            losses["similarity"] = self.similarity.weight * self._sim_loss(pixels, points)
        shared = [pair for pair in points if pair.hidden is not None and _comparable(*pair.hidden)]
        if self.distillation.weight and shared:
            each = torch.stack([self._dist_loss(pixels, classes, masks, pair) for pair in shared])
            losses["distillation"] = self.distillation.weight * each.sum() / len(points)
        return losses

    def _sim_loss(self, pixels: Tensor, points: list[PairPoints]) -> Tensor:
        """Pixels of the image with those of the reference, and the other way round."""
        if self.similarity.detach:
            pixels = pixels.detach()
        wanted = [targets(*_both_ways(pair.labels)) for pair in points]
        if self.similarity.counts == "released":
            counted = [_released_count(pair) for pair in points]
        else:
            counted = [count(same, counts) for same, counts in wanted]
        self.balance.add(torch.stack(counted).sum(0))
        weights = self.balance.weights()
        losses = []
        for pair, (same, counts) in zip(points, wanted, strict=True):
            logits = self.simnet(*_both_ways(_at(pixels, pair.images, pair.places)))
            losses.append(sim_loss(logits.to(pixels.dtype), same, counts, weights))
        return torch.stack(losses).mean()

    def _dist_loss(self, pixels: Tensor, classes: Tensor, masks: Tensor, pair: PairPoints) -> Tensor:
        assert pair.hidden is not None
        with torch.no_grad():
            first, second = _at(pixels, pair.images, pair.hidden)
            teacher = self.simnet(first[None], second[None])[0].to(pixels.dtype)
        scores = [
            novel_scores(classes[image], masks[image][:, places], self.novel)
            for image, places in zip(pair.images, pair.hidden, strict=True)
        ]
        return dist_loss(teacher, student(scores[0], scores[1], self.distillation.student), self.distillation.loss)


def _comparable(first: Tensor, second: Tensor) -> bool:
    """Whether there are pairs, and more than the one of which a batch norm has no statistics."""
    return len(first) * len(second) > 1


def _at(pixels: Tensor, images: tuple[int, int], places: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, C, h · w) → (n, C) and (m, C)."""
    return pixels[images[0]][:, places[0]].T, pixels[images[1]][:, places[1]].T


def _both_ways(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(n, …) of two images → (2, n, …) left and (2, n, …) right."""
    first, second = pair
    return torch.stack([first, second]), torch.stack([second, first])


def _released_count(pair: PairPoints) -> Tensor:
    assert pair.truth is not None
    same, counted = targets(*_both_ways(pair.truth))
    return count(same, torch.ones_like(counted))
