"""Hydra's door to the cluster: `hydra/launcher=slurm`. Hydra looks for plugins in this namespace alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """Sends a sweep's stages to SLURM and returns; nothing is computed here."""

    def setup(self, *, hydra_context: HydraContext, config: DictConfig, **_others: Any) -> None:
        self.hydra_context, self.config = hydra_context, config
        # The sweeper composes every row once to see whether it can, minutes for a thousand. `launch` does so itself,
        # faster, before it submits anything.
        Sweeper.validate_batch_is_legal = lambda *_: None  # type: ignore[method-assign]

    def launch(self, job_overrides: Sequence[Sequence[str]], *_others: Any, **_named: Any) -> Sequence[JobReturn]:
        """Plan and submit all rows at once.

        Raises:
            CompactHydraException: a sentence that says what cannot work, and the way out.
        """
        # here, because Hydra scans this file at every start
        from slurm.rows import as_sentences, compose_rows
        from slurm.submit import launch

        with as_sentences():
            rows = compose_rows(self.hydra_context.config_loader, self.config, job_overrides)
            launch(rows, job_overrides, Path(str(self.config.hydra.sweep.dir)))
        return []
