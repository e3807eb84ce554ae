"""From the rows of a sweep to the jobs it needs: their stage graphs united, what is done dropped, each stage once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from statistics import median

import torch

from mal.config import Config
from mal.engine.graph import Stage, in_order
from mal.engine.history import History
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from mal.run_notes import notes_of
from slurm.cluster import Cluster, Resources
from slurm.trainings import trainings
from slurm.words import clock, spaced, times

BY_LIMIT = "its time limit"  # what a stage's time is estimated from where the store has no run like it
BY_V100 = "times on V100s"  # or this, of trainings (see slurm/trainings.py)
MARGIN = 1.5  # × a forecast is a time limit


@dataclass
class Job:
    """A stage that is to be computed."""

    stage: Stage
    row: int  # the first row that asks for it
    resources: Resources
    after: list[str]  # addresses of the stages it must wait for
    seconds: float  # that it will take
    basis: str  # what that is estimated from

    @property
    def gpu_hours(self) -> float:
        """That it will take."""
        return self.resources.nodes * self.resources.gpus * self.seconds / 3600


@dataclass
class Plan:
    """What a sweep needs."""

    rows: list[Config]
    jobs: dict[str, Job] = field(default_factory=dict)  # by the stage's address, inputs before what needs them
    done: dict[str, None] = field(default_factory=dict)  # addresses of what the store has already
    targets: dict[int, list[str]] = field(default_factory=dict)  # row → all its stages, as its table lists them
    notes: list[str] = field(default_factory=list)
    requeues: int = 0  # that each job may have

    @property
    def most_gpu_hours(self) -> float:
        """What no sweep exceeds: every job runs to its time limit, is requeued as often as it may be, and again. Jobs
        keep to it however often they are started (see `slurm.starts`)."""
        return sum(job.resources.gpu_hours for job in self.jobs.values()) * (1 + self.requeues)


def make_plan(rows: Sequence[Config], cluster: Cluster) -> Plan:
    """Unite the rows' graphs.

    Args:
        rows: checked configs, all with the same store.

    Raises:
        MalError: data or a file is missing.
    """
    stores = {row.store for row in rows}
    if len(stores) > 1:
        raise ConfigError(f"the rows of a sweep share one store, but these name {', '.join(sorted(stores))}")
    store, device = Store(rows[0].store), torch.device(cluster.device)
    plan, past = Plan(list(rows), requeues=cluster.requeues), History(store.root)
    asked: dict[tuple[str, bool], Resources] = {}
    for number, row in enumerate(rows):
        graph = Graph(row, store, device)
        stages = in_order(graph.targets())
        plan.targets[number] = [stage.address for stage in stages]
        graph.check()
        plan.notes += [note for note in [*graph.censuses(), *notes_of(graph)] if note not in plan.notes]
        for stage in stages:
            if stage.address in plan.jobs or stage.address in plan.done:
                continue
            if store.is_done(stage.name, stage.key):
                plan.done[stage.address] = None
                continue
            if (kind(stage), stage.shared) not in asked:
                asked[kind(stage), stage.shared] = resources_of(stage, cluster)
            resources = asked[kind(stage), stage.shared]
            check_shares(stage, row, resources)
            after = [other.address for other in stage.inputs.values() if other.address in plan.jobs]
            ahead = forecast(stage, row, graph, resources=resources, speed=cluster.speed)
            seconds, basis = estimate(past, stage, resources, ahead=ahead)
            if basis == BY_LIMIT:
                resources = with_limit(resources, None)
                seconds = resources.minutes * 60
            else:  # the longer of both: an earlier run that was requeued tells of its last part alone
                resources = with_limit(resources, max(seconds, ahead or 0))
            plan.jobs[stage.address] = Job(stage, number, resources, after, seconds, basis)
    plan.notes += too_short(plan, cluster)
    return plan


def kind(stage: Stage) -> str:
    """What a cluster profile calls a stage: its name, and for labels the labeler's: a box needs no GPU."""
    if not stage.name.startswith("label_"):
        return stage.name
    return f"{stage.name}.{stage.columns['labeler'].partition(':')[0]}"  # mal:coco is MAL that learned from another set


def resources_of(stage: Stage, cluster: Cluster) -> Resources:
    """What a stage's job asks for. One that is not shared gets one process."""
    found = cluster.resources(kind(stage))
    if not stage.shared:
        found.nodes, found.tasks, found.gpus = 1, 1, min(found.gpus, 1)
    return found


def check_shares(stage: Stage, row: Config, resources: Resources) -> None:
    """Refuse a training whose batch its processes cannot share equally.

    Raises:
        ConfigError: names the batch, the processes, and where each is set.
    """
    training = trainings().get(stage.name)
    if training is None:
        return
    batch = attrgetter(training.batch)(row)
    processes = resources.nodes * resources.tasks_per_node
    together = training.together(stage.config)
    if batch % (processes * together):
        images = f", {together} images of which stay together," if together > 1 else ""
        raise ConfigError(
            f"{training.batch}={batch}{images} cannot be shared equally by the {processes} processes that the cluster "
            f"profile gives {stage.name}; change either"
        )


