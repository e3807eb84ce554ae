"""What a training has learned so far, kept at equal shares of its steps, for those who look at its course."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mal.engine import ranks
from mal.errors import MalError

FOLDER = "snapshots"


@dataclass(frozen=True)
class Snapshots:
    """
    Args:
        folder: of the training.
        count: how many; 0: none. Of fewer steps than that, one a step.
        write: writes what is learned at the moment to a path, as it will be written in the end.
    """

    folder: Path
    count: int
    write: Callable[[Path], None]

    def due(self, step: int, total: int) -> bool:
        """Whether one is taken after so many of all steps; the last one is, if any."""
        return any(step == max(1, round(total * part / self.count)) for part in range(1, self.count + 1))

    def take(self, step: int) -> None:
        """Keep one; one of the same step that a killed run left is replaced."""
        if ranks.is_first():
            (self.folder / FOLDER).mkdir(exist_ok=True)
            self.write(self.folder / FOLDER / f"{step:09d}.pt")


def kept(folder: Path) -> list[tuple[int, Path]]:
    """The steps after which a training's were taken, rising, and their files.

    Raises:
        MalError: there are none.
    """
    found = sorted((folder / FOLDER).glob("*.pt"))
    if not found:
        raise MalError(f"{folder} holds no snapshots any more; remove that folder, and the same command trains again")
    return [(int(path.stem), path) for path in found]
