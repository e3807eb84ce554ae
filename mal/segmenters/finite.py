"""Whether the losses of a run are numbers, asked without stopping a GPU in every step."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mal.engine import ranks
from mal.engine.files import write_json
from mal.engine.runtime import not_finite_weights
from mal.errors import TrainingError

AT_ONCE = ("cpu",)  # devices whose results can be read without waiting for what was launched after them
WAY_OUT = "Lower segmenter.optimizer.lr, set segmenter.optimizer.clip, or use segmenter.precision=fp32"


@dataclass
class Noted:
    """What a step was made of."""

    step: int
    lr: float
    image_ids: list[int]
    losses: dict[str, Tensor]  # name → scalar, on the device


@dataclass
class Watch:
    """The steps whose losses nobody has looked at yet."""

    steps: list[Noted] = field(default_factory=list)

    def add(self, noted: Noted, *, folder: Path) -> None:
        """Remember a step; on a device of `AT_ONCE` look at it too, before it is learned from.

        Raises:
            TrainingError: see `look`.
        """
        losses = {name: loss.detach() for name, loss in noted.losses.items()}
        self.steps.append(Noted(noted.step, noted.lr, noted.image_ids, losses))
        if next(iter(losses.values())).device.type in AT_ONCE:
            if (found := self._first_bad()) is not None:
                raise not_finite(*found, folder=folder)
            self.steps.clear()

    def look(self, *, folder: Path) -> None:
        """Wait for the losses of all steps since the last look; of several processes all must look at the same steps.

        Raises:
            TrainingError: one is not a number; names the first step, the same one in every process.
        """
        if not self.steps:
            return
        found = [bad for bad in ranks.gather(self._first_bad()) if bad is not None]
        self.steps.clear()
        if found:
            raise not_finite(*min(found, key=lambda bad: bad[0].step), folder=folder)

    def _first_bad(self) -> tuple[Noted, dict[str, str]] | None:
        """The first step with a loss that is no number, and its losses as text. One wait for the device."""
        values = torch.stack([torch.stack(list(noted.losses.values())).float() for noted in self.steps]).cpu()
        bad = (~values.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        if not bad:
            return None
        noted = self.steps[bad[0]]
        texts = {name: str(value) for name, value in zip(noted.losses, values[bad[0]].tolist(), strict=True)}
        return Noted(noted.step, noted.lr, noted.image_ids, {}), texts


def not_finite(noted: Noted, losses: dict[str, str], *, folder: Path, reason: str = "") -> TrainingError:
    """The error, after the images of the batch and each loss were written down beside the checkpoint.

    Args:
        noted: step, learning rate and image ids are used.
        losses: name → value, as far as they are known.
        folder: where not_finite.json goes.
        reason: what was not finite; the losses tell it otherwise.
    """
    record = {"step": noted.step, "lr": noted.lr, "losses": losses, "image_ids": noted.image_ids}
    write_json(folder / "not_finite.json", record, indent=1)
    culprits = [f"{name} = {value}" for name, value in losses.items() if value in ("nan", "inf", "-inf")]
    reason = reason or ", ".join(culprits)
    return TrainingError(
        f"the loss of segmenter step {noted.step} is not a finite number ({reason}; image ids {noted.image_ids}, "
        f"learning rate {noted.lr:.3g}). The batch is noted in {folder / 'not_finite.json'}. {WAY_OUT}"
    )


def check_weights(model: nn.Module, *, step: int) -> None:
    """Refuse to keep weights that are no numbers: a step's losses cannot tell what its own update did.

    Raises:
        TrainingError: names one of them.
    """
    if bad := not_finite_weights(model):
        raise TrainingError(
            f"segmenter step {step} left weights that are not finite numbers ({bad[0]} and {len(bad) - 1} more), "
            f"though its losses are; they were not saved. {WAY_OUT}"
        )
