"""Settings with the values they may have beside them: dataclass fields, and the one check that walks a config."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import field, fields, is_dataclass
from itertools import pairwise
from math import inf
from typing import Any

from mal.errors import ConfigError

RULE = "rule"  # in a field's metadata: value → what is wrong with it, or None


def number(default: Any, low: float, high: float = inf) -> Any:
    """A number from `low` to `high`, both included."""

    def rule(value: float) -> str | None:
        return None if low <= value <= high else f"is out of range; choose a value from {low:g} to {high:g}"

    return _setting(default, rule)


def choice(default: Any, names: tuple[Any, ...]) -> Any:
    """One of a few values."""

    def rule(value: Any) -> str | None:
        return None if value in names else f"is unknown; choose one of {', '.join(map(str, names))}"

    return _setting(default, rule)


def numbers(default: Any, count: int, low: float = -inf, high: float = inf) -> Any:
    """A list of `count` numbers from `low` to `high`, both included; or null, where the type allows it."""

    def rule(value: list[float] | None) -> str | None:
        fits = value is None or (len(value) == count and all(low <= it <= high for it in value))
        return None if fits else f"must be {count} numbers from {low:g} to {high:g}"

    return _setting(default, rule)


def entries(default: list[Any], count: int) -> Any:
    """A list of `count` entries, numbers or lists."""
    return _setting(default, lambda value: None if len(value) == count else f"must be a list of {count}")


def sizes(default: list[int] | list[float], count: int | None = None) -> Any:
    """A list of positive numbers: `count` of them, or at least one."""

    def rule(value: list[float]) -> str | None:
        if count is not None and len(value) != count:
            return f"must be a list of {count}"
        return None if value and min(value) > 0 else "must be a list of at least one positive number"

    return _setting(default, rule)


def rising(default: list[int]) -> Any:
    """A list of numbers that are not negative, each larger than the one before; at least one."""

    def rule(value: list[int]) -> str | None:
        fits = value and value[0] >= 0 and all(a < b for a, b in pairwise(value))
        return None if fits else "must be a list of rising numbers from 0 up"

    return _setting(default, rule)


def check(part: Any, place: str = "") -> None:
    """Refuse what no code reads (Hydra's `+key=value` adds any key) and what is out of its setting's bounds.

    Args:
        part: a dataclass of settings and of further such dataclasses.
        place: its dotted name with a dot behind it; "" for the whole config.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    known = {entry.name: entry for entry in fields(part)}
    for key, value in vars(part).items():
        if key not in known:
            raise ConfigError(
                f"there is no setting {place}{key}; {place or 'the top level'} has {', '.join(sorted(known))}"
            )
        if is_dataclass(value):
            check(value, f"{place}{key}.")
        elif (rule := known[key].metadata.get(RULE)) and (problem := rule(value)):
            raise ConfigError(f"{place}{key}={value} {problem}")


def _setting(default: Any, rule: Callable[[Any], str | None]) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: deepcopy(default), metadata={RULE: rule})
    return field(default=default, metadata={RULE: rule})
