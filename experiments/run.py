"""Run an experiment: compose the config, hand it to the suite.

python experiments/run.py                                       the demo, offline, on two CPU cores
python experiments/run.py -m encoder=deit_s,mae_b               a sweep
python experiments/run.py dry_run=true                          what would be done, and what is done already
"""

import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from mal.config import Config
from mal.errors import MalError
from mal.run import run

CONF = Path(__file__).parent / "conf"
ConfigStore.instance().store("schema", Config)


@hydra.main(
    version_base="1.3", config_path=str(CONF), config_name="local" if (CONF / "local.yaml").exists() else "config"
)
def main(config: DictConfig) -> None:
    try:
        run(OmegaConf.to_object(config))  # type: ignore[arg-type]
    except MissingMandatoryValue as error:
        raise CompactHydraException(f"error: {error.full_key} has no value; give {error.full_key}=VALUE") from error
    except MalError as error:
        raise CompactHydraException(f"error: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
