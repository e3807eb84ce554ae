"""Progress of long work: a bar on a terminal, one line per minute elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from mal.engine import ranks

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts work done towards a total and shows it with an ETA.

    On a terminal it is a tqdm bar. Anywhere else (a log file, CI, SLURM) it prints a line at the start, one a
    minute, and one at the end, so a log stays readable. Of several processes only the first shows it.

        with Progress("train labeler", total=1000, done=200) as progress:
            progress.advance(1, loss=0.3)
    """

    def __init__(self, name: str, *, total: int, done: int = 0, unit: str = "step", file: TextIO | None = None) -> None:
        self.name, self.total, self.done, self.unit = name, total, done, unit
        self._file = file or sys.stderr
        self._first, self._started, self._last_line = done, time.monotonic(), -SECONDS_BETWEEN_LINES
        self._values: dict[str, float] = {}
        self._bar: tqdm | None = None
        self._shown = ranks.is_first()
        if self._file.isatty() and self._shown:
            self._bar = tqdm(
                total=total, initial=done, desc=name, unit=unit, file=self._file, dynamic_ncols=True, leave=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown and error is None and self.done > self._first:
            self._print_line(last=True)

    def advance(self, count: int = 1, /, **values: float) -> None:
        """Count `count` more units done and remember the latest `values` (running losses and the like)."""
        self.done += count
        self._values.update(values)
        if self._bar is not None:
            self._bar.set_postfix(_format(self._values), refresh=False)
            self._bar.update(count)
        elif self._shown and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self, *, last: bool = False) -> None:
        now = time.monotonic()
        self._last_line = now
        spent, made = now - self._started, self.done - self._first
        clock = (
            f"took {_clock(spent)}"
            if last
            else f"{_clock(spent)}, ETA {_clock(spent / made * (self.total - self.done))}"
        )
        values = "".join(f"  {key} {value}" for key, value in _format(self._values).items())
        print(f"{self.name}: {self.done}/{self.total} {self.unit}s, {clock}{values}", file=self._file, flush=True)


def _format(values: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:.3g}" for key, value in values.items()}


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
