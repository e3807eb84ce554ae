"""How long the starts of a stage's job have run, one after the other.

A plan promises what its sweep costs at the most: of each job 1 + `requeues` time limits. SLURM starts a job again for
reasons that it does not tell the job (preemption, a node that failed, `scontrol requeue`), so it is not starts that are
counted but the time that they took. Each start writes a file when it begins, and touches it as long as it lives.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mal.engine.files import read_json, write_json

BEAT = 30.0  # seconds between signs of life; a start that was killed may have lived that much longer


@dataclass(frozen=True)
class Starts:
    """A stage's starts in one sweep.

    Attributes:
        folder: of their files. current: this start's name.
    """

    folder: Path
    current: str

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note that this start lives, for the length of a `with` block."""
        begun = float(os.environ.get("SLURM_JOB_START_TIME") or time.time())  # older SLURMs do not say
        write_json(self._file, {"begun": begun})
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                self.touch()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.touch()

    def touch(self) -> None:
        """A sign of life."""
        now = time.time()
        try:
            os.utime(self._file, (now, now))
        except OSError as error:
            print(f"the time of this start cannot be noted: {error}", file=sys.stderr, flush=True)

    def earlier(self) -> list[float]:
        """Seconds that each of the starts before this one has run."""
        return [self._ran(file) + BEAT for file in self.folder.glob("*.json") if file != self._file]

    def all(self) -> list[float]:
        """The same with this one, whose last sign of life is exact."""
        return [*self.earlier(), self._ran(self._file)]

    def _ran(self, file: Path) -> float:
        return max(0.0, file.stat().st_mtime - read_json(file)["begun"])

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.current}.json"
