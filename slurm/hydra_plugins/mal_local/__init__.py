"""Sweeps on this machine: Hydra's basic launcher, which also says what is ahead and heeds a request to stop."""

import os
import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus


class LocalLauncher(BasicLauncher):
    """Runs the rows one after the other, as `hydra/launcher=basic` does."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Say what the rows need and how long that takes, then run them.

        A row that fails is named at once, and the others go on; a row that was stopped by a signal is the last.

        Raises:
            CompactHydraException: a sentence that says what cannot work, and the way out; before any row runs.
        """
        from mal.errors import Stopped  # here, because Hydra scans this file at every start
        from mal.run import say, sweep_ahead
        from slurm.rows import as_sentences, compose_rows

        assert self.hydra_context is not None
        assert self.config is not None
        with as_sentences():
            ahead = sweep_ahead(compose_rows(self.hydra_context.config_loader, self.config, job_overrides))
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, which have not met yet
            say(ahead)
        ended: list[JobReturn] = []
        everywhere = set.intersection(*map(set, job_overrides))
        for number, overrides in enumerate(job_overrides, start=1):
            ended += super().launch([overrides], initial_job_idx + number - 1)
            if ended[-1].status is JobStatus.FAILED:
                error = ended[-1]._return_value
                if isinstance(error.__cause__, Stopped):
                    break
                if number < len(job_overrides):
                    own = " ".join(change for change in overrides if change not in everywhere)
                    print(f"row {number} failed ({own}): {error}\nnext row", file=sys.stderr)
        return ended
