"""From a plan to jobs in SLURM's queue, through submitit: each stage once, after what it starts from."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
import torch

from mal.config import Config
from mal.engine.files import digest, explain, read_json, write_json
from mal.engine.runtime import CODE, CODE_RECORD, ROOT, provenance, uncommitted
from mal.engine.store import QUEUED, Store
from mal.errors import ConfigError, MalError
from mal.run import check_all, preflight
from slurm import queue
from slurm.cluster import Cluster, read_cluster
from slurm.job import StageJob
from slurm.plan import Job, Plan, make_plan, plan_lines
from slurm.sweep import SWEEPS, Entry, Sweep, write_row
from slurm.watch import follow

PATCH = "code.patch"  # in a sweep's folder: what was not committed when it was submitted
# Until Python has its handlers, which takes seconds, the notice of preemption would kill the job: it fails for good.
DEAF = """bash -c 'trap "" USR2; exec "$0" "$@"'"""
BUILT_FROM = ("encoder", "decoder", "labeler", "segmenter", "clustering", "attention")  # what `preflight` looks at


def launch(rows: Sequence[Config], overrides: Sequence[Sequence[str]], folder: Path) -> None:
    """Plan the rows, print the plan, and submit what is not done yet.

    Args:
        rows: one resolved config a row.
        overrides: what tells each from the others.
        folder: of the sweep.

    Raises:
        MalError: a row cannot work, SLURM refuses a job, or (launcher.wait=true) a stage failed.
    """
    options = {(row.launcher.cluster, row.launcher.wait, row.launcher.snapshot, row.dry_run) for row in rows}
    if len(options) > 1:
        raise ConfigError("launcher and dry_run are the same for a whole sweep; do not sweep over them")
    for row in rows:
        check_all(row)
    first = rows[0]
    cluster = read_cluster(first.launcher.cluster)
    plan = make_plan(rows, cluster)
    print(plan_lines(plan), flush=True)
    if first.dry_run or not plan.jobs:
        return
    check_networks(plan)
    sweep = write_sweep(plan, first, cluster, overrides=overrides, folder=own_folder(folder.resolve()))
    parent = open_parent(first, sweep)
    submit(plan, sweep, cluster, snapshot=first.launcher.snapshot, parent=parent)
    ids = [entry.job for entry in sweep.entries.values() if not entry.borrowed]
    borrowed = len(sweep.entries) - len(ids)
    name = sweep.folder.name if sweep.folder.parent == SWEEPS.resolve() else sweep.folder
    print(
        f"submitted {len(ids)} jobs ({_range(ids) or 'none'})"
        + (f"; {borrowed} stages are in the queue for another sweep already" if borrowed else "")
        + f"\nfollow them:     python -m slurm.status {name}"
        + f"\ntake them back:  python -m slurm.cancel {name}",
        flush=True,
    )
    if first.launcher.wait:
        follow(sweep, first)


def check_networks(plan: Plan) -> None:
    """Build every network once, here, with its weights: the compute nodes may be without a network.

    Raises:
        ConfigError, WeightsError.
    """
    seen = set()
    for number, row in enumerate(plan.rows):
        parts = digest({name: _plain(getattr(row, name)) for name in BUILT_FROM} | {"size": row.roi.size})
        stages = [plan.jobs[a].stage for a in plan.targets[number] if a in plan.jobs]
        if stages and parts not in seen:
            seen.add(parts)
            preflight(row, stages, torch.device("cpu"))


def own_folder(wanted: Path) -> Path:
    """The folder itself, or with a number after its name where another sweep has it: two may start in one second, and
    jobs of an earlier one read it as long as they wait.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            (folder / "rows").mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise explain(error, folder) from error
    return folder


def write_sweep(
    plan: Plan, row: Config, cluster: Cluster, *, overrides: Sequence[Sequence[str]], folder: Path
) -> Sweep:
    """The sweep's folder, before anything is submitted: a job may start at once."""
    state = provenance()
    sweep = Sweep(
        folder=folder,
        store=row.store,
        cluster=row.launcher.cluster,
        device=cluster.device,
        requeues=cluster.requeues,
        notice_seconds=cluster.notice_seconds,
        overrides=[list(changes) for changes in overrides],
        code={"commit": state["commit"], "diff": state["diff"], "folder": str(ROOT)},
        targets={str(number): addresses for number, addresses in plan.targets.items()},
    )
    for job in plan.jobs.values():
        stage = job.stage
        asked = job.resources
        sweep.entries[stage.address] = Entry(
            stage.name, stage.key, job.row, "", job.after, stage.columns, gpus=asked.gpus, minutes=asked.minutes
        )
    for number in sorted({entry.row for entry in sweep.entries.values()}):
        write_row(sweep.row_file(number), plan.rows[number])
    if state["diff"] and not (ROOT / CODE_RECORD).is_file():
        (folder / PATCH).write_bytes(uncommitted())  # with the commit, all that the results came from
    sweep.save()
    return sweep


