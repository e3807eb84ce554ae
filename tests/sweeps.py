"""What Hydra makes of a command that sweeps: the overrides of each job."""

from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from mal.config import Config
from tests.conftest import CONF


def jobs(*command: str, folder: Path = CONF, name: str = "config") -> list[list[str]]:
    """The overrides of each job of `python experiments/run.py -m COMMAND`.

    Args:
        command: overrides.
        folder: the menu. name: the file in it to start from.
    """
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return split(loader, load(loader, *command, name=name), *command)


def load(loader: ConfigLoader, *command: str, name: str = "config") -> DictConfig:
    """The config of a sweep, with `hydra` in it."""
    return loader.load_configuration(name, overrides=list(command), run_mode=RunMode.MULTIRUN)


def split(loader: ConfigLoader, sweep: DictConfig, *command: str) -> list[list[str]]:
    """The overrides of each of its jobs."""
    sweeper = instantiate(sweep.hydra.sweeper)
    sweeper.hydra_context = HydraContext(config_loader=loader, callbacks=None)
    parsed = OverridesParser.create().parse_overrides([*sweeper._parse_config(), *command])
    (batch,) = sweeper.split_arguments(parsed, None)
    return [list(job) for job in batch]
