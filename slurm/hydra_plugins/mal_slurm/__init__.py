"""Hydra's door to the cluster: `hydra/launcher=slurm`. Hydra looks for plugins in this namespace alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue


class SlurmLauncher(Launcher):
    """Sends a sweep's stages to SLURM and returns; nothing is computed here."""

    def setup(self, *, hydra_context: HydraContext, config: DictConfig, **_others: Any) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], *_others: Any, **_named: Any) -> Sequence[JobReturn]:
        """Plan and submit all rows at once.

        Raises:
            CompactHydraException: a sentence that says what cannot work, and the way out.
        """
        from mal.config import Config  # here, because Hydra scans this file at every start
        from mal.errors import MalError
        from slurm.submit import launch

        rows: list[Config] = []
        for overrides in job_overrides:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(composed):
                del composed["hydra"]
            try:
                rows.append(OmegaConf.to_object(composed))  # type: ignore[arg-type]
            except MissingMandatoryValue as error:
                key = error.full_key
                raise CompactHydraException(f"error: {key} has no value; give {key}=VALUE") from error
        try:
            launch(rows, job_overrides, Path(str(self.config.hydra.sweep.dir)))
        except MalError as error:
            raise CompactHydraException(f"error: {error}") from error
        return []
