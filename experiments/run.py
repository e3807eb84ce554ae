"""Run an experiment: compose the config, hand it to the suite.

python experiments/run.py                                       the demo, offline, on two CPU cores
python experiments/run.py -m encoder=deit_s,mae_b               a sweep
python experiments/run.py dry_run=true                          what would be done, and what is done already
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mal import overrides
from mal.config import Config
from mal.engine.commands import while_read
from mal.engine.tracking_address import hide_password
from mal.errors import MalError

CONF = Path(__file__).parent / "conf"
ConfigStore.instance().store("schema", Config)


@hydra.main(
    version_base="1.3", config_path=str(CONF), config_name="local" if (CONF / "local.yaml").exists() else "config"
)
def main(config: DictConfig) -> None:
    from mal.run import run  # takes seconds; help and refused overrides need none of it

    try:
        request: Config = OmegaConf.to_object(config)  # type: ignore[assignment]
        run(request, notes=overrides.unread(sys.argv[1:], request))
    except MissingMandatoryValue as error:
        raise CompactHydraException(f"error: {error.full_key} has no value; give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise CompactHydraException(f"error: {overrides.sentence(error, sys.argv[1:])}") from error
    except MalError as error:
        raise CompactHydraException(f"error: {error}") from error


if __name__ == "__main__":
    arguments, secret = hide_password(sys.argv[1:])
    if secret:  # everybody on the machine may list a process's arguments
        os.execve(sys.executable, [sys.executable, sys.argv[0], *arguments], {**os.environ, **secret})
    if {"-h", "--help"} & set(arguments):
        sys.exit(while_read(lambda: print(f"{__doc__}\n{overrides.menu(CONF)}")))
    sys.argv[1:] = overrides.quoted(arguments)
    refusals = (CompactHydraException, OmegaConfBaseException)
    sys.exit(while_read(lambda: overrides.in_sentences(main, hydra_errors=refusals)))
