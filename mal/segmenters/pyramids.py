"""Backbones with a feature pyramid: images → maps of strides 4, 8, 16, 32 and 64, equally wide."""

from typing import Any, Self

import timm
import torchvision
from timm.layers import LayerNorm2d, freeze_batch_norm_2d
from timm.models import group_parameters
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mal.errors import ConfigError, WeightsError
from mal.segmenters.config import PyramidConfig, SegmenterConfig
from mal.segmenters.deformable import deform
from mal.segmenters.weights import WAY_OUT, load_backbone, read_weights

STRIDES = (4, 8, 16, 32)
RESNETS = tuple(
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if name.startswith(("resnet", "resnext", "wide_resnet"))
)
LEVEL_NAMES = [str(index) for index in range(len(STRIDES))]  # and "pool", the subsampled last one


class Pyramid(nn.Module):
    """A bottom-up body and FPN on top of it (Lin et al., 2017).

    Args:
        body: images (B, 3, H, W) → list of four maps of strides 4, 8, 16, 32.
        widths: their channels.
        config: `map_norm`, `channels`, `fpn_norm` and `fpn_start` are used.
    """

    def __init__(self, body: nn.Module, *, widths: list[int], config: PyramidConfig) -> None:
        super().__init__()
        self.body = body
        norms = [LayerNorm2d(width, eps=1e-6) if config.map_norm else nn.Identity() for width in widths]
        self.map_norms = nn.ModuleList(norms)
        norm = nn.BatchNorm2d if config.fpn_norm else None
        self.fpn = FeaturePyramidNetwork(widths, config.channels, extra_blocks=LastLevelMaxPool(), norm_layer=norm)
        if config.fpn_start == "xavier":
            for layer in self.fpn.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight)  # biases are 0 either way
        self.out_channels = config.channels  # torchvision's detectors read this name

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """{"0", "1", "2", "3", "pool"}: (B, channels, H / stride, W / stride)."""
        maps = [norm(level) for norm, level in zip(self.map_norms, self.body(images), strict=True)]
        return self.fpn(dict(zip(LEVEL_NAMES, maps, strict=True)))


def build_pyramid(config: SegmenterConfig, *, load: bool) -> Pyramid:
    """The backbone a segmenter asks for.

    `norm=frozen` and `frozen_stages` keep loaded weights as they are, `norm=affine` the batch norms' statistics; a
    backbone that trains from scratch has nothing to keep, and trains whole, with batch norm.

    Args:
        config: `pyramid`, `dcn`, `pretrained` and `checkpoint` are used.
        load: fill in the starting weights; false when a trained segmenter's weights will follow.

    Raises:
        ConfigError, WeightsError.
    """
    pyramid = config.pyramid
    if pyramid.kind == "tiny":
        tiny = TinyBody(pyramid)
        return Pyramid(tiny, widths=pyramid.widths, config=pyramid)
    body = TimmBody(pyramid) if pyramid.kind == "timm" else ResnetBody(pyramid)
    if load:
        _load(body, config)
    if pyramid.stride_in_1x1:
        stride_early(body.stages()[1:])
    if config.dcn:
        deform(body.stages()[1:])  # 3-5 in the field's count, in which the stem is stage 1
    if config.pretrained or config.checkpoint is not None:
        body.freeze(pyramid)
    return Pyramid(body, widths=body.widths, config=pyramid)


def stride_early(stages: list[nn.Module]) -> None:
    """Move the stride of each stage's first bottleneck from its 3 × 3 convolution to the 1 × 1 before it."""
    for stage in stages:
        block: Any = next(stage.children())
        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)


