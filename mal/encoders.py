"""Image encoders: any timm model → feature maps in (B, C, h, w)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from mal.augment import IMAGENET_MEAN, IMAGENET_STD, normalise
from mal.config import EncoderConfig
from mal.errors import ConfigError, WeightsError

FINEST = 4  # the smallest stride that `encoder.fuse` takes
WAY_OUT = "give the weights as a file with encoder.checkpoint=FILE, or train from scratch with encoder.pretrained=false"


@dataclass
class Features:
    """What the decoder sees of a batch of crops."""

    last: Tensor  # (B, C, h, w): the encoder's last layer, after its final norm where it has one
    fine: Tensor  # (B, D, H, W): the same, or the fused map where `encoder.levels` asks for one


class Encoder(nn.Module):
    """A timm backbone without its head.

    Plain ViTs give their last layer after the final norm, class and register tokens dropped, at the patch's stride;
    Swin, ConvNeXt and other pyramids their last stage. With `levels`, the named strides are fused top-down to the
    finest: each is brought to `width` channels by a 1 × 1 convolution and a group norm (stages differ in scale by an
    order of magnitude), and the coarser sum, resized bilinearly, is added (the paper fuses nothing; §3.2
    and A.2 report a drop from it on ViTs).

    Crops whose side is no multiple of the model's stride are resized up to the next one, so that no edge is dropped.
    """

    backbone: Any  # timm's models share no type

    def __init__(self, config: EncoderConfig, *, image_size: int) -> None:
        super().__init__()
        self.backbone, self.image_size = _backbone(config, image_size)
        strides = [int(info["reduction"]) for info in self.backbone.feature_info]
        levels = _level_indices(config, strides)
        self.indices = sorted({*levels, len(strides) - 1})
        self.norm = _takes_norm(self.backbone)
        if hasattr(self.backbone, "prune_intermediate_layers"):
            self.backbone.prune_intermediate_layers(self.indices, prune_norm=False, prune_head=True)
        self.mean, self.std = _statistics(config, self.backbone)
        self.freeze_norm = config.freeze_norm
        if config.freeze_norm:
            for module in _batch_norms(self.backbone):
                module.requires_grad_(False)
        widths = [m.shape[1] for m in self._probe()]
        self.lateral = nn.ModuleList(_lateral(width, config.width) for width in widths[: len(levels)])
        self.last_channels = widths[-1]
        self.fine_channels = config.width if levels else widths[-1]
        self.train()

    def forward(self, images: Tensor) -> Features:
        """images: (B, 3, S, S) RGB in [0, 1]."""
        if images.shape[-1] != self.image_size:
            side = (self.image_size, self.image_size)
            images = F.interpolate(images, size=side, mode="bilinear", align_corners=False)
        maps = self._maps(normalise(images, self.mean, self.std))
        if not self.lateral:
            return Features(last=maps[-1], fine=maps[-1])
        fine = self.lateral[-1](maps[len(self.lateral) - 1])
        for level in range(len(self.lateral) - 2, -1, -1):
            side_map = self.lateral[level](maps[level])
            fine = side_map + F.interpolate(fine, size=side_map.shape[-2:], mode="bilinear", align_corners=False)
        return Features(last=maps[-1], fine=fine)

    def train(self, mode: bool = True) -> Self:
        """Training mode; frozen batch norms keep using their loaded statistics."""
        super().train(mode)
        if self.freeze_norm:
            for module in _batch_norms(self.backbone):
                module.eval()
        return self

    def _maps(self, images: Tensor) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            images, indices=self.indices, norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )

    @torch.no_grad()
    def _probe(self) -> list[Tensor]:
        """The maps of one blank crop: what the model says of its widths is not always so."""
        mode = self.backbone.training
        self.backbone.eval()
        maps = self._maps(torch.zeros(1, 3, self.image_size, self.image_size))
        self.backbone.train(mode)
        return maps


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch file (`weights_only`); a wrapping `model` or `state_dict` key is opened.

    Raises:
        WeightsError: the file is absent, damaged, or holds more than tensors.
    """
    if not Path(path).is_file():
        raise WeightsError(f"encoder.checkpoint={path}: there is no such file; {WAY_OUT}")
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each format raises kinds of its own
        raise WeightsError(
            f"encoder.checkpoint={path} is not a readable weights file: {_first(error)}; {WAY_OUT}"
        ) from error


