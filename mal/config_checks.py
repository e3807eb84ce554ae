"""Values that compose but make no sense: refused before any work starts, each by name, with what is allowed."""

from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from mal.config import Config
from mal.data.boxes import BORDERS, EXPANSIONS
from mal.encoders.backbones import check_model
from mal.errors import ConfigError
from mal.methods.registry import METHODS, NONE

CHOICES = {
    "data.format": ("shapes", "coco", "lvis"),
    "data.val_images": ("all", "even", "odd"),
    "data.on_bad_image": ("error", "skip"),
    "decoder.name": ("attention", "fc", "fcn", "query"),
    "decoder.pool": ("max", "mean"),
    "decoder.key_layers": (1, 2),
    "decoder.upsample_before": (1, 2, 3, 4),
    "decoder.scale": ("released", "paper"),
    "decoder.query.combine": ("score", "max", "mean"),
    "labeler.name": (*METHODS, NONE),
    "roi.expansion": EXPANSIONS,
    "roi.border": BORDERS,
    "roi.repeats": ("background", "foreground"),
    "loss.mil": ("joint", "separate"),
    "loss.box_mask": ("cell", "fraction"),
    "crf.form": ("two_label", "literal"),
    "crf.image": ("student", "plain"),
    "crf.backend": ("auto", "torch", "triton"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "label.network": ("student", "teacher", "both"),
    "label.upsample": ("direct", "two_step"),
    "clustering.source": ("crops", "images"),
    "clustering.encoder": ("pretrained", "trained"),
    "attention.encoder": ("pretrained", "trained"),
    "attention.query": ("centre", "mean", "class"),
}

RANGES = {  # lowest and highest allowed, both included
    "decoder.fc.hidden": (1, 1 << 16),
    "decoder.fc.pool": (1, 64),
    "decoder.fc.side": (1, 512),
    "decoder.query.layers": (1, 64),
    "decoder.query.heads": (1, 64),
    "decoder.query.queries": (1, 1 << 12),
    "decoder.query.ffn": (1, 64),
    "roi.size": (16, 4096),
    "roi.theta": (0, 10),
    "roi.label_expansion": (0, 10),
    "roi.flip": (0, 1),
    "roi.min_side": (0, float("inf")),
    "encoder.width": (1, 1 << 16),
    "decoder.width": (1, 1 << 16),
    "decoder.key_gain": (0, float("inf")),
    "augment.jitter_p": (0, 1),
    "augment.grey_p": (0, 1),
    "augment.blur_p": (0, 1),
    "loss.smooth": (0, 1),
    "loss.mil_weight": (0, float("inf")),
    "loss.crf_weight": (0, float("inf")),
    "loss.mil_warmup": (0, 1),
    "loss.crf_warmup": (0, 1),
    "loss.stride": (1, 64),
    "crf.zeta": (1e-6, float("inf")),
    "crf.omega": (0, float("inf")),
    "crf.dilation": (1, 64),
    "crf.iterations": (1, 100_000),
    "train.batch": (1, 1 << 20),
    "train.accumulate": (1, 1 << 20),
    "train.lr_per_image": (0, 1),
    "train.warmup": (0, 1),
    "train.final_lr": (0, 1),
    "train.ema": (0, 1),
    "train.eps": (0, 1),
    "train.weight_decay": (0, float("inf")),
    "train.checkpoint_seconds": (0, float("inf")),
    "train.pool_images": (1, 1 << 20),
    "train.workers": (0, 256),
    "label.batch": (1, 1 << 20),
    "label.shard_images": (1, 1 << 20),
    "attention.examples": (1, 1000),
    "evaluate.bootstrap": (2, 1 << 20),
    "data.shapes.train_images": (1, 1 << 24),
    "data.shapes.val_images": (1, 1 << 24),
    "data.shapes.size": (64, 4096),
}

LENGTHS = {  # lists that must have so many numbers, and lowest and highest of each
    "augment.jitter": (4, 0, float("inf")),
    "augment.blur_sigma": (2, 1e-3, float("inf")),
    "encoder.mean": (3, -float("inf"), float("inf")),
    "encoder.std": (3, 1e-6, float("inf")),
    "train.betas": (2, 0, 0.999999),
    "label.threshold": (3, 0, 0.999999),
    "decoder.strides": (3, 1, 4096),
}


def check(config: Config) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    _check_keys(config, "")
    check_model(config.encoder)
    for key, choices in CHOICES.items():
        value = attrgetter(key)(config)
        if value not in choices:
            raise ConfigError(f"{key}={value} is unknown; choose one of {', '.join(map(str, choices))}")
    for key, (low, high) in RANGES.items():
        value = attrgetter(key)(config)
        if not low <= value <= high:
            raise ConfigError(f"{key}={value} is out of range; choose a value from {low:g} to {high:g}")
    for key, (length, low, high) in LENGTHS.items():
        value = attrgetter(key)(config)
        if value is not None and (len(value) != length or not all(low <= number <= high for number in value)):
            raise ConfigError(f"{key}={value} must be {length} numbers from {low:g} to {high:g}")
    _check_relations(config)
    _check_data(config)
    if isinstance(config.row, str):
        raise ConfigError(f"row={config.row} names a row of an experiment's file; add experiment=NAME")


def _check_keys(part: Any, place: str) -> None:
    """Hydra's `+key=value` adds keys that no code reads: refuse them."""
    known = {entry.name for entry in fields(part)}
    for key, value in vars(part).items():
        if key not in known:
            raise ConfigError(
                f"there is no setting {place}{key}; {place or 'the top level'} has {', '.join(sorted(known))}"
            )
        if is_dataclass(value):
            _check_keys(value, f"{place}{key}.")


def _check_relations(config: Config) -> None:
    train, roi, crf = config.train, config.roi, config.crf
    if (train.epochs is None) == (train.steps is None):
        raise ConfigError("set exactly one of train.epochs and train.steps (the other to null)")
    for key, value in (("train.epochs", train.epochs), ("train.steps", train.steps)):
        if value is not None and value <= 0:
            raise ConfigError(f"{key}={value} must be positive")
    if train.batch % train.accumulate:
        raise ConfigError(f"train.batch={train.batch} is not divisible by train.accumulate={train.accumulate}")
    if roi.size % config.loss.stride:
        raise ConfigError(f"roi.size={roi.size} is not divisible by loss.stride={config.loss.stride}")
    if crf.kernel < 3 or crf.kernel % 2 == 0:
        raise ConfigError(f"crf.kernel={crf.kernel} must be odd and at least 3")
    if crf.backend == "triton" and crf.form != "two_label":
        raise ConfigError(f"crf.backend=triton computes crf.form=two_label alone, not {crf.form}; use crf.backend=auto")
    if roi.max_area <= roi.min_area:
        raise ConfigError(f"roi.max_area={roi.max_area:g} must exceed roi.min_area={roi.min_area:g}")
    if train.stop_after is not None and train.stop_after < 1:
        raise ConfigError(f"train.stop_after={train.stop_after} must be at least 1, or null")
    if config.labeler.name == NONE and not (config.clustering.enabled or config.attention.enabled):
        raise ConfigError("labeler=none leaves nothing to do; set clustering.enabled=true or attention.enabled=true")
    if not config.attention.layers:
        raise ConfigError("attention.layers=[] is empty; give layers counted from 1, such as [4,8,12]")
    for name in config.compare:
        if name not in CHOICES["labeler.name"]:
            raise ConfigError(f"compare names {name}; choose from {', '.join(map(str, CHOICES['labeler.name']))}")
    for name in dict.fromkeys([config.labeler.name, *config.compare]):
        if name != NONE:
            METHODS[name].check(config)


def _check_data(config: Config) -> None:
    data = config.data
    if data.class_agnostic and data.format == "lvis":
        raise ConfigError(
            "data.class_agnostic=true: LVIS's evaluation judges each category by itself; use data.format=coco with it"
        )
    if data.class_agnostic and data.test.annotations is not None:
        raise ConfigError(
            "data.class_agnostic=true: COCO's evaluation server wants categories; leave data.test.annotations out"
        )
    other = data.labeler_train
    if len({value is None for value in (other.name, other.annotations, other.images)}) > 1:
        raise ConfigError(
            f"data.labeler_train has name={other.name}, annotations={other.annotations}, images={other.images}; "
            "set all three, or none"
        )
