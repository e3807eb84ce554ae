"""The training curve of a segmenter: curves.jsonl."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mal.engine import ranks
from mal.engine.files import atomic_write, check_fence


@dataclass
class Curve:
    """Sums of the losses since the last line of curves.jsonl, on the device until they are needed."""

    path: Path
    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss.detach().float()
        self.count += 1

    def write(self, step: int, *, lr: float) -> dict[str, float]:
        """Append the mean losses since the last line, over all processes, and start anew."""
        values = (ranks.mean(torch.stack(list(self.sums.values()))) / self.count).tolist()
        means = {name.removeprefix("loss_"): value for name, value in zip(self.sums, values, strict=True)}
        line = {"step": step, "loss": sum(means.values()), **means, "lr": lr}
        if ranks.is_first():
            check_fence(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.sums, self.count = {}, 0
        return {"loss": line["loss"]}

    def truncate(self, step: int) -> None:
        """Drop lines after `step`: a run killed later than its checkpoint will write them again."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            with atomic_write(self.path) as file:
                file.writelines(f"{line}\n" for line in lines if (at := _step(line)) is not None and at <= step)


def _step(line: str) -> int | None:
    """The step of a line of curves.jsonl; None for one that a kill cut short."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None
