"""The training curve of a segmenter: curves.jsonl."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mal import ranks


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
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.sums, self.count = {}, 0
        return {"loss": line["loss"]}

    def truncate(self, step: int) -> None:
        """Drop lines after `step`: a run killed later than its checkpoint will write them again."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
