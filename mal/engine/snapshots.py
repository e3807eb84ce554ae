"""What a training has learned so far, kept at equal shares of its steps, for those who look at its course."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mal.engine import ranks
from mal.engine.runtime import is_readable
from mal.errors import MalError

FOLDER = "snapshots"


@dataclass(frozen=True)
class Snapshots:
    """
    Args:
        folder: of the training.
        count: how many; 0: none. With fewer steps than that, one per step.
        total: steps of the training.
    """

    folder: Path
    count: int
    total: int

    @property
    def steps(self) -> set[int]:
        """After which one is taken; the last one of all is among them, if any is."""
        return {max(1, round(self.total * part / self.count)) for part in range(1, self.count + 1)}

    def take(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep one; one of the same step that a killed run left is replaced.

        Args:
            write: writes what has been learned so far to a path, as it will be written in the end.
        """
        if ranks.is_first():
            (self.folder / FOLDER).mkdir(exist_ok=True)
            write(self._path(step))

    def are_whole(self) -> bool:
        """Whether all are there, and can be read; asked of all processes."""
        return ranks.on_first(lambda: all(is_readable(self._path(step)) for step in self.steps))

    def _path(self, step: int) -> Path:
        return self.folder / FOLDER / f"{step:09d}.pt"


def kept(folder: Path, count: int) -> list[Path]:
    """Those of a training, in the order of its steps.

    Args:
        count: how many were asked for.

    Raises:
        MalError: some are gone.
    """
    found = sorted((folder / FOLDER).glob("*.pt"))
    fewer = [int(path.stem) for path in found] == [*range(1, len(found) + 1)] and found  # it has fewer steps than that
    if len(found) != count and not fewer:
        raise MalError(
            f"{folder} holds {len(found)} of {count} snapshots; remove that folder, and the same command trains again"
        )
    return found
