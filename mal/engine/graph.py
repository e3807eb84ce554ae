"""A stage: a pure function of its config and inputs, computed once and kept under a key made of both."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mal.engine import ranks
from mal.engine.files import write_json
from mal.engine.runtime import code_state, peak_memory_gib, provenance, reset_peak_memory
from mal.engine.store import BEGUN, Store, stage_key

Metrics = dict[str, float]


@dataclass(frozen=True)
class Workdir:
    """Where a stage works."""

    folder: Path  # its own; what a killed run left is still there
    inputs: dict[str, Path]  # name → folder of each finished input
    device: torch.device


@dataclass(frozen=True)
class Result:
    """What a stage reports besides its files: metrics, and over how many things each was measured."""

    metrics: Metrics = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # metric → n; "" for all that are not named
    places: dict[str, str] = field(default_factory=dict)  # where the files of `sources` lay, for figures to look there


@dataclass(frozen=True)
class Stage:
    """One node of a run's graph.

    Attributes:
        name: `train_labeler`, `quality_val`, …; the folder in the store.
        version: raised with every change of what the stage computes.
        config: the settings it reads, and no others.
        work: computes it.
        inputs: the stages it starts from.
        sources: name → digest of what it reads from outside the store.
        columns: what a table says of its metrics (labeler, encoder, …).
        shared: whether several processes do the work together; else the first does it while the others wait.
    """

    name: str
    version: int
    config: dict[str, Any]
    work: Callable[[Workdir], Result]
    inputs: dict[str, "Stage"] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    shared: bool = False

    @cached_property
    def key(self) -> str:
        """16 hex digits that change with anything that defines the result."""
        return stage_key(
            stage=self.name,
            version=self.version,
            config=self.config,
            inputs=self.input_addresses,
            sources=self.sources,
        )

    @property
    def address(self) -> str:
        """stage/key, the folder below the store's root."""
        return f"{self.name}/{self.key}"

    @property
    def input_addresses(self) -> dict[str, str]:
        """Name → address of each input, as a record has them."""
        return {name: other.address for name, other in self.inputs.items()}

    def __hash__(self) -> int:
        return hash(self.address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.address == other.address


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Every stage once, inputs before what needs them."""
    found: dict[Stage, None] = {}

    def visit(stage: Stage) -> Iterator[Stage]:
        for other in stage.inputs.values():
            yield from visit(other)
        yield stage

    for stage in stages:
        found.update(dict.fromkeys(visit(stage)))
    return list(found)


def execute(stage: Stage, store: Store, *, device: torch.device) -> bool:
    """Make sure that a stage is done; its inputs must be.

    Returns:
        True if it was computed now, False if it was done already or somebody else did it meanwhile.
    """
    with ExitStack() as claim:  # of several processes the first owns the stage
        if not ranks.on_first(lambda: claim.enter_context(store.claim(stage.name, stage.key))):
            return False
        if ranks.size() > 1:  # the others own it with the first, and no longer than it
            generation = ranks.on_first(lambda: store.generation(stage.name, stage.key))
            if not ranks.is_first():
                claim.enter_context(store.fence(stage.name, stage.key, generation))
        folder = store.folder(stage.name, stage.key)
        code = ranks.on_first(code_state)  # what is edited meanwhile is not what works here
        started, clock = datetime.now(UTC), time.monotonic()
        reset_peak_memory(device)
        if ranks.is_first():
            # gc keeps the inputs meanwhile
            begun = {"config": stage.config, "inputs": stage.input_addresses, "sources": stage.sources}
            write_json(folder / BEGUN, begun, indent=1)
        workdir = Workdir(
            folder=folder,
            inputs={name: store.folder(other.name, other.key) for name, other in stage.inputs.items()},
            device=device,
        )
        result = stage.work(workdir) if stage.shared else ranks.on_first(lambda: stage.work(workdir))
        if ranks.is_first():  # the record reads package versions
            seconds = time.monotonic() - clock
            record = _record(stage, result, code=code, started=started, seconds=seconds, device=device)
        ranks.on_first(lambda: store.finish(stage.name, stage.key, record))
    return True


def _record(
    stage: Stage,
    result: Result,
    *,
    code: tuple[str | None, str | None],
    started: datetime,
    seconds: float,
    device: torch.device,
) -> dict[str, Any]:
    everything = result.counts.get("")
    return {
        "stage": stage.name,
        "key": stage.key,
        "version": stage.version,
        "status": "done",
        "columns": stage.columns,
        "config": stage.config,
        "inputs": stage.input_addresses,
        "sources": stage.sources,
        "metrics": {
            name: {"value": value, "n": result.counts.get(name, everything)} for name, value in result.metrics.items()
        },
        "places": result.places,
        "provenance": provenance(code),
        "processes": ranks.size(),
        "seconds": seconds,
        "memory": peak_memory_gib(device),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
