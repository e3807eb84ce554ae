"""Settings of phase 2 that compose but make no sense, each refused by name."""

from operator import attrgetter

from mal import bounds
from mal.errors import ConfigError
from mal.segmenters.backends import BACKENDS, Backend
from mal.segmenters.config import CascadeConfig, SegmenterConfig

NONE = Backend("none", module="", reads={}, swin=True)  # of segmenter=none: what it holds is not used


def check(config: SegmenterConfig) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    bounds.check(config, "segmenter.")
    if config.backend not in (*BACKENDS, "none"):
        choices = ", ".join([*BACKENDS, "none"])
        raise ConfigError(f"segmenter.backend={config.backend} is unknown; choose one of {choices}")
    backend = BACKENDS.get(config.backend, NONE)
    if not isinstance(config.mask_head, bool):
        raise ConfigError(f"segmenter.mask_head={config.mask_head} is unknown; choose true, or none for boxes alone")
    if config.precision == "fp16" and not backend.fp16:
        raise ConfigError(
            f"segmenter.precision=fp16 scales the loss, which {backend.name}'s trainer here does not do; use "
            "segmenter.precision=bf16 or fp32, or the backend that segmenter= names"
        )
    schedule = config.schedule
    if (schedule.epochs is None) == (schedule.steps is None):
        raise ConfigError(
            "set exactly one of segmenter.schedule.epochs and segmenter.schedule.steps (the other to null)"
        )
    if (schedule.epochs or schedule.steps or 0) <= 0:
        raise ConfigError(
            f"segmenter.schedule.epochs={schedule.epochs}, steps={schedule.steps}: the length must be positive"
        )
    if schedule.repeat_threshold is not None and not 0 < schedule.repeat_threshold <= 1:
        raise ConfigError(
            f"segmenter.schedule.repeat_threshold={schedule.repeat_threshold} must be a share of the images, above 0 "
            "and at most 1, or null for no repeats"
        )
    if any(not 0 <= share <= 1 for share in schedule.milestones):
        raise ConfigError(f"segmenter.schedule.milestones={schedule.milestones} must be shares of the run, in [0, 1]")
    if config.optimizer.clip is not None and config.optimizer.clip <= 0:
        raise ConfigError(f"segmenter.optimizer.clip={config.optimizer.clip} must be positive, or null for none")
    if any(not 0 <= beta < 1 for beta in config.optimizer.betas):
        raise ConfigError(f"segmenter.optimizer.betas={config.optimizer.betas} must be numbers from 0 to below 1")
    if config.dcn and config.pyramid.kind == "tiny":
        raise ConfigError("segmenter.dcn=true needs a ResNet or ResNeXt, and segmenter.pyramid.kind=tiny is none")
    if config.optimizer.layer_decay != 1 and (config.optimizer.name != "adamw" or config.pyramid.kind != "timm"):
        raise ConfigError(
            f"segmenter.optimizer.layer_decay={config.optimizer.layer_decay} needs AdamW and timm's ConvNeXt; set 1"
        )
    pyramid = config.pyramid
    if pyramid.stride_in_1x1 and (pyramid.kind != "resnet" or pyramid.name in ("resnet18", "resnet34")):
        raise ConfigError(
            "segmenter.pyramid.stride_in_1x1=true needs the bottlenecks of torchvision's ResNets of 50 layers or more; "
            f"segmenter.pyramid.name={pyramid.name} of kind {pyramid.kind} has none; leave it out"
        )
    if pyramid.kind == "swin" and not backend.swin:
        raise ConfigError(
            f"segmenter.pyramid.kind=swin is Mask2Former's; segmenter={config.name} runs on resnet, timm or tiny"
        )
    if config.grid.deform_out and not config.dcn:
        raise ConfigError("segmenter.grid.deform_out=true needs segmenter.dcn=true, whose last convolution it concerns")
    if config.human_checkpoint is not None and config.weights == "published":
        raise ConfigError(
            f"segmenter.human_checkpoint={config.human_checkpoint} stands for a segmenter trained on human masks, "
            "beside one on pseudo-labels, and segmenter.weights=published trains none; leave one of the two out"
        )
    _check_cascade(config.cascade)
    _check_entries(config)
    if config.scale.crop_sides[0] > config.scale.crop_sides[1]:
        raise ConfigError(f"segmenter.scale.crop_sides={config.scale.crop_sides} must be the shorter, then the longer")


def _check_cascade(cascade: CascadeConfig) -> None:
    count = len(cascade.ious)
    if not count or len(cascade.weights) != count or len(cascade.box_stds) != count:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious}, weights={cascade.weights} and box_stds={cascade.box_stds} must "
            "have one entry per stage each, and at least one"
        )
    if not all(0 < iou < 1 for iou in cascade.ious) or min(cascade.weights) < 0:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious} must lie between 0 and 1, weights={cascade.weights} not below 0"
        )
    if any(len(stds) != 4 or min(stds) <= 0 for stds in cascade.box_stds):
        raise ConfigError(f"segmenter.cascade.box_stds={cascade.box_stds}: each stage needs four positive numbers")


def _check_entries(config: SegmenterConfig) -> None:
    if len({len(sides) for sides in config.proposals.anchors}) > 1 or not config.proposals.anchors[0]:
        raise ConfigError(f"segmenter.proposals.anchors={config.proposals.anchors}: each level needs as many sides")
    if any(len(scale) != 2 or not 0 <= scale[0] < scale[1] for scale in config.grid.scales):
        raise ConfigError(f"segmenter.grid.scales={config.grid.scales}: each level needs a lower and a higher number")
    for key in ("grid.width", "grid.mask_width", "grid.kernel"):
        if (value := attrgetter(key)(config)) % 4:
            raise ConfigError(f"segmenter.{key}={value} must be a multiple of 4, the least that a norm averages")
    if (jitter := config.scale.jitter) and not (len(jitter) == 2 and 0 < jitter[0] <= jitter[1]):
        raise ConfigError(
            f"segmenter.scale.jitter={jitter} must be the lowest and the highest factor, such as [0.1, 2.0], "
            "or [] for none"
        )
    if config.scale.jitter and config.scale.crop:
        raise ConfigError("segmenter.scale.jitter crops by itself; set segmenter.scale.crop=0")
    if config.optimizer.backbone != 1 and not BACKENDS.get(config.backend, NONE).slower_backbone:
        raise ConfigError(
            f"segmenter.optimizer.backbone={config.optimizer.backbone}: segmenter={config.name} trains its backbone "
            "at the same rate as the rest; set 1"
        )
    if config.queries.width % 32 or config.queries.width % config.queries.heads:
        raise ConfigError(
            f"segmenter.queries.width={config.queries.width} must be a multiple of 32 (its norms have 32 groups) and "
            f"of segmenter.queries.heads={config.queries.heads}"
        )
