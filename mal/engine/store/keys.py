"""The name of a result: a hash of all that defines it, in canonical JSON."""

import math
from typing import Any

from mal.engine.files import digest
from mal.errors import ConfigError

KEY_DIGITS = 16


def stage_key(
    *, stage: str, version: int, config: dict[str, Any], inputs: dict[str, str], sources: dict[str, str]
) -> str:
    """Names a result by all that defines it, in 16 hex digits.

    Args:
        stage: its name.
        version: of the stage's code, raised with every change of behaviour.
        config: the resolved settings that the stage reads, and no others.
        inputs: name → "stage/key" of the results it starts from.
        sources: name → sha256 of the files it reads from outside the store.

    Raises:
        ConfigError: a value that JSON has no word for, such as NaN; it is named.
    """
    parts = {"stage": stage, "version": version, "config": config, "inputs": inputs, "sources": sources}
    check_json(parts, f"what defines stage {stage}")
    return digest(parts)[:KEY_DIGITS]


def check_json(value: Any, place: str) -> None:
    """Refuse what `json` would refuse or change: NaN, infinities, keys that are no strings, objects.

    Raises:
        ConfigError: names the place in the nested value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{place}: the key {key!r} is no string; write it as {str(key)!r}")
            check_json(item, f"{place}: {key}" if ":" not in place else f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place} is {value}, which JSON cannot hold; give a finite number or null")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise ConfigError(f"{place} is of type {type(value).__name__}, which JSON cannot hold; use plain values")
