"""The whole network: the ViT with its point tokens, what reads them, and the detector that it teaches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mal.config import Config
from mal.encoders.backbones import read_weights
from mal.engine import ranks
from mal.engine.precision import autocast, full_precision
from mal.errors import ConfigError
from mal.methods.attentionshift.data import Sample, batched
from mal.methods.attentionshift.detector import LOWERED, Detector, Objects
from mal.methods.attentionshift.encoder import PointViT, Seen
from mal.methods.attentionshift.heads import MilHead, TokenHeads, pooled
from mal.methods.attentionshift.querying import Points, matched, querying_losses
from mal.methods.attentionshift.teaching import Chosen, Scorer, Taught, choose_boxes, teach
from mal.segmenters.batch_norm import share_batch_norms
from mal.segmenters.precision import lower_precision

LOSSES = ("tokens", "places", "mil", "rpn_objectness", "rpn_boxes", "classes", "boxes", "mask")


class AttentionShift(nn.Module):
    """
    Args:
        config: `encoder` and `attentionshift` are used.
        classes: number of categories.
        load: fill in the encoder's weights; false when a trained network's will follow.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(self, config: Config, *, classes: int, load: bool = True) -> None:
        super().__init__()
        settings = config.attentionshift
        side = settings.scale.position_side
        self.config = settings
        self.vit = PointViT(config.encoder, settings.tokens, image_size=(side, side), load=load)
        if settings.steps.rollout.depth > len(self.vit.vit.blocks):
            raise ConfigError(
                f"attentionshift.steps.rollout.depth={settings.steps.rollout.depth} is more than the blocks of encoder="
                f"{config.encoder.name}; choose at most {len(self.vit.vit.blocks)}"
            )
        channels, patch = self.vit.channels, self.vit.patch
        mil = settings.detector.mil
        self.token_heads = TokenHeads(channels, classes=classes)
        self.mil_head = MilHead(channels, classes=classes, cells=mil.cells, width=mil.width, hidden=mil.hidden)
        self.detector = Detector(settings.detector, channels=channels, classes=classes, patch=patch)
        if load and config.encoder.checkpoint is not None:
            self.detector.start_from_mae(read_weights(config.encoder.checkpoint), source=config.encoder.checkpoint)
        self.dtype = torch.float32
        share_batch_norms(self)

    def lowered(self, dtype: torch.dtype, device: torch.device) -> "AttentionShift":
        """Let the networks compute in `dtype`; all between them stays in float32."""
        self.dtype = dtype
        parts = ["token_heads", "mil_head", *(f"detector.{part}" for part in LOWERED)]
        lower_precision(self, parts, dtype=dtype, device=device)
        return self

    def see(self, images: Sequence[Tensor]) -> Seen:
        """What the ViT makes of images (3, h, w) uint8 on its device, padded to one size; float32."""
        fill = tuple(self.vit.mean if self.vit.stem is None else self.vit.stem.mean)
        whole = batched(list(images), multiple=self.config.scale.multiple, fill=fill)
        with autocast(whole.device, self.dtype):
            return self.vit(whole, self.config.steps.rollout.depth).float()

    def forward(self, batch: list[Sample], *, warm: bool = False) -> dict[str, Tensor]:
        """The losses of a batch in training, those of `LOSSES`; their sum is the loss. Draws follow torch's global
        generator.

        Of several processes each divides by what all have on average.

        Args:
            warm: tokens learn alone; the other losses are 0.
        """
        seen = self.see([sample.image for sample in batch])
        points = [sample.points for sample in batch]
        logits, places = self.token_heads(seen.tokens)
        tokens = self.match(logits, places, points)
        focal, apart = querying_losses(logits, places, points, tokens, self.config.querying)
        count = sum(len(each.labels) for each in points)
        weight = ranks.weight(count, device=logits.device) / max(1, count)
        querying = {"tokens": weight * focal, "places": weight * apart}
        if warm:
            return {name: querying.get(name, torch.zeros_like(focal)) for name in LOSSES}
        chosen = [self.choose(seen, i, own, each) for i, (own, each) in enumerate(zip(tokens, points, strict=True))]
        taught = [self.teach(seen, i, each, points[i], torch.default_generator) for i, each in enumerate(chosen)]
        objects = [_objects(each, sample) for each, sample in zip(taught, batch, strict=True)]
        return {
            **querying,
            "mil": torch.stack([each.loss for each in chosen]).mean(),
            **self.detector.losses(seen.maps, objects, [each.size for each in points]),
        }

    def match(self, logits: Tensor, places: Tensor, points: list[Points]) -> list[Tensor]:
        """The token of each point of each image (step 1).

        Tokens that began as places are matched by these instead of by what they predict: from scratch they would else
        learn to answer for any other place, and not look at their own.
        """
        querying, begun = self.config.querying, self.vit.places
        near = places if begun is None else begun.expand(len(places), -1, -1)
        return [matched(logits[i], near[i], each, querying) for i, each in enumerate(points)]

    def choose(self, seen: Seen, image: int, tokens: Tensor, points: Points) -> Chosen:
        """Steps 2 to 4 of one image of a batch."""
        size = (int(seen.maps[-1].shape[-2]), int(seen.maps[-1].shape[-1]))
        with full_precision():
            return choose_boxes(
                [block[image] for block in seen.attention],
                1 + size[0] * size[1] + tokens,
                points.xy,
                points.labels,
                self._scorer(seen.maps[-1][image : image + 1]),
                size=size,
                own=self._own(points),
                patch=self.vit.patch,
                config=self.config.steps,
            )

    def teach(self, seen: Seen, image: int, chosen: Chosen, points: Points, generator: torch.Generator) -> Taught:
        """Steps 5 to 9 of one image of a batch."""
        with full_precision():
            return teach(
                chosen,
                self.features(seen, image, points),
                points.xy,
                patch=self.vit.patch,
                generator=generator,
                config=self.config.steps,
            )

    def features(self, seen: Seen, image: int, points: Points) -> Tensor:
        """(C, h, w): the last map of one image of a batch, without what the batch was padded by."""
        rows, columns = self._own(points)
        return seen.maps[-1][image, :, :rows, :columns]

    def _own(self, points: Points) -> tuple[int, int]:
        """Rows and columns of an image's patches, padded as if it were alone."""
        multiple, patch = self.config.scale.multiple, self.vit.patch
        height, width = (-(-side // multiple) * multiple // patch for side in points.size)
        return height, width

    def _scorer(self, features: Tensor) -> Scorer:
        def score(boxes: Tensor) -> tuple[Tensor, Tensor]:
            cells = pooled(features, [boxes.flatten(0, 1)], cells=self.config.detector.mil.cells, patch=self.vit.patch)
            return self.mil_head(cells.unflatten(0, boxes.shape[:2]))

        return score


def _objects(taught: Taught, sample: Sample) -> Objects:
    """What the detector learns from one image. Points of an object beyond its first, if a file has them, are sure."""
    boxes, labels = taught.chosen.boxes, sample.points.labels
    if taught.points is None:
        assert taught.masks is not None
        nothing = [boxes.new_zeros(0, 2)] * len(boxes)
        return Objects(boxes, labels, nothing, [each[:, 0] for each in nothing], taught.masks.to(torch.uint8))
    points = [torch.cat([xy, more.to(xy)]) for (xy, _), more in zip(taught.points, sample.further, strict=True)]
    wanted = [
        torch.cat([is_on.to(boxes), is_on.new_ones(len(more), dtype=boxes.dtype)])
        for (_, is_on), more in zip(taught.points, sample.further, strict=True)
    ]
    return Objects(boxes, labels, points, wanted)
