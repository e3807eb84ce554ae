"""Settings with their bounds beside them: what is refused, and that a config stays a plain one."""

import pickle
from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING, OmegaConf

from mal.bounds import RULE, check, choice, entries, number, numbers, sizes
from mal.config import Config
from mal.errors import ConfigError


@dataclass
class Inner:
    share: float = number(0.5, 0, 1)
    weight: float = number(1.0, 0)
    kind: str = choice("a", ("a", "b"))
    pair: list[float] | None = numbers(None, 2, 0, 1)
    levels: list[list[int]] = entries([[1], [2]], 2)
    sides: list[int] = sizes([3, 4])


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    steps: int = number(MISSING, 1, 9)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("share", 1.5, "inner.share=1.5 is out of range; choose a value from 0 to 1"),
        ("share", float("nan"), "inner.share=nan is out of range; choose a value from 0 to 1"),
        ("weight", -1, "inner.weight=-1 is out of range; choose a value from 0 to inf"),
        ("kind", "c", "inner.kind=c is unknown; choose one of a, b"),
        ("pair", [1], "inner.pair=[1] must be 2 numbers from 0 to 1"),
        ("pair", [0, 2], "inner.pair=[0, 2] must be 2 numbers from 0 to 1"),
        ("levels", [[1]], "inner.levels=[[1]] must be a list of 2"),
        ("sides", [], "inner.sides=[] must be a list of at least one positive number"),
        ("sides", [1, 0], "inner.sides=[1, 0] must be a list of at least one positive number"),
        ("other", 1, "there is no setting inner.other; inner. has kind, levels, pair, share, sides, weight"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_what_is_allowed(name, value, problem):
    config = Outer(steps=9)
    check(config)
    setattr(config.inner, name, value)
    with pytest.raises(ConfigError) as refused:
        check(config)
    assert str(refused.value) == problem


def test_no_two_configs_share_a_list():
    Inner().levels[0].append(5)
    assert Inner().levels == [[1], [2]]


def test_bounds_are_no_part_of_a_config():
    schema = OmegaConf.structured(Config)
    assert OmegaConf.is_missing(schema.roi, "theta")
    assert f"{RULE}:" not in OmegaConf.to_yaml(schema)
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert pickle.loads(pickle.dumps(Outer(steps=2))) == OmegaConf.to_object(OmegaConf.structured(Outer(steps=2)))
