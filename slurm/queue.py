"""What SLURM says of jobs, and what is said to it, through its own commands."""

import getpass
import re
import subprocess
import sys
import time
from dataclasses import dataclass

from mal.errors import MalError

BUSY = ("Unable to contact slurm controller", "Socket timed out", "Connection refused", "Zero Bytes were transmitted")
PAUSES = (5, 15, 30, 60)  # seconds between attempts


class BusyError(MalError):
    """SLURM's controller is away or overloaded: the same question may be answered a little later."""


@dataclass(frozen=True)
class Queued:
    """A job in the queue."""

    state: str  # PENDING, RUNNING, COMPLETING, …
    reason: str  # why it waits, or the node it runs on
    seconds: str  # that it has run


def queue() -> dict[str, Queued]:
    """This user's jobs, by id; each task of an array is a job `123_4`.

    Raises:
        MalError: SLURM does not answer.
    """
    text = _ask("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%T|%R|%M")
    found = {}
    for line in text.splitlines():
        job, state, reason, spent = line.split("|", 3)
        found[job.strip()] = Queued(state, reason.strip("()"), spent)
    return found


def cancel(jobs: list[str]) -> None:
    """Take jobs from the queue; those that have left it do not matter."""
    for start in range(0, len(jobs), 200):
        _ask("scancel", "--quiet", *jobs[start : start + 200])


def requeue(job: str) -> None:
    """End a running job and put it back into the queue."""
    _ask("scontrol", "requeue", job)


def shorten(job: str, minutes: int) -> None:
    """Lower a running job's time limit, counted from its start."""
    _ask("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def is_running(job: str) -> bool:
    """Whether the job is running for SLURM, and not being cancelled or preempted by it."""
    return re.search(r"JobState=RUNNING\b", _ask("scontrol", "show", "job", job)) is not None


def _ask(*command: str) -> str:
    """What a command prints; a controller that is away or busy is asked again for a few minutes."""
    for pause in PAUSES:
        try:
            return _ask_once(*command)
        except BusyError as error:
            print(f"{error}; asking again in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)
    return _ask_once(*command)


def _ask_once(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except FileNotFoundError:
        raise MalError(f"there is no {command[0]} here; run this on a login node of a SLURM cluster") from None
    except subprocess.TimeoutExpired:
        raise BusyError(f"SLURM's {command[0]} did not answer in 120 s; try again later") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        kind = BusyError if any(sign in line for line in said for sign in BUSY) else MalError
        raise kind(f"SLURM's {command[0]} failed: {said[-1] if said else error.returncode}") from error
