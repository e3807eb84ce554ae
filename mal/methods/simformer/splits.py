"""Which classes are novel: the published splits, ours, or names that a user gives."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mal.data.class_maps import GROUND
from mal.engine.findings import some
from mal.errors import ConfigError

SETTING = "simformer.split.classes=[…]"
FILE = Path(__file__).with_name("splits.yaml")


def novel_of(classes: Sequence[str], split: str | Sequence[str]) -> tuple[int, ...]:
    """The novel classes of a data set.

    Args:
        classes: of the data set, in the order of its class maps. Which splits it has is told by them; a last class
            GROUND beside a split's classes is a base class.
        split: the name of a split in splits.yaml, such as S1; or the names of the novel classes.

    Returns:
        their places in `classes`, ascending; some classes are left as base classes.

    Raises:
        ConfigError: the data set has no split of this name, or no class; lists those there are.
    """
    return _by_name(classes, split) if isinstance(split, str) else _by_classes(classes, split)


def classes_of(data: str) -> list[str]:
    """The classes of a data set in splits.yaml, in the order of its class maps."""
    return list(_splits()[data]["classes"])


def _by_name(classes: Sequence[str], split: str) -> tuple[int, ...]:
    for data in _splits().values():
        if list(classes) in (data["classes"], [*data["classes"], GROUND]):
            if split not in data["novel"]:
                raise ConfigError(
                    f"there is no split {split!r} of these {len(classes)} classes; choose one of "
                    f"{', '.join(data['novel'])}, or name the novel classes with {SETTING}"
                )
            return tuple(sorted(data["novel"][split]))
    raise ConfigError(
        f"split {split!r} does not fit the data: its {len(classes)} classes ({some(classes)}) are those of none of "
        f"{', '.join(_splits())}{_nearest(classes)}; name the novel classes with {SETTING}"
    )


def _by_classes(classes: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ConfigError(
            f"there is no class {some(map(repr, unknown))} for {SETTING}; the data has {', '.join(classes)}"
        )
    places = tuple(sorted({list(classes).index(name) for name in names}))
    if not 0 < len(places) < len(classes):
        raise ConfigError(
            f"{len(places)} of the {len(classes)} classes are named as novel with {SETTING}; name at least one, and "
            "leave at least one as a base class"
        )
    return places


def _nearest(classes: Sequence[str]) -> str:
    """What tells the classes from those of the split's data set that has most of them; empty where none has half."""
    name, data = max(_splits().items(), key=lambda it: len({*it[1]["classes"]} & {*classes}))
    expected = data["classes"]
    if 2 * len({*expected} & {*classes}) < len(expected):
        return ""
    missing, more = (
        [it for it in first if it not in second] for first, second in ((expected, classes), (classes, expected))
    )
    differences = [f"lacking {some(missing)}"] * bool(missing) + [f"beside it {some(more)}"] * bool(more)
    return f" (nearest to {name}, {' and '.join(differences) or 'in another order'})"


@cache
def _splits() -> dict[str, Any]:
    """Data set → `classes` and `novel`: name of a split → places."""
    found = OmegaConf.to_container(OmegaConf.load(FILE))
    assert isinstance(found, dict)
    return {str(name): data for name, data in found.items()}
