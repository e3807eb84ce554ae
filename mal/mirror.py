"""The mirror process beside a command: started, asked to finish, and never waited for longer than promised.

What it does is in mal/tracking.py; a command that only starts it imports no mlflow, which takes seconds.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from mal import claims
from mal.errors import MalError

DEFAULT_STORE = "results/runs"
DEFAULT_URI = "sqlite:///results/mlflow.db"
DEFAULT_EXPERIMENT = "mal"
SECONDS_BETWEEN_PASSES = 30.0


class Mirror:
    """The process that keeps MLflow up to date while a command runs; the command ends it with `stop`."""

    def __init__(self, process: "subprocess.Popen[bytes] | None", output: IO[bytes] | None, *, hint: str) -> None:
        self.process, self._output, self._hint = process, output, hint

    def stop(self, wait_s: float = 20.0) -> bool:
        """Let the mirror send the rest, for at most `wait_s` seconds; True if all was sent.

        Never raises: otherwise it prints one line that says why and which command sends what is missing.
        """
        if self.process is None:
            return True
        process, self.process = self.process, None
        reason = ""
        try:
            with contextlib.suppress(OSError):  # it has left already
                process.communicate(b"stop\n", timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            reason = f"it took longer than {wait_s:g} s"
        if self._output is not None:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
            self._output.close()
            reason = reason or (
                lines[-1].removeprefix("error: ") if lines else f"the mirror ended with code {process.returncode}"
            )
        if process.returncode == 0:
            return True
        print(f"tracking: not everything is in MLflow yet ({reason}). {self._hint}", file=sys.stderr, flush=True)
        return False


def start_mirror(
    store_root: str | Path, *, enabled: bool = True, uri: str = DEFAULT_URI, experiment: str = DEFAULT_EXPERIMENT
) -> Mirror:
    """Start mirroring a store to the tracking server at `uri`; returns at once, and never raises.

    The mirror ends by `Mirror.stop`, or by itself once this process is gone, however it went.
    """
    hint = f"Nothing is lost; send it with: {sync_command(store_root, uri=uri, experiment=experiment)}"
    if not enabled:
        return Mirror(None, None, hint=hint)
    command = [sys.executable, "-W", "ignore", "-m", "mal.tracking", "sync", "--watch", str(os.getpid())]
    command += ["--store", str(store_root), "--experiment", experiment]
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - the mirror closes it; a pipe nobody reads would fill up
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},  # not an argument: it may hold a password
            start_new_session=True,  # Ctrl-C is for the command; the mirror then sends what there is
        )
    except OSError as error:
        print(f"tracking: the mirror did not start ({error}). {hint}", file=sys.stderr, flush=True)
        return Mirror(None, None, hint=hint)
    return Mirror(process, output, hint=hint)


def sync_command(store_root: str | Path, *, uri: str, experiment: str) -> str:
    """The command that sends what is missing, without what it would assume anyway."""
    parts = ["python -m mal.tracking sync"]
    if Path(store_root) != Path(DEFAULT_STORE):
        parts.append(f"--store {store_root}")
    if uri != DEFAULT_URI:
        parts.append(f"--uri {shown(uri)}")
    if experiment != DEFAULT_EXPERIMENT:
        parts.append(f"--experiment {experiment}")
    return " ".join(parts)


def ui_command(uri: str = DEFAULT_URI) -> str:
    """How to look at what was sent."""
    if urlsplit(uri).scheme in ("http", "https"):
        return f"open {shown(uri)} in a browser"
    folder = Path(sys.executable).parent
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return f"{folder / 'mlflow'} ui --backend-store-uri {shown(uri)}"


def shown(uri: str) -> str:
    """A tracking address without the password it may hold."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]))


def watch(send: Callable[[bool], object], *, pid: int) -> None:
    """In the mirror's process: call `send(False)` every half minute until the process `pid` is gone, or says so.

    A line on standard input, or SIGTERM, says so. Then `send(True)` for the last time.

    Raises:
        MalError: what the last `send` raised.
    """
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    os.nice(10)  # the command's own work comes first
    started, listening = claims.start_time(pid), True

    def is_over() -> bool:
        nonlocal listening
        if listening and select.select([sys.stdin], [], [], 0.2)[0]:
            listening = False
            if sys.stdin.readline():  # an end of file is no order: the pid tells whether it was the process's end
                asked.append(1)
        elif not listening:
            time.sleep(0.2)
        return bool(asked) or not claims.is_alive(pid, started=started)

    over = False
    while not over:
        with contextlib.suppress(MalError):  # tried again, and told at the end
            send(False)
        until = time.monotonic() + SECONDS_BETWEEN_PASSES
        while time.monotonic() < until and not over:
            over = is_over()
    send(True)
