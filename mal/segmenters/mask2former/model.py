"""Mask2Former's network (Cheng et al., 2022), built by transformers from our config, and its backbone's weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, SwinBackbone, SwinConfig
from transformers.utils import logging as transformers_logging

from mal.engine import ranks
from mal.errors import ConfigError, WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.mask2former.start import initialise
from mal.segmenters.weights import WAY_OUT, first_line, read_weights, refuse, unfit

# What it would say in several lines on the terminal (keys that do not fit) we say in one sentence, as an error.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

STAGES = ["stage1", "stage2", "stage3", "stage4"]  # strides 4, 8, 16 and 32


class Architecture(Mask2FormerConfig):
    """The library's config, which runs on ResNets too but says on every start that it may not."""

    backbones_supported = ("swin", "resnet")


# Table 1 has Swin-S. Base and Large are the ones Mask2Former's published models start from: ImageNet-22k, window 12.
SWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin_tiny": (
        "microsoft/swin-tiny-patch4-window7-224",
        {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    ),
    "swin_small": (
        "microsoft/swin-small-patch4-window7-224",
        {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    ),
    "swin_base": (
        "microsoft/swin-base-patch4-window12-384-in22k",
        {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    ),
    "swin_large": (
        "microsoft/swin-large-patch4-window12-384-in22k",
        {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
    ),
}
HEADS = ("classifier.",)  # of a file of Swin's: ImageNet's classifier
ADDED = ("hidden_states_norms.",)  # norms of the maps that leave the backbone, which no ImageNet model has
UNUSED = ("swin.layernorm.",)  # the norm before ImageNet's classifier: a backbone has it and does not use it


def architecture(config: SegmenterConfig, *, classes: int) -> Architecture:
    """Our config in the library's terms.

    Raises:
        ConfigError: no such backbone.
    """
    queries = config.queries
    return Architecture(
        backbone_config=_backbone(config),
        feature_size=queries.width,
        mask_feature_size=queries.width,
        hidden_dim=queries.width,
        num_attention_heads=queries.heads,
        encoder_layers=queries.pixel_layers,
        encoder_feedforward_dim=queries.pixel_feed_forward,
        decoder_layers=queries.layers + 1,  # the library counts the prediction before the first layer
        dim_feedforward=queries.feed_forward,
        num_queries=queries.count,
        train_num_points=queries.points,
        class_weight=queries.class_weight,
        mask_weight=queries.mask_weight,
        dice_weight=queries.dice_weight,
        no_object_weight=queries.no_object,
        num_labels=classes,
    )


def _backbone(config: SegmenterConfig) -> SwinConfig | ResNetConfig:
    pyramid = config.pyramid
    if pyramid.kind == "tiny":
        return ResNetConfig(
            embedding_size=pyramid.stem[0],
            hidden_sizes=pyramid.widths,
            depths=pyramid.blocks,
            layer_type="basic",
            out_features=STAGES,
        )
    if pyramid.kind != "swin":
        raise ConfigError(
            f"segmenter.pyramid.kind={pyramid.kind}: Mask2Former runs on swin, or from scratch on tiny; "
            "choose one of them"
        )
    if pyramid.name not in SWINS:
        raise ConfigError(f"segmenter.pyramid.name={pyramid.name} is unknown; choose one of {', '.join(SWINS)}")
    return SwinConfig(**SWINS[pyramid.name][1], drop_path_rate=config.queries.drop_path, out_features=STAGES)


class Mask2Former(nn.Module):
    """The library's model with our images in front: any sizes in, one padded batch through.

    Args:
        config: `queries`, and of `pyramid` the backbone and `mean` and `std`.
        classes: the background not counted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: SegmenterConfig, *, classes: int) -> None:
        super().__init__()
        self.network = Mask2FormerForUniversalSegmentation(architecture(config, classes=classes))
        initialise(self.network)
        self.register_buffer("mean", torch.tensor(config.pyramid.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.pyramid.std)[:, None, None], persistent=False)
        decoder = self.network.model.pixel_level_module.decoder
        decoder.forward = _in_float32(decoder.forward)

    @property
    def backbone(self) -> nn.Module:
        return self.network.model.pixel_level_module.encoder

    def batch(self, images: list[Tensor]) -> Tensor:
        """(3, h, w) uint8 → (B, 3, H, W) normalised, zeros to the right and below; H and W are multiples of 32."""
        height, width = (-(-max(image.shape[axis] for image in images) // 32) * 32 for axis in (-2, -1))
        pixels = self.mean.new_zeros(len(images), 3, height, width)
        for row, image in zip(pixels, images, strict=True):
            shown = image.to(row.device, non_blocking=True)
            row[:, : image.shape[1], : image.shape[2]] = (shown / 255 - self.mean) / self.std
        return pixels

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Predictions before and after each decoder layer, the last one last: class logits (B, Q, classes + 1), the
        last one "nothing", and mask logits (B, Q, H / 4, W / 4)."""
        found = self.network(pixel_values=pixels, output_auxiliary_logits=True)
        earlier = [(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in found.auxiliary_logits]
        return [*earlier, (found.class_queries_logits, found.masks_queries_logits)]

    def losses(
        self, layers: list[tuple[Tensor, Tensor]], masks: list[Tensor], labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """The library's losses, weighted and summed over the layers: loss_class, loss_mask, loss_dice.

        Of several processes each divides by the mean number of masks, as the authors do, and by the mean weight of the
        queries' classes.

        Args:
            layers: what `forward` gave.
            masks: (n, H, W) float, 0 or 1, an image; padding is background, which is how the authors train.
            labels: (n,) from 0, an image.
        """
        *earlier, (class_logits, mask_logits) = layers
        auxiliary = [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in earlier]
        every = self.network.get_loss_dict(mask_logits, class_logits, masks, labels, auxiliary)
        kinds = {"class": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
        masks_weight = ranks.weight(sum(map(len, labels)), device=mask_logits.device)
        class_weight = ranks.weight(self._class_weight(labels, class_logits.shape[1]), device=mask_logits.device)
        return {
            f"loss_{name}": (class_weight if name == "class" else masks_weight)
            * torch.stack([loss for key, loss in every.items() if key.startswith(theirs)]).sum()
            for name, theirs in kinds.items()
        }

    def _class_weight(self, labels: list[Tensor], queries: int) -> float:
        """What the classes' cross-entropy is divided by: 1 for a query that has an object, less for the others."""
        matched = sum(min(queries, len(one)) for one in labels)
        return matched + self.network.config.no_object_weight * (queries * len(labels) - matched)


def _in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a list of maps, in full precision whatever surrounds it: it computes coordinates."""

    def wrapped(maps: list[Tensor], **named: Any) -> Any:
        with torch.autocast(maps[0].device.type, enabled=False):
            return forward([map_.float() for map_ in maps], **named)

    return wrapped


def load_swin(model: Mask2Former, config: SegmenterConfig) -> None:
    """Fill the backbone from `segmenter.checkpoint`, or from the hub.

    Raises:
        WeightsError: the hub cannot be reached, or the weights do not fit.
    """
    hub = SWINS[config.pyramid.name][0]
    source, state = config.checkpoint or hub, read_weights(config.checkpoint) if config.checkpoint else None
    arguments = {"config": model.backbone.config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        loaded, report = SwinBackbone.from_pretrained(None if state is not None else hub, state_dict=state, **arguments)
    except Exception as error:  # hubs fail in as many ways as there are networks
        raise WeightsError(f"the published weights {hub} cannot be reached ({first_line(error)}); {WAY_OUT}") from error
    refuse(unfit(report, absent=ADDED + UNUSED, extra=HEADS + UNUSED), source=source, model="backbone", way_out=WAY_OUT)
    model.backbone.load_state_dict(loaded.state_dict())
