"""The mirror process beside a command: started, asked to finish, and never waited for longer than promised.

What it does is in mal/engine/tracking.py; a command that only starts it imports no mlflow, which takes seconds.
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

from mal.engine.processes import is_alive, start_time
from mal.engine.tracking_address import (
    DEFAULT_EXPERIMENT,
    DEFAULT_STORE,
    DEFAULT_URI,
    URI_VARIABLE,
    experiment_name,
    shown,
    sync_command,
    tracking_uri,
    ui_command,
    without_password,
)
from mal.errors import MalError

__all__ = [
    "DEFAULT_EXPERIMENT",
    "DEFAULT_STORE",
    "DEFAULT_URI",
    "Mirror",
    "shown",
    "start_mirror",
    "sync_command",
    "ui_command",
    "watch",
]

NOTE = "note: "  # begins a line of the mirror's output that is no error
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
            for line in lines:
                if line.startswith(NOTE):
                    print(f"tracking: {line.removeprefix(NOTE)}", file=sys.stderr, flush=True)
            lines = [line for line in lines if not line.startswith(NOTE)]
            reason = reason or (
                lines[-1].removeprefix("error: ") if lines else f"the mirror ended with code {process.returncode}"
            )
        if process.returncode == 0:
            return True
        print(f"tracking: not everything is in MLflow yet ({reason}). {self._hint}", file=sys.stderr, flush=True)
        return False


def start_mirror(
    store_root: str | Path, *, enabled: bool = True, uri: str | None = None, experiment: str | None = None
) -> Mirror:
    """Start mirroring a store to the tracking server at `uri`; returns at once, and never raises.

    Without `uri` and `experiment` the environment says which, as for MLflow itself.

    The mirror ends by `Mirror.stop`, or by itself once this process is gone, however it went.
    """
    hint = f"Nothing is lost; send it with: {sync_command(store_root, uri=uri, experiment=experiment)}"
    if not enabled:
        return Mirror(None, None, hint=hint)
    command = [sys.executable, "-W", "ignore", "-m", "mal.tracking", "sync", "--watch", str(os.getpid())]
    command += ["--store", str(store_root), "--experiment", experiment_name(experiment)]
    bare, secret = without_password(tracking_uri(uri))
    output = None
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - the mirror closes it; a pipe nobody reads would fill up
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **secret, URI_VARIABLE: bare},  # no arguments: everybody may list those
            start_new_session=True,  # Ctrl-C is for the command; the mirror then sends what there is
        )
    except OSError as error:
        if output is not None:
            output.close()
        print(f"tracking: the mirror did not start ({error}). {hint}", file=sys.stderr, flush=True)
        return Mirror(None, None, hint=hint)
    return Mirror(process, output, hint=hint)


def watch(send: Callable[[bool], object], *, pid: int) -> None:
    """In the mirror's process: call `send(False)` every half minute until the process `pid` is gone, or says so.

    A line on standard input, or SIGTERM, says so. Then `send(True)` for the last time.

    Raises:
        MalError: what the last `send` raised.
    """
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    os.nice(10)  # the command's own work comes first
    started, listening = start_time(pid), True

    def is_over() -> bool:
        nonlocal listening
        if listening and select.select([sys.stdin], [], [], 0.2)[0]:
            listening = False
            if sys.stdin.readline():  # an end of file is no order: the pid tells whether it was the process's end
                asked.append(1)
        elif not listening:
            time.sleep(0.2)
        return bool(asked) or not is_alive(pid, started=started)

    over = False
    while not over:
        with contextlib.suppress(MalError):  # tried again, and told at the end
            send(False)
        until = time.monotonic() + SECONDS_BETWEEN_PASSES
        while time.monotonic() < until and not over:
            over = is_over()
    send(True)
