"""Settings of phase 2 that compose but make no sense, each refused by name."""

from operator import attrgetter

from mal.engine.precision import DTYPES
from mal.errors import ConfigError
from mal.segmenters.backends import BACKENDS, Backend
from mal.segmenters.config import CascadeConfig, SegmenterConfig

CHOICES = {
    "backend": (*BACKENDS, "none"),
    "weights": ("trained", "published"),
    "precision": ("auto", *DTYPES),
    "pyramid.kind": ("tiny", "resnet", "timm", "swin"),
    "pyramid.norm": ("frozen", "affine", "batch"),
    "pyramid.fpn_start": ("kaiming", "xavier"),
    "heads.start": ("mmdetection", "detectron2", "torchvision"),
    "heads.mask_targets": ("share", "binary"),
    "grid.mask_targets": ("share", "binary"),
    "optimizer.name": ("sgd", "adamw"),
    "schedule.shape": ("multistep", "cosine"),
    "schedule.repeat_rounding": ("random", "up"),
}

RANGES = {  # lowest and highest allowed, both included
    "pyramid.frozen_stages": (0, 5),
    "pyramid.channels": (1, 1 << 16),
    "proposals.nms": (0, 1),
    "proposals.sampled": (1, 1 << 16),
    "proposals.box_beta": (0, 100),
    "heads.sampled": (1, 1 << 16),
    "heads.positive": (0, 1),
    "heads.box_cells": (1, 256),
    "heads.mask_cells": (1, 256),
    "heads.samples": (0, 16),
    "heads.box_width": (1, 1 << 16),
    "heads.box_beta": (0, 100),
    "heads.mask_up_width": (1, 1 << 16),
    "heads.canonical_side": (1, 1 << 16),
    "cascade.box_weight": (0, 1e6),
    "grid.center": (0, 1),
    "grid.convs": (1, 64),
    "grid.width": (4, 1 << 16),
    "grid.mask_width": (4, 1 << 16),
    "grid.kernel": (4, 1 << 16),
    "grid.dice": (0, 1e6),
    "queries.count": (1, 1 << 16),
    "queries.width": (32, 1 << 16),
    "queries.heads": (1, 1 << 10),
    "queries.pixel_layers": (1, 100),
    "queries.pixel_feed_forward": (1, 1 << 16),
    "queries.layers": (1, 100),
    "queries.feed_forward": (1, 1 << 16),
    "queries.points": (1, 1 << 20),
    "queries.class_weight": (0, 1000),
    "queries.mask_weight": (0, 1000),
    "queries.dice_weight": (0, 1000),
    "queries.no_object": (0, 1),
    "queries.drop_path": (0, 1),
    "scale.long_side": (16, 1 << 16),
    "scale.crop": (0, 1),
    "scale.flip": (0, 1),
    "scale.test_short_side": (16, 1 << 16),
    "scale.test_long_side": (16, 1 << 16),
    "optimizer.lr": (0, 100),
    "optimizer.base_batch": (1, 1 << 20),
    "optimizer.backbone": (0, 1),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, 1),
    "optimizer.layer_decay": (0, 1),
    "optimizer.layers": (4, 1 << 10),
    "schedule.batch": (1, 1 << 20),
    "schedule.warmup": (0, 1),
    "schedule.warmup_start": (0, 1),
    "schedule.gamma": (0, 1),
    "schedule.final": (0, 1),
    "test.score": (0, 1),
    "test.nms": (0, 1),
    "test.max_detections": (1, 1 << 20),
    "test.mask_threshold": (0, 1),
    "test.batch": (1, 1 << 20),
    "test.before_nms": (1, 1 << 20),
    "test.sigma": (0, 1e6),
    "test.decayed_score": (0, 1),
    "running.workers": (0, 256),
    "running.checkpoint_seconds": (0, float("inf")),
    "running.checkpoint_steps": (0, 1 << 40),
    "running.log_steps": (1, 1 << 40),
}

NONE = Backend("none", module="", reads={}, swin=True)  # of segmenter=none: what it holds is not used
LEVELS = 5  # strides 4, 8, 16, 32 and 64 (a subsampled 32) of the feature pyramid


def check(config: SegmenterConfig) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    for key, choices in CHOICES.items():
        if (value := attrgetter(key)(config)) not in choices:
            raise ConfigError(f"segmenter.{key}={value} is unknown; choose one of {', '.join(choices)}")
    for key, (low, high) in RANGES.items():
        if not low <= (value := attrgetter(key)(config)) <= high:
            raise ConfigError(f"segmenter.{key}={value} is out of range; choose a value from {low:g} to {high:g}")
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
    _check_lengths(config)
    if config.scale.crop_sides[0] > config.scale.crop_sides[1]:
        raise ConfigError(f"segmenter.scale.crop_sides={config.scale.crop_sides} must be the shorter, then the longer")


def _check_cascade(cascade: CascadeConfig) -> None:
    count = len(cascade.ious)
    if not count or len(cascade.weights) != count or len(cascade.box_stds) != count:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious}, weights={cascade.weights} and box_stds={cascade.box_stds} must "
            "have one entry a stage each, and at least one"
        )
    if not all(0 < iou < 1 for iou in cascade.ious) or min(cascade.weights) < 0:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious} must lie between 0 and 1, weights={cascade.weights} not below 0"
        )
    if any(len(stds) != 4 or min(stds) <= 0 for stds in cascade.box_stds):
        raise ConfigError(f"segmenter.cascade.box_stds={cascade.box_stds}: each stage needs four positive numbers")


def _check_lengths(config: SegmenterConfig) -> None:
    pairs = {"proposals.before_nms": 2, "proposals.after_nms": 2, "pyramid.mean": 3, "pyramid.std": 3}
    levels = {"proposals.anchors": LEVELS, "grid.cells": LEVELS, "grid.scales": LEVELS}
    exact = pairs | levels | {"scale.crop_sides": 2, "optimizer.betas": 2, "pyramid.widths": 4, "pyramid.blocks": 4}
    for key, length in exact.items():
        if len(value := attrgetter(key)(config)) != length:
            raise ConfigError(f"segmenter.{key}={value} must be a list of {length}")
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
    for key in (
        "scale.short_sides",
        "scale.crop_short_sides",
        "scale.crop_sides",
        "proposals.ratios",
        "heads.mask_widths",
        "grid.cells",
    ):
        value = attrgetter(key)(config)
        if not value or min(value) <= 0:
            raise ConfigError(f"segmenter.{key}={value} must be a list of at least one positive number")
