"""curves.jsonl: the mean losses of every few steps of a training, one JSON object per line."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mal.engine import ranks
from mal.engine.files import atomic_write, check_fence


@dataclass
class Curve:
    """Sums of the losses since the last line, on the device until they are needed; part of the checkpoint."""

    path: Path
    every: int  # steps averaged into one line
    line: Callable[[int, dict[str, float]], dict[str, float]]  # step, mean losses → what a line says beside the step
    shown: Collection[str]  # the entries of a line that the progress shows
    means: dict[str, float] = field(default_factory=dict)  # of the last line
    _names: list[str] = field(default_factory=list)
    _sums: Tensor | None = None  # one a loss
    _count: int = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """
        Args:
            losses: name → scalar, the same names in every step; a `loss_` in front of a name is not written.
        """
        self._names = list(losses)
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self._sums = values if self._sums is None else self._sums.to(values.device) + values  # it was read to the CPU
        self._count += 1

    def write(self, step: int) -> dict[str, float]:
        """Append the mean losses since the last line, over all processes, and start anew. Returns what to show."""
        assert self._sums is not None, "a step has added no losses"
        values = (ranks.mean(self._sums) / self._count).tolist()
        self.means = {name.removeprefix("loss_"): value for name, value in zip(self._names, values, strict=True)}
        line = {"step": step, **self.line(step, self.means)}
        if ranks.is_first():
            check_fence(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._sums, self._count = None, 0
        return {name: line[name] for name in self.shown}

    def truncate(self, step: int) -> None:
        """Drop lines after `step`: a run killed later than its checkpoint will write them again."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            with atomic_write(self.path) as file:
                file.writelines(f"{line}\n" for line in lines if (at := _step(line)) is not None and at <= step)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Segmenters once kept their sums by name, in the order of the losses."""
        sums = state["sums"]
        if isinstance(sums, dict):
            sums = torch.stack(list(sums.values())) if sums else None
        self._sums, self._count = sums, state["count"]


def _step(line: str) -> int | None:
    """The step of a line of curves.jsonl; None for one that a kill cut short."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None
