"""The rival without sequences: learned queries attend to the same memory and give a box and a map of pixels.

After MDETR (Kamath et al., 2021) and SiRi (Qu et al., 2022), whose masks come from a three-layer perceptron and
features of stride 4 as the paper's supplement has it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

from mal.config import Config
from mal.methods.partialres.attention import hide, wide
from mal.methods.partialres.config.network import PLAIN
from mal.methods.partialres.decoder import DecoderLayer, Read
from mal.methods.partialres.feed_forward import perceptron
from mal.methods.partialres.memory import Encoders, Memory
from mal.methods.partialres.positions import padding_of, valid_cells
from mal.methods.partialres.text.lexicon import Lexicon

L1, GIOU = 5.0, 2.0  # weights of the box's losses


class QueryOutputs(NamedTuple):
    """What Q queries find.

    Attributes:
        boxes: (B, Q, 4) centre x, centre y, width, height as shares of the square.
        scores: (B, Q) logits; their softmax over queries is how sure each is of being the one.
        masks: (B, S/4, S/4) logits of the chosen query; None of a network for boxes alone.
        chosen: (B,) int64: the surest query, or, where the true box was given, the one that fits it best.
    """

    boxes: Tensor
    scores: Tensor
    masks: Tensor | None
    chosen: Tensor

    def found(self) -> Tensor:
        """(B, 4): the chosen queries' boxes, xyxy as shares of the square."""
        return box_convert(of_queries(self.boxes, self.chosen), "cxcywh", "xyxy")


def of_queries(values: Tensor, chosen: Tensor) -> Tensor:
    """(B, Q, C) and one query of each, (B,) → (B, C)."""
    return values[torch.arange(len(chosen), device=chosen.device), chosen]


class QueryNetwork(nn.Module):
    """
    Args:
        config: `encoder` and `partialres.network` are used.
        lexicon, load: see `Encoders`.
        boxes_only: without what draws masks, which a training of masks adds.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(
        self,
        config: Config,
        *,
        lexicon: Lexicon,
        load: bool = True,
        boxes_only: bool = False,
    ) -> None:
        super().__init__()
        settings = config.partialres.network
        width = settings.width
        self.encoders = Encoders(config, lexicon=lexicon, load=load, finest=True)
        self.queries = nn.Parameter(torch.randn(settings.query.queries, width))
        self.layers = nn.ModuleList(DecoderLayer(settings, PLAIN) for _ in range(settings.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.box = perceptron([width, width, width, 4])
        self.score = perceptron([width, 1])
        self.pixels = None if boxes_only else Pixels(self.encoders.backbone.widths[0], width)

    def forward(self, images: Tensor, words: Tensor, valid: Tensor, box: Tensor | None = None) -> QueryOutputs:
        """
        Args:
            images, words, valid: see `Encoders`.
            box: (B, 4) the true boxes, xyxy as shares of the square: in training, where they say whose mask learns.
        """
        maps = self.encoders.backbone(images)
        memory = self.encoders.remember(maps, words, valid)
        states = self._states(memory)
        boxes, scores = wide(self.box(states)).sigmoid(), wide(self.score(states))[..., 0]
        chosen = scores.argmax(1) if box is None else matched(boxes, scores, box)
        masks = None
        if self.pixels is not None:
            masks = self.pixels(maps[0], memory.image()[0], of_queries(states, chosen))
        return QueryOutputs(boxes, scores, masks, chosen)

    def _states(self, memory: Memory) -> Tensor:
        """(B, Q, d): queries that begin at 0, each with its learned vector in place of a position."""
        placed = memory.tokens + memory.positions
        read = Read(memory, memory.cells, [], hide(memory.padding), None)
        states = torch.zeros_like(self.queries).expand(len(placed), -1, -1)
        for layer in self.layers:
            seen = layer.cross.seen(placed, memory.tokens)  # type: ignore[union-attr, operator]
            states, _ = layer(states, self.queries, read, seen)
        return self.norm(states)


class Pixels(nn.Module):
    """A query's state, through a three-layer perceptron, times features of stride 4: the memory, enlarged, on the
    backbone's finest map."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(channels, width, 1)
        self.smooth = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.embed = perceptron([width, width, width, width])

    def forward(self, finest: Tensor, image: Tensor, states: Tensor) -> Tensor:
        """(B, H, W) float32 logits.

        Args:
            finest: (B, C, H, W). image: (B, h, w, d) of the memory. states: (B, d).
        """
        coarse = F.interpolate(image.movedim(-1, 1), finest.shape[-2:], mode="bilinear", align_corners=False)
        features = self.smooth(self.lateral(finest) + coarse)
        return wide(torch.einsum("bd,bdhw->bhw", self.embed(states), features)) / states.shape[-1] ** 0.5


@torch.no_grad()
def matched(boxes: Tensor, scores: Tensor, box: Tensor) -> Tensor:
    """(B,) int64: the query of least 5·L1 − 2·GIoU − its share of the softmax.

    Args:
        boxes: (B, Q, 4) cxcywh. scores: (B, Q). box: (B, 4) xyxy, true.
    """
    distances = (boxes - box_convert(box, "xyxy", "cxcywh")[:, None]).abs().sum(-1)
    corners = box_convert(boxes, "cxcywh", "xyxy")
    overlaps = torch.stack([generalized_box_iou(own, true[None])[:, 0] for own, true in zip(corners, box, strict=True)])
    # a diverged network's costs are no numbers: its loss then says so
    return (L1 * distances - GIOU * overlaps - scores.softmax(1)).nan_to_num().argmin(1)


def query_losses(outputs: QueryOutputs, box: Tensor, mask: Tensor | None, valid: Tensor) -> dict[str, Tensor]:
    """Means over the batch, whose sum is the loss: `l1` (×5), `giou` (×2), `score`, and with a mask `pixels`.

    Args:
        outputs: of a forward pass that the true boxes were given to.
        box: (B, 4) xyxy as shares of the square.
        mask: (B, S/4, S/4) float, the share of each cell that is on the object; None: boxes alone learn.
        valid: (B, 2), see `Memory`; pixels outside the image do not count.
    """
    with torch.autocast(box.device.type, enabled=False):
        own = of_queries(outputs.boxes, outputs.chosen)
        losses = {
            "l1": L1 * (own - box_convert(box, "xyxy", "cxcywh")).abs().sum(1).mean(),
            "giou": GIOU * generalized_box_iou_loss(box_convert(own, "cxcywh", "xyxy"), box, reduction="mean"),
            "score": F.cross_entropy(outputs.scores, outputs.chosen),
        }
        if mask is not None and outputs.masks is not None:
            grid = (mask.shape[-2], mask.shape[-1])
            seen = ~padding_of(valid_cells(valid, grid), grid)
            by_pixel = F.binary_cross_entropy_with_logits(outputs.masks, mask, reduction="none") * seen
            losses["pixels"] = (by_pixel.sum((1, 2)) / seen.sum((1, 2))).mean()
        return losses
