"""Rows composed for a cluster are the configs that Hydra would compose one by one."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from mal.config import Config
from slurm.rows import compose_rows

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
ROWS = [
    ["encoder=deit_s", "profile=paper", "seed=0", "roi.theta=1.4"],
    ["encoder=mae_b", "profile=paper", "seed=1", "roi.theta=0.6"],
    ["encoder=mae_b", "profile=paper", "seed=2", "encoder.levels=[8,16]", "crf.zeta=0.25"],
    ["profile=smoke", "~tracking", "train.epochs=2", "train.steps=null", "data.root=/a b/c"],
    ["experiment=tab5_theta", "profile=mini", "+encoder.options.drop_path_rate=0.1", "segmenter=none", "seed=7"],
    ["seed=3", "recipe=released"],
]


def test_the_rows_are_those_of_hydra() -> None:
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = loader.load_configuration("config", overrides=[], run_mode=RunMode.MULTIRUN)
        found = compose_rows(loader, sweep, ROWS)
        for row, overrides in zip(found, ROWS, strict=True):
            expected = loader.load_sweep_config(sweep, overrides)
            with open_dict(expected):
                del expected["hydra"]
            assert row == OmegaConf.to_object(expected), overrides


@pytest.mark.parametrize("wrong", ["crf.zetta=1", "seed=many", "encoder=nonesuch"])
def test_what_hydra_refuses_is_refused(wrong: str) -> None:
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = loader.load_configuration("config", overrides=[], run_mode=RunMode.MULTIRUN)
        with pytest.raises(ConfigCompositionException):
            compose_rows(loader, sweep, [[wrong]])