def submit(plan: Plan, sweep: Sweep, cluster: Cluster, *, snapshot: bool, parent: str | None) -> None:
    """Put every stage into the queue, in waves; stages of a wave that ask for the same and wait for the same become
    one array. A stage that another sweep has in the queue is waited for, not submitted again.

    Raises:
        MalError: SLURM refuses a job, or the store cannot be written; the jobs submitted before it are taken back.
    """
    setup = [*cluster.setup, *(copy_code(sweep) if snapshot else [])]
    waiting, store = queue.queue(), Store(sweep.store)
    try:
        for wave in waves(plan):
            groups: dict[tuple[str, str, tuple[str, ...]], list[Job]] = defaultdict(list)
            for job in wave:
                entry = sweep.entries[job.stage.address]
                if other := _queued_elsewhere(store, entry, waiting):
                    entry.job, entry.borrowed = other, True
                    continue
                after = tuple(sorted({sweep.entries[address].job for address in job.after}))
                groups[job.stage.name, repr(job.resources), after].append(job)
            for (name, _, after), same in groups.items():
                try:
                    ids = _submit_alike(same, sweep, cluster, setup=setup, after=after)
                except Exception as error:  # submitit raises what sbatch says as several kinds
                    raise MalError(
                        f"SLURM refused the job of {name}: {_said(error)}. The jobs submitted before it were "
                        f"taken back. Check its resources in the cluster profile {sweep.cluster}"
                    ) from error
                for job, number in zip(same, ids, strict=True):
                    sweep.entries[job.stage.address].job = number
                for job, number in zip(same, ids, strict=True):
                    inputs = job.stage.input_addresses  # gc keeps them
                    note = {"job": number, "sweep": str(sweep.folder), "parent": parent, "inputs": inputs}
                    write_json(store.folder(job.stage.name, job.stage.key) / QUEUED, note)
                sweep.save()
    except BaseException:  # Ctrl-C or a full disk, too, leaves no job that no sweep knows of
        queue.cancel([entry.job for entry in sweep.entries.values() if entry.job and not entry.borrowed])
        raise
    sweep.save()


def waves(plan: Plan) -> list[list[Job]]:
    """The jobs by how many others they must wait for in a row."""
    depth: dict[str, int] = {}
    found: dict[int, list[Job]] = defaultdict(list)
    for address, job in plan.jobs.items():
        depth[address] = 1 + max((depth[other] for other in job.after), default=0)
        found[depth[address]].append(job)
    return [found[number] for number in sorted(found)]


def copy_code(sweep: Sweep) -> list[str]:
    """Copy the code into the sweep's folder; the shell lines that make a job run from there."""
    code = sweep.folder / "code"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise MalError(f"launcher.snapshot=true copies what git knows, but {ROOT} is no git checkout; leave it out")
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file() and Path(name).parts[0] in CODE:
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, code / name)
    write_json(code / CODE_RECORD, sweep.code)
    sweep.code["folder"] = str(code)
    return [f"export PYTHONPATH={shlex.quote(str(code))}:$PYTHONPATH PYTHONSAFEPATH=1"]


def open_parent(row: Config, sweep: Sweep) -> str | None:
    """Make MLflow's database and experiment now, once, and a run that stands for the sweep; its stages become children.

    A tracking server that is away delays nothing: the stages are sent later, without a parent.
    """
    if not row.tracking.enabled:
        return None
    from mal.engine.tracking import Sender  # takes seconds

    try:
        sender = Sender(Store(sweep.store), uri=row.tracking.uri, experiment=row.tracking.experiment)
        return sender.open_sweep(sweep.folder.name, {"overrides": json.dumps(sweep.overrides), **sweep.code})
    except MalError as error:
        print(f"tracking: {error}. The sweep goes on without; send its stages later", file=sys.stderr, flush=True)
        return None


def _submit_alike(
    jobs: list[Job], sweep: Sweep, cluster: Cluster, *, setup: list[str], after: tuple[str, ...]
) -> list[str]:
    """Submit jobs of equal resources and dependencies, as an array if they are several; their ids."""
    asked = jobs[0].resources
    executor = submitit.SlurmExecutor(
        folder=sweep.folder / "logs", max_num_timeout=cluster.requeues, python=f"{DEAF} {shlex.quote(sys.executable)}"
    )
    extra: dict[str, Any] = dict(asked.options)
    if after:
        extra |= {"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    parameters: dict[str, Any] = {
        "job_name": jobs[0].stage.name,
        "time": asked.minutes,
        "nodes": asked.nodes,
        "ntasks_per_node": asked.tasks_per_node,
        "cpus_per_task": asked.cpus,
        "gpus_per_node": asked.gpus or None,
        "mem": f"{round(asked.memory_gb * 1024)}M" if asked.memory_gb else None,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "signal_delay_s": cluster.notice_seconds,
        "array_parallelism": cluster.parallel,
        "setup": ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", *setup],
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True, **extra},
    }
    executor.parameters.update({name: value for name, value in parameters.items() if value is not None})
    calls = [StageJob(str(sweep.folder), job.stage.address) for job in jobs]
    if len(calls) == 1:
        return [executor.submit(calls[0]).job_id]
    with executor.batch():
        found = [executor.submit(call) for call in calls]
    return [job.job_id for job in found]


def _queued_elsewhere(store: Store, entry: Entry, waiting: dict[str, queue.Queued]) -> str | None:
    """The job of another sweep that will compute the stage, if it is still in the queue."""
    try:
        note = read_json(store.folder(entry.stage, entry.key) / QUEUED)
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict) or not isinstance(note.get("job"), str):
        return None
    state = waiting.get(note["job"])
    return (
        note["job"] if state is not None and state.state in ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED") else None
    )


def _plain(part: Any) -> Any:
    return json.loads(json.dumps(part, default=vars))


def _range(ids: list[str]) -> str:
    numbers = sorted({int(job.split("_")[0]) for job in ids})
    return "" if not numbers else str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} … {numbers[-1]}"


def _said(error: Exception) -> str:
    text = getattr(error, "stderr", None) or getattr(error, "output", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return text.strip().splitlines()[-1].removeprefix("sbatch: ").rstrip(".") if text.strip() else type(error).__name__
