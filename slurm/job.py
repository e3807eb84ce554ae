"""What a SLURM job runs: one stage of one row, in as many processes as it was given."""

import os
import sys
import time
from contextlib import nullcontext
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
from slurm.starts import Starts
from slurm.sweep import Sweep, read_row, read_sweep
from slurm.words import clock


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
        starts = Starts(sweep.starts_folder(self.address), f"{job.job_id}-{_restarts()}")
        first = job.global_rank == 0
        try:
            device = pick_device(sweep.device if entry.gpus else "cpu")
            with ranks.joined(device), starts.noted() if first else nullcontext():
                if not ranks.on_first(lambda: self._is_done(sweep)):
                    ranks.on_first(lambda: self._keep_promise(sweep, starts, job.job_id))
                    self._compute(sweep, device)
        except Stopped as stop:
            if first:
                self._go_back(sweep, starts, job.job_id, str(stop))
            time.sleep(60)  # SLURM ends us; an exit of our own would count as one of the job's
            sys.exit(1)
        except Exception as error:
            if first or not sweep.failure_file(self.address).exists():
                self._note_failure(sweep, job, error)
            raise
        return self.address

    def _is_done(self, sweep: Sweep) -> bool:
        """Whether the stage needs no computing: an earlier start of the job, or another command, has done it."""
        entry = sweep.entries[self.address]
        done = Store(sweep.store).is_done(entry.stage, entry.key)
        if done:
            sweep.failure_file(self.address).unlink(missing_ok=True)
        return done

    def _keep_promise(self, sweep: Sweep, starts: Starts, job: str) -> None:
        """See that this start ends before the job has run longer, all starts together, than the plan said at the most:
        SLURM starts a job again after preemption, a node's failure or `scontrol requeue`, each time with a whole limit.

        Raises:
            MalError: too little of that time is left to work in, or SLURM does not shorten the limit.
        """
        limit, before = 60.0 * sweep.entries[self.address].minutes, starts.earlier()
        left = sweep.promised(self.address) - sum(before)
        if not limit or left >= limit:
            return
        if left < self._least(sweep):
            raise MalError(f"{self.address} {self._spent(sweep, before)}")
        try:
            queue.shorten(job, int(left // 60))
        except MalError as error:
            raise MalError(
                f"{self.address} {self._spent(sweep, before)}. Of that, {clock(left)} would be left to it, but its "
                f"time limit could not be shortened: {error}"
            ) from error
        print(f"Of what the plan promised at the most, {clock(left)} are left: the time limit now", file=sys.stderr)

    def _least(self, sweep: Sweep) -> float:
        """Seconds below which a start would get its notice before it has worked; the notice may come a minute early."""
        return sweep.notice_seconds + 120.0

    def _spent(self, sweep: Sweep, seconds: list[float]) -> str:
        """What a message says of the time that is spent, and the way out."""
        limit = clock(60 * sweep.entries[self.address].minutes)
        return (
            f"has run for {clock(sum(seconds))} in {len(seconds)} start{'s' * (len(seconds) > 1)}, and the plan "
            f"promised {clock(sweep.promised(self.address))} at the most (requeues={sweep.requeues} and a limit of "
            f"{limit}). The sweep's command goes on from here, with as much time again; for more, raise requeues in "
            f"the cluster profile {sweep.cluster}"
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

    def _go_back(self, sweep: Sweep, starts: Starts, job: str, reason: str) -> None:
        """Into the queue again, if SLURM is not ending the job itself and enough of the promised time is left."""
        spent = starts.all()
        if not queue.is_running(job):
            print(f"{reason}. SLURM is ending the job itself", file=sys.stderr, flush=True)
        elif sweep.promised(self.address) - sum(spent) < self._least(sweep):
            error = MalError(f"{reason}; it {self._spent(sweep, spent)}")
            self._note_failure(sweep, submitit.JobEnvironment(), error)
            raise error
        else:
            print(f"{reason}. Requeued, for start {len(spent) + 1}", file=sys.stderr, flush=True)
            queue.requeue(job)

    def _note_failure(self, sweep: Sweep, job: Any, error: Exception) -> None:
        said = str(error) if isinstance(error, MalError) else f"{type(error).__name__}: {error}"
        log = Path(sweep.folder) / "logs" / f"{job.job_id}_{job.global_rank}_log.err"
        write_json(sweep.failure_file(self.address), {"error": said, "job": job.job_id, "log": str(log)}, indent=1)


def _restarts() -> int:
    """How often SLURM has started this job again, for whatever reason."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
