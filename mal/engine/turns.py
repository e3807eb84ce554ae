"""One process at a time writes an output; others of the same command wait for it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from mal.engine import claims
from mal.engine.files import read_json, write_json
from mal.errors import ConfigError, MalError

HEARTBEAT, EXPIRY, POLL = 5.0, 120.0, 1.0  # seconds, as those of the run store
MISSES = 100  # times that a folder vanishes while it is claimed, after which it is one that cannot be made
T = TypeVar("T")


@dataclass
class Turn:
    """An output that is ours to write."""

    claim: claims.Claim
    waited: bool  # for another process

    def check(self) -> None:
        """Asked before anything is written, for this process may have been stopped for minutes.

        Raises:
            MalError: another process has taken over.
        """
        if not self.claim.is_ours():
            raise MalError(
                "another process took over while this one gave no sign of life; it writes the output, so run the same "
                "command again to see it"
            )


@contextmanager
def turn(folder: Path, *, call: str, out: Path) -> Iterator[Turn]:
    """Own the writing of an output for the length of a block.

    A process that is at it for the same call is waited for; one that died is taken over from.

    Args:
        folder: exists for this alone, and only as long as somebody writes or waits.
        call: names what will be written.
        out: where, for messages.

    Raises:
        ConfigError: another process is writing something else there.
        MalError: the folder cannot be written.
    """
    ours = Turn(*_wait_or_take(folder, call, out))
    claim = ours.claim
    try:
        with claim.losing(ours.check):
            write_json(_call_file(folder, claim.path), call)
            yield ours
    finally:
        is_ours = claim.is_ours()
        if is_ours:
            for path in folder.glob("call-*.json"):
                path.unlink(missing_ok=True)
        claim.release(done=is_ours)
        with contextlib.suppress(OSError):  # another process is waiting, and has it by now
            folder.rmdir()


def _wait_or_take(folder: Path, call: str, out: Path) -> tuple[claims.Claim, bool]:
    """The claim on a folder, and whether there was an owner to wait for."""
    waited, silent, misses = False, None, 0
    while True:
        holder = _unless_gone(lambda: claims.holder(folder))
        silence = holder and holder.age > EXPIRY and (holder.generation, holder.beat)
        # Heartbeats of a machine that slept look old right after it woke: silence counts when seen twice.
        if holder is None or holder.is_dead() or (silence and silence == silent):
            generation = 1 if holder is None else holder.generation + 1
            take = partial(claims.take, folder, generation=generation, heartbeat=HEARTBEAT)
            claim = _unless_gone(take) if misses < MISSES else take()
            if claim is not None:
                return claim, waited
            misses += 1
            continue
        if _call_of(folder, holder) not in (None, call):
            raise ConfigError(
                f"--out {out} is being written by {holder}, with other inputs or options; name another place, or wait "
                "until it is done"
            )
        if not waited:
            print(f"{out} is being written by {holder}; waiting for it", file=sys.stderr, flush=True)
            waited = True
        time.sleep(max(POLL, HEARTBEAT) if silence else POLL)
        silent = silence


def _unless_gone(look: Callable[[], T | None]) -> T | None:
    """What a look at a folder gives; None where its owner removes it at this moment."""
    try:
        return look()
    except MalError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _call_of(folder: Path, holder: claims.Holder) -> str | None:
    """What the holder is going to write; None where it has not said so yet."""
    try:
        return str(read_json(folder / f"call-{holder.generation}.json"))
    except (OSError, ValueError):
        return None


def _call_file(folder: Path, claim: Path) -> Path:
    return folder / claim.name.replace("claim", "call")
