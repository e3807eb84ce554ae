"""Small configs of a method, composed once, and what a run of one asks for."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
import yaml

from mal.config import Config
from mal.config_checks import check
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.request import Graph

Compose = Callable[..., Config]


@cache
def _composed(compose: Compose, overrides: tuple[str, ...]) -> Config:
    return compose(*overrides)


def changed_below(method: str, compose: Compose, *settings: str, of: tuple[str, ...]) -> Config:
    """A copy of a config (composing it takes half a second, this does not) with other settings below a method's name:
    `pairs.kind=none`."""
    config = deepcopy(_composed(compose, of))
    for setting in settings:
        key, _, value = setting.partition("=")
        *parts, name = key.split(".")
        part = getattr(config, method)
        for step in parts:
            part = getattr(part, step)
        assert hasattr(part, name), setting
        setattr(part, name, yaml.safe_load(value))
    check(config)
    return config


def stages_of(config: Config, store: Path) -> dict[str, list[Stage]]:
    """The stages of a run on a CPU, by their names."""
    found: dict[str, list[Stage]] = {}
    for stage in in_order(Graph(config, Store(store), torch.device("cpu")).targets()):
        found.setdefault(stage.name, []).append(stage)
    return found
