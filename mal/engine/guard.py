"""Whether losses and weights are numbers, asked without stopping a GPU in every step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from mal.engine import ranks
from mal.errors import TrainingError

AT_ONCE = ("cpu",)  # devices whose results can be read without waiting for what was launched after them


@dataclass
class Guard:
    """Finds the batch whose loss is no number, though the host looks only now and then, and bad weights.

    A method says what is wrong in its own words, and may write the batch down:
    `bad_loss` gets the step (from 0), its losses and what was told about its batch, in one process;
    `bad_weights` the number of steps done and the names of the parameters.
    """

    model: nn.Module
    bad_loss: Callable[[int, dict[str, float], Any], TrainingError]
    bad_weights: Callable[[int, list[str]], TrainingError]
    unseen: list[tuple[int, dict[str, Tensor], Any]] = field(default_factory=list)

    def add(self, step: int, losses: Mapping[str, Tensor], about: Any) -> None:
        """Remember a step; on a device of `AT_ONCE` look at it too.

        Args:
            losses: name → scalar, the same names in every step.
            about: what `bad_loss` needs to know of the batch. It is kept until the next look.

        Raises:
            TrainingError: see `look`.
        """
        taken = {name: loss.detach() for name, loss in losses.items()}
        self.unseen.append((step, taken, about))
        if next(iter(taken.values())).device.type in AT_ONCE and (bad := self._first_bad()) is not None:
            raise self.bad_loss(*bad)

    def look(self) -> None:
        """Wait for the losses of all steps since the last look; of several processes all must look at the same steps.

        Raises:
            TrainingError: one is not a number; tells of the first step, the same one in every process.
        """
        if not self.unseen:
            return
        bad = self._first_bad()
        found = ranks.gather(None if bad is None else bad[0])
        first = min(((step, rank) for rank, step in enumerate(found) if step is not None), default=None)
        if first is not None:
            told = ranks.gather(str(self.bad_loss(*bad)) if bad and first[1] == ranks.rank() else None)
            raise TrainingError(next(filter(None, told)))

    def check_weights(self, step: int) -> None:
        """Losses cannot tell what the last update did, so nothing is saved unseen. The device is waited for once.

        Raises:
            TrainingError: parameters hold infinities or NaN.
        """
        names = [name for name, _ in self.model.named_parameters()]
        finite = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).tolist()
        if bad := [name for name, fine in zip(names, finite, strict=True) if not fine]:
            raise self.bad_weights(step, bad)

    def _first_bad(self) -> tuple[int, dict[str, float], Any] | None:
        """The first step with a loss that is no number; all are forgotten."""
        unseen, self.unseen = self.unseen, []
        values = torch.stack([torch.stack(list(losses.values())).float() for _, losses, _ in unseen]).cpu()
        bad = (~values.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        if not bad:
            return None
        step, losses, about = unseen[bad[0]]
        return step, dict(zip(losses, values[bad[0]].tolist(), strict=True)), about


def bad_image_loss(way_out: str, step: int, losses: dict[str, float], image_ids: list[int]) -> TrainingError:
    """A `bad_loss` that names the losses that are no numbers, and the images.

    Args:
        way_out: what to do about it, without a full stop.
    """
    wrong = ", ".join(f"{name} = {value}" for name, value in losses.items() if not isfinite(value))
    return TrainingError(f"the loss of step {step} is not a finite number ({wrong}; image ids {image_ids}). {way_out}")


def bad_weights_left(way_out: str, step: int, names: list[str], *, unit: str = "step") -> TrainingError:
    """A `bad_weights` that names one of them.

    Args:
        way_out: likewise. unit: what a step is called.
    """
    return TrainingError(
        f"{unit} {step} left weights that are not finite numbers ({names[0]} and {len(names) - 1} more), though its "
        f"losses are; they were not saved. {way_out}"
    )
