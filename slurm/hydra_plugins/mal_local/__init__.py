"""Sweeps on this machine: Hydra's basic launcher, which first says what it will do and how long that takes."""

import os
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn


class LocalLauncher(BasicLauncher):
    """Runs the rows one after the other, as `hydra/launcher=basic` does."""

    def launch(self, job_overrides: Sequence[Sequence[str]], *numbers: Any, **named: Any) -> Sequence[JobReturn]:
        """Say what is ahead, then run every row.

        Raises:
            CompactHydraException: a sentence that says what cannot work, and the way out; before any row runs.
        """
        from mal.run import say, sweep_ahead  # here, because Hydra scans this file at every start
        from slurm.rows import as_sentences, compose_rows

        assert self.hydra_context is not None
        assert self.config is not None
        with as_sentences():
            ahead = sweep_ahead(compose_rows(self.hydra_context.config_loader, self.config, job_overrides))
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, which have not met yet
            say(ahead)
        return super().launch(job_overrides, *numbers, **named)
