"""The networks with their losses: batches of samples in, weighted losses out. All but the networks is float32."""

import torch
from torch import Tensor, nn

from mal.methods.bestie.class_loss import class_losses
from mal.methods.bestie.config import BestieConfig
from mal.methods.bestie.data import Sample
from mal.methods.bestie.losses import centre_loss, hardest_pixels, offset_loss
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
from mal.methods.bestie.regions import guidance
from mal.methods.bestie.targets import centre_map, refined_offsets


class ClassLearner(nn.Module):
    """Classes from points."""

    def __init__(self, network: ClassNetwork, config: BestieConfig) -> None:
        super().__init__()
        self.network, self.config = network, config.class_maps

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        """Losses by name: points, absent, background."""
        return class_losses(self.network(torch.stack([sample.image for sample in batch])), batch, self.config)


class InstanceLearner(nn.Module):
    """Classes, centres and offsets from class maps and points."""

    def __init__(self, network: InstanceNetwork, config: BestieConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        """Losses by name: classes, centres, offsets (to centroids) and refined (to points); all samples have maps."""
        losses, fields = self.config.losses, self.network(torch.stack([sample.image for sample in batch]))
        maps = torch.stack([_map(sample) for sample in batch])
        certain, centroids = [], []
        for sample, classes in zip(batch, maps.cpu().numpy(), strict=True):
            first = sample.first.cpu().numpy()
            xy, labels = sample.xy.cpu().numpy()[first], sample.labels.cpu().numpy()[first]
            found = guidance(classes, xy, labels, smallest=self.config.targets.region)
            certain.append(found.certain.to(maps.device))
            centroids.append(found.offsets.to(maps.device))
        pixels = torch.stack(certain)
        wanted = torch.stack([self._centres(sample, fields.centres) for sample in batch])
        found = fields.offsets
        refined = [
            refined_offsets(own.detach(), classes, *_inside(sample))
            for own, classes, sample in zip(found, maps, batch, strict=True)
        ]
        points, known = (torch.stack(each) for each in zip(*refined, strict=True))
        return {
            "classes": hardest_pixels(fields.classes, maps, share=losses.hardest),
            "centres": losses.centre * centre_loss(fields.centres, wanted, pixels),
            "offsets": losses.offset * (1 - losses.refined) * offset_loss(found, torch.stack(centroids), pixels),
            "refined": losses.offset * losses.refined * offset_loss(found, points, known),
        }

    def _centres(self, sample: Sample, centres: Tensor) -> Tensor:
        size = (int(centres.shape[-2]), int(centres.shape[-1]))
        xy, labels = _inside(sample)
        return centre_map(xy, labels, classes=centres.shape[1], size=size, sigma=self.config.targets.sigma)


def _inside(sample: Sample) -> tuple[Tensor, Tensor]:
    """The objects' first points that the sample shows: (n, 2) in pixels, and their labels (n,)."""
    side = sample.image.shape[-1]
    seen = sample.first & (sample.xy >= 0).all(dim=1) & (sample.xy < side).all(dim=1)
    return sample.xy[seen], sample.labels[seen]


def _map(sample: Sample) -> Tensor:
    assert sample.class_map is not None  # `TrainingImages` was given a folder of maps
    return sample.class_map