def forecast(stage: Stage, row: Config, graph: Graph, *, resources: Resources, speed: float) -> float | None:
    """Seconds of a training on a stage's GPUs by published times on V100s; None without GPUs, and of anything else."""
    gpus, training = resources.nodes * resources.gpus, trainings().get(stage.name)
    seconds = training.v100_seconds(row, graph.context) if gpus and training is not None else None
    return None if seconds is None else seconds / (gpus * speed)


def with_limit(resources: Resources, ahead: float | None) -> Resources:
    """The same with a time limit of half as much again as a stage takes, in whole half hours, between `minutes` and
    `longest`; where nobody knows, `longest`."""
    if resources.longest is None:
        return resources
    wanted = resources.longest if ahead is None else 30 * math.ceil(MARGIN * ahead / 60 / 30)
    return replace(resources, minutes=min(max(wanted, resources.minutes), resources.longest))


def estimate(history: History, stage: Stage, resources: Resources, *, ahead: float | None = None) -> tuple[float, str]:
    """Seconds, and what they are taken from: earlier runs of the same kind, a forecast, or the time limit."""
    processes = resources.nodes * resources.tasks_per_node
    found = history.seconds(stage, processes=processes, gpu=resources.gpus > 0)
    if found is not None:
        return found[0], f"{found[1]} earlier run{'s' * (found[1] > 1)}"
    return (resources.minutes * 60, BY_LIMIT) if ahead is None else (ahead, BY_V100)


def resumes(stage: Stage) -> bool:
    """Whether a stage goes on from what it has when it is requeued; others begin again."""
    return stage.name in (*trainings(), "pseudo_train", "segment_val") or stage.name.startswith("label_")


def too_short(plan: Plan, cluster: Cluster) -> list[str]:
    """A sentence for each kind of stage that takes longer than its job may run, requeues included where it goes on from
    what it has."""
    found: dict[str, str] = {}
    for job in plan.jobs.values():
        runs = 1 + plan.requeues if resumes(job.stage) else 1
        allowed = runs * (job.resources.minutes * 60 - cluster.notice_seconds)
        if job.basis != BY_LIMIT and job.seconds > allowed:
            spell = f"{times(runs)} {clock(job.resources.minutes * 60)}" if runs > 1 else clock(allowed)
            found.setdefault(
                kind(job.stage),
                f"{kind(job.stage)} takes about {clock(job.seconds)} by {job.basis}, but its job may run for {spell} "
                "alone, so it will fail; in the cluster profile raise its minutes or longest, or "
                + ("requeues, " if runs > 1 else "")
                + "give it more GPUs"
                + (f", or mend speed={cluster.speed:g}" if job.basis == BY_V100 else ""),
            )
    return [*found.values()]


def plan_lines(plan: Plan) -> str:
    """The plan as a table: what, how often, on what, how long, and how many GPU-hours, about and at the most."""
    if not plan.jobs:
        return f"{len(plan.done)} stages, all of them done: nothing to submit"
    groups: dict[tuple[str, str, str], list[Job]] = {}
    for job in plan.jobs.values():
        groups.setdefault((kind(job.stage), _asked(job.resources), job.basis), []).append(job)
    rows = [("stage", "jobs", "each asks for", "each takes", "GPU-hours", "at most", "estimated from")]
    for (name, asked, basis), jobs in groups.items():
        hours = sum(job.gpu_hours for job in jobs)
        most = sum(job.resources.gpu_hours for job in jobs) * (1 + plan.requeues)
        took = clock(median(j.seconds for j in jobs))
        rows.append((name, str(len(jobs)), asked, took, f"{hours:.1f}", f"{most:.1f}", basis))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if 1 <= column <= 5 and column != 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    total = sum(job.gpu_hours for job in plan.jobs.values())
    limited = sum(job.gpu_hours for job in plan.jobs.values() if job.basis == BY_LIMIT)
    lines.append(
        f"{len(plan.rows)} rows: {len(plan.jobs)} stages to do, {len(plan.done)} done already; about "
        f"{spaced(total)} GPU-hours"
        + (f", {spaced(limited)} of them by time limits, for want of earlier runs" if limited else "")
        + f"; at most {spaced(plan.most_gpu_hours)}, if every job runs to its time limit"
        + (f" and is requeued {times(plan.requeues)}" if plan.requeues else "")
    )
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def _asked(resources: Resources) -> str:
    nodes = f"{resources.nodes} × " if resources.nodes > 1 else ""
    gpus = f"{resources.gpus} GPUs, " if resources.gpus > 1 else "1 GPU, " if resources.gpus else ""
    cpus = resources.cpus * resources.tasks_per_node
    memory = f", {resources.memory_gb:g} GB" if resources.memory_gb else ""
    return f"{nodes}{gpus}{cpus} CPU{'s' * (cpus > 1)}{memory}, ≤ {clock(resources.minutes * 60)}"
