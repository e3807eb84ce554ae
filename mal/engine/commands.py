"""How a command ends: with its own exit code, an error as one sentence, or quietly where its reader has gone."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from functools import wraps

from mal.errors import MalError

Arguments = Sequence[str] | None
READER_GONE = 128 + 13  # as a shell says it of a program that SIGPIPE has ended


def command(main: Callable[[Arguments], int | None]) -> Callable[..., int]:
    """A command line's `main`, whose arguments are optional, and which ends with 0 where it returns nothing.

    It ends with 1 and a sentence where it meets an error of ours, and without a word where nobody reads what it prints
    any more, as in `… | head`.
    """

    @wraps(main)
    def run(arguments: Arguments = None) -> int:
        try:
            return while_read(lambda: main(arguments))
        except MalError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run


def while_read(work: Callable[[], int | None]) -> int:
    """Do what prints; its exit code, or that of a program that SIGPIPE has ended, where nobody reads any more."""
    try:
        try:
            return work() or 0
        finally:
            sys.stdout.flush()  # here, not when the interpreter ends and can only complain
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return READER_GONE


def _reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # an error is reported whatever is asked for
    return bool(poll.poll(0))
