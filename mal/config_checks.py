"""Values that compose but make no sense: refused before any work starts, each by name, with what is allowed."""

from mal import bounds
from mal.config import Config
from mal.encoders.backbones import check_model
from mal.errors import ConfigError
from mal.methods.registry import METHODS, NONE

LABELERS = (*METHODS, NONE)


def check(config: Config) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    bounds.check(config)
    check_model(config.encoder)
    _check_relations(config)
    _check_data(config)
    if not isinstance(config.row, dict | None):
        raise ConfigError(f"row={config.row} names a row of an experiment's file; add experiment=NAME")


def _check_relations(config: Config) -> None:
    train, roi, crf = config.train, config.roi, config.crf
    if config.labeler.name not in LABELERS:
        raise ConfigError(f"labeler.name={config.labeler.name} is unknown; choose one of {', '.join(LABELERS)}")
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
    compared = [name for name in LABELERS if name == NONE or METHODS[name].labels is not None]
    for name in config.compare:
        if name not in compared:
            raise ConfigError(f"compare names {name}; choose from {', '.join(compared)}")
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
    if data.val.parts is not None and data.format in ("shapes", "maps"):
        raise ConfigError(
            f"data.val.parts={data.val.parts} is a file of parts of objects in files, and data={data.name} has none; "
            "leave it out"
        )
    other = data.labeler_train
    if len({value is None for value in (other.name, other.annotations, other.images)}) > 1:
        raise ConfigError(
            f"data.labeler_train has name={other.name}, annotations={other.annotations}, images={other.images}; "
            "set all three, or none"
        )
