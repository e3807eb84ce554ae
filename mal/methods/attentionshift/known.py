"""A trained network on an image whose objects' points are known: steps 1 to 5, for labels, measures and pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.engine.runtime import seed_for
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import Sample, objects_of, shown
from mal.methods.attentionshift.encoder import Seen
from mal.methods.attentionshift.maps import InstanceMaps, instance_maps
from mal.methods.attentionshift.teaching import Chosen

Entry = tuple[dict[str, Any], list[dict[str, Any]], Sample]  # an image, its objects, what the network is shown


@dataclass
class Known:
    """Steps 1 to 4 of one image.

    Attributes:
        entry: id, height and width of the image.
        tokens: (n,) the token of each point.
    """

    entry: dict[str, Any]
    sample: Sample
    seen: Seen
    tokens: Tensor
    chosen: Chosen

    @property
    def across(self) -> Tensor:
        """(4,) pixels of the image per pixel of what the network is shown, for boxes xyxy; float64."""
        height, width = self.sample.points.size
        sides = [self.entry["width"] / width, self.entry["height"] / height]
        return torch.tensor(sides * 2, dtype=torch.float64)


def samples(trained: Trained, config: Config, coco: CocoDict, images: Path, device: torch.device) -> Iterator[Entry]:
    """The images of a points view that have objects, at the first test size, on the device.

    Raises:
        AnnotationError: see `Categories.labels_of` and `objects_of`.
    """
    scale, labels = config.attentionshift.scale, trained.categories.labels_of(coco, source="the file")
    for entry, annotations in objects_of(coco, most=config.attentionshift.tokens.count):
        sides = {"short": scale.test_short_sides[0], "long": scale.test_long_sides[0]}
        yield entry, annotations, shown(entry, annotations, images, labels, **sides).to(device)


def as_shown(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of an image read at the middles of the pixels of another size, (height, width)."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)].astype(bool)


@torch.inference_mode()
def look_at(trained: Trained, sample: Sample, entry: dict[str, Any]) -> Known:
    """Steps 1 to 4 of an image."""
    network = trained.network
    seen = network.see([sample.image])
    logits, places = network.token_heads(seen.tokens)
    (tokens,) = network.match(logits, places, [sample.points])
    return Known(entry, sample, seen, tokens, network.choose(seen, 0, tokens, sample.points))


@torch.inference_mode()
def maps_of(trained: Trained, known: Known, config: Config) -> InstanceMaps:
    """Step 5; its draws follow the seed and the image's id."""
    generator = torch.Generator().manual_seed(seed_for(config.seed, "attentionshift label", known.entry["id"]))
    return instance_maps(
        known.seen.maps[-1][0],
        known.chosen.attention,
        known.chosen.boxes,
        known.sample.points.xy,
        patch=trained.network.vit.patch,
        generator=generator,
        config=config.attentionshift.steps.maps,
    )
