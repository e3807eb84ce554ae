"""What a SLURM job runs: one stage of one row, in as many processes as it was given."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment

from mal.engine import ranks
from mal.engine.files import write_json
from mal.engine.graph import Stage, execute, in_order
from mal.engine.mirror import start_mirror
from mal.engine.runtime import pick_device
from mal.engine.store import Store
from mal.engine.tracking_address import is_server, tracking_uri
from mal.errors import MalError, Stopped
from mal.request import Graph
from slurm import queue
from slurm.sweep import Sweep, read_row, read_sweep


@dataclass
class StageJob:
    """Pickled by submitit; all it holds are names, the rest is in the sweep's folder."""

    sweep: str
    address: str

    def __call__(self) -> str:
        """Compute the stage; go back into the queue when told to stop.

        Raises:
            MalError: whatever failed; it is noted in the sweep's folder, and SLURM sees a failed job.
        """
        job = submitit.JobEnvironment()
        if job.num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sweep = read_sweep(self.sweep)
        entry = sweep.entries[self.address]
        try:
            self._check_restarts(sweep)
            device = pick_device(sweep.device if entry.gpus else "cpu")
            with ranks.joined(device):
                self._compute(sweep, device)
        except Stopped as stop:
            if job.global_rank == 0:
                self._go_back(sweep, job.job_id, str(stop))
            time.sleep(60)  # SLURM ends us; an exit of our own would count as one of the job's
            sys.exit(1)
        except Exception as error:
            if job.global_rank == 0 or not sweep.failure_file(self.address).exists():
                self._note_failure(sweep, job, error)
            raise
        return self.address

    def _check_restarts(self, sweep: Sweep) -> None:
        """Refuse to start again more often than the profile allows: SLURM itself requeues what it preempts, without a
        limit, and the plan said what the sweep can cost at the most.

        Raises:
            MalError.
        """
        if _restarts() > sweep.requeues:
            raise MalError(
                f"{self.address} was requeued {_restarts()} times, more than the {sweep.requeues} that the profile "
                "allows (requeues); the same sweep again goes on from where it was"
            )

    def checkpoint(self) -> DelayedSubmission:
        """For a notice that comes outside a training loop: what is finished is in the store, so simply start again."""
        return DelayedSubmission(self)

    def _compute(self, sweep: Sweep, device: torch.device) -> None:
        config = read_row(sweep.row_file(sweep.entries[self.address].row))
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        store = Store(config.store)
        graph = Graph(config, store, torch.device(sweep.device))
        stage = self._find(graph)
        if stage.name == "train_segmenter":  # a file may have changed since the sweep was planned
            ranks.on_first(graph.check)
        tracking = config.tracking
        remote = tracking.enabled and is_server(tracking_uri(tracking.uri)) and ranks.is_first()
        mirror = start_mirror(store.root, enabled=remote, uri=tracking.uri, experiment=tracking.experiment)
        try:
            execute(stage, store, device=device)
        finally:
            mirror.stop()
        if ranks.is_first():
            sweep.failure_file(self.address).unlink(missing_ok=True)

    def _find(self, graph: Graph) -> Stage:
        for stage in in_order(graph.targets()):
            if stage.address == self.address:
                return stage
        raise MalError(
            f"the row's config no longer leads to {self.address}: the code or a source file has changed since the "
            "sweep was submitted. Submit it again; launcher.snapshot=true keeps a copy of the code"
        )

    def _go_back(self, sweep: Sweep, job: str, reason: str) -> None:
        """Into the queue again, if SLURM is not ending the job itself and this has not happened too often."""
        restarts = _restarts()
        if not queue.is_running(job):
            print(f"{reason}. SLURM is ending the job itself", file=sys.stderr, flush=True)
        elif restarts >= sweep.requeues:
            error = MalError(f"{reason}; it was requeued {restarts} times already, the most that the profile allows")
            self._note_failure(sweep, submitit.JobEnvironment(), error)
            raise error
        else:
            print(f"{reason}. Requeued for the {restarts + 1}. time", file=sys.stderr, flush=True)
            queue.requeue(job)

    def _note_failure(self, sweep: Sweep, job: Any, error: Exception) -> None:
        said = str(error) if isinstance(error, MalError) else f"{type(error).__name__}: {error}"
        log = Path(sweep.folder) / "logs" / f"{job.job_id}_{job.global_rank}_log.err"
        write_json(sweep.failure_file(self.address), {"error": said, "job": job.job_id, "log": str(log)}, indent=1)


def _restarts() -> int:
    """How often SLURM has started this job again, for whatever reason."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