def _backbone(config: EncoderConfig, image_size: int) -> tuple[Any, int]:
    """The timm model, its classifier removed, and the input side it wants (a multiple of its stride)."""
    if not timm.is_model(config.timm.split(".")[0]):
        raise ConfigError(f"encoder.timm={config.timm} is no model of timm's; see timm.list_models()")
    stride, sized = _inspect(config, image_size)
    side = -(-image_size // stride) * stride
    arguments: dict[str, Any] = {**config.options, **({"img_size": side} if sized else {})}
    if config.checkpoint is not None:
        model = _from_file(config, arguments)
    elif config.pretrained:
        try:
            model = timm.create_model(config.timm, pretrained=True, num_classes=0, **arguments)
        except Exception as error:  # no network, no such tag, a broken cache: all end the same way for the user
            text = f"the published weights of encoder={config.name} ({config.timm}) cannot be reached"
            raise WeightsError(f"{text}: {_first(error)}; {WAY_OUT}") from error
    else:
        model = timm.create_model(config.timm, pretrained=False, num_classes=0, **arguments)
    model.reset_classifier(0, "")
    return model, side


def _inspect(config: EncoderConfig, image_size: int) -> tuple[int, bool]:
    """(largest stride, whether the family fixes its input size at construction), found on the meta device."""
    for extra in ({"img_size": image_size}, {}):
        try:
            with torch.device("meta"):
                model: Any = timm.create_model(
                    config.timm, pretrained=False, num_classes=0, **{**config.options, **extra}
                )
        except TypeError as error:
            if extra and "img_size" in str(error):
                continue
            raise ConfigError(f"encoder={config.name} ({config.timm}) cannot be built: {error}") from error
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"encoder={config.name} ({config.timm}) cannot be built: {error}") from error
        if not hasattr(model, "forward_intermediates"):
            raise ConfigError(f"encoder.timm={config.timm} cannot return feature maps in this timm; choose another")
        return max(int(info["reduction"]) for info in model.feature_info), bool(extra)
    raise AssertionError("the second attempt returns or raises")


def _from_file(config: EncoderConfig, arguments: dict[str, Any]) -> Any:
    """Load a file into the backbone, every key and shape accounted for.

    The model is built with as many classes as the file's head has, so that timm's loading (which renames keys and
    resamples position embeddings) is strict; the head goes afterwards.
    """
    state = read_weights(str(config.checkpoint))
    default = timm.get_pretrained_cfg(config.timm)
    head = default.classifier if default is not None else None
    heads = [head] if isinstance(head, str) else list(head or [])
    classes = next((len(state[f"{name}.weight"]) for name in heads if f"{name}.weight" in state), 0)
    overlay = {"state_dict": state, "num_classes": classes, "url": "", "hf_hub_id": None, "custom_load": False}
    try:
        return timm.create_model(
            config.timm, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **arguments
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"encoder.checkpoint={config.checkpoint} does not fit encoder={config.name} ({config.timm}): {error}"
        ) from error


def _level_indices(config: EncoderConfig, strides: list[int]) -> list[int]:
    """Which of the model's maps are fused, finest first; none where the last stage stands alone."""
    if config.levels is None:
        pyramid = config.fuse and len(set(strides)) > 1
        return (
            [i for i, stride in enumerate(strides) if stride >= FINEST and stride not in strides[i + 1 :]]
            if pyramid
            else []
        )
    levels = sorted(set(config.levels))
    if len(set(strides)) == 1:
        raise ConfigError(
            f"encoder.levels={config.levels}: {config.timm} is a plain ViT whose layers all have stride {strides[0]}; "
            "use encoder.levels=null"
        )
    if not levels or any(level not in strides for level in levels):
        raise ConfigError(f"encoder.levels={config.levels}: {config.timm} has strides {sorted(set(strides))}")
    return [len(strides) - 1 - strides[::-1].index(level) for level in levels]


def _lateral(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(math.gcd(8, width), width))


def _takes_norm(backbone: nn.Module) -> bool:
    """Whether the family can apply its final norm to a returned map (Hiera's comes after pooling)."""
    return type(backbone).__name__ not in ("Hiera",)


def _statistics(config: EncoderConfig, backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    default = getattr(backbone, "pretrained_cfg", {})
    mean = config.mean or default.get("mean") or IMAGENET_MEAN
    std = config.std or default.get("std") or IMAGENET_STD
    return tuple(mean), tuple(std)


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _first(error: Exception) -> str:
    """The first line of an error; some have pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