class TinyBody(nn.Module):
    """A small residual network to train from scratch on a CPU: a stride-2 stem and four stages that halve again."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        stem: list[nn.Module] = []
        below = 3
        for width in config.stem:
            stem += [_convolution(below, width, stride=2), nn.ReLU()]
            below = width
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList()
        for width, count in zip(config.widths, config.blocks, strict=True):
            stage: list[nn.Module] = [_Residual(below, width, stride=2)]
            stage += [_Residual(width, width, stride=1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*stage))
            below = width

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Residual(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    def __init__(self, below: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.first = _convolution(below, width, stride=stride)
        self.second = _convolution(width, width, stride=1)
        self.shortcut = nn.Identity() if stride == 1 and below == width else _convolution(below, width, stride, side=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


def _convolution(below: int, width: int, stride: int, *, side: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(below, width, side, stride=stride, padding=side // 2, bias=False), nn.BatchNorm2d(width)
    )


class LoadedBody(nn.Module):
    """A body whose weights are loaded; see `build_pyramid` for what it keeps of them."""

    keeps_statistics = False

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's weights under the names they have here."""
        return state

    def freeze_norms(self, model: nn.Module, norm: str) -> None:
        """Let the batch norms of a model keep what `PyramidConfig.norm` says."""
        if norm == "frozen":
            freeze_batch_norm_2d(model)
        elif norm == "affine":
            self.keeps_statistics = True

    def train(self, mode: bool = True) -> Self:
        """With `norm=affine`, batch norms normalise by the loaded statistics in training too, and do not move them."""
        super().train(mode)
        if self.keeps_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class ResnetBody(LoadedBody):
    """A torchvision ResNet or ResNeXt without its classifier."""

    head = "fc."

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        if config.name not in RESNETS:
            raise ConfigError(f"segmenter.pyramid.name={config.name} is unknown; choose one of {', '.join(RESNETS)}")
        self.name = config.name
        self.model = torchvision.models.get_model(config.name, weights=None)
        self.widths = [self.model.fc.in_features // factor for factor in (8, 4, 2, 1)]
        self.model.fc = nn.Identity()

    def published(self) -> dict[str, Tensor]:
        weights = torchvision.models.get_model_weights(self.name)["IMAGENET1K_V1"]
        return weights.get_state_dict(progress=False, check_hash=True)

    def freeze(self, config: PyramidConfig) -> None:
        self.freeze_norms(self.model, config.norm)
        stem = nn.ModuleList([self.model.conv1, self.model.bn1])
        for stage in [stem, *self.stages()][: config.frozen_stages]:
            stage.requires_grad_(False)

    def stages(self) -> list[nn.Module]:
        return [self.model.layer1, self.model.layer2, self.model.layer3, self.model.layer4]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.model.maxpool(self.model.relu(self.model.bn1(self.model.conv1(images))))
        maps = []
        for stage in self.stages():
            x = stage(x)
            maps.append(x)
        return maps


class TimmBody(LoadedBody):
    """Any timm model with maps at strides 4, 8, 16 and 32."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.name, self.options = config.name, dict(config.options)
        self.model = self._create(pretrained=False)
        reductions = [int(level["reduction"]) for level in self.model.feature_info]
        if not hasattr(self.model, "forward_intermediates") or any(stride not in reductions for stride in STRIDES):
            raise ConfigError(
                f"segmenter.pyramid.name={config.name} gives maps of strides {reductions}; a feature pyramid needs "
                f"{list(STRIDES)}: choose a ResNet, ConvNeXt, Swin or another pyramid"
            )
        self.indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES]
        self.widths = [int(self.model.feature_info[index]["num_chs"]) for index in self.indices]
        self.head = str(self.model.pretrained_cfg.get("classifier", "head")) + "."

    def _create(self, *, pretrained: bool) -> Any:
        try:
            return timm.create_model(self.name, pretrained=pretrained, num_classes=0, **self.options)
        except (RuntimeError, TypeError) as error:
            if pretrained:
                raise
            raise ConfigError(f"segmenter.pyramid.name={self.name} cannot be built by timm: {error}") from error

    def published(self) -> dict[str, Tensor]:
        return self._create(pretrained=True).state_dict()

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """ConvNeXt's authors publish some weights that timm does not, under names of their own."""
        return checkpoint_filter_fn(state, self.model) if isinstance(self.model, ConvNeXt) else state

    def freeze(self, config: PyramidConfig) -> None:
        self.freeze_norms(self.model, config.norm)
        if config.frozen_stages:
            groups = group_parameters(self.model, self.model.group_matcher(coarse=True))  # the stem, then each stage
            for number in range(config.frozen_stages):
                for name in groups[number]:
                    self.model.get_parameter(name).requires_grad_(False)

    def stages(self) -> list[nn.Module]:
        """
        Raises:
            ConfigError: the model has no stages of 3 × 3 convolutions that it could give.
        """
        if not isinstance(self.model, ResNet):
            raise ConfigError(f"segmenter.dcn=true needs a ResNet or ResNeXt, and timm's {self.name} is none")
        return [self.model.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(
            images, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )


def _load(body: ResnetBody | TimmBody, config: SegmenterConfig) -> None:
    if config.checkpoint is not None:
        state = body.renamed(read_weights(config.checkpoint))
        load_backbone(body.model, state, head=body.head, source=config.checkpoint)
    elif config.pretrained:
        try:
            state = body.published()
        except Exception as error:  # hubs fail in as many ways as there are networks
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(
                f"the published weights of {body.name} cannot be reached ({reason}); {WAY_OUT}"
            ) from error
        load_backbone(body.model, state, head=body.head, source=body.name)
