"""What a look at files brings up: sentences, and how much each matters."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

STOPS = "stops"  # a run stops here, or has nothing to work on
MISLEADS = "misleads"  # a run ends well, with masks or numbers that are not what they seem
MASKS = "masks"  # stops a run that needs human masks, and no other
NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One sentence and its level: `STOPS`, `MISLEADS`, `MASKS` or `NOTE`."""

    level: str
    text: str


def say(source: object, text: str) -> None:
    """A note on a file, on standard error."""
    print(f"note: {source}: {text}", file=sys.stderr, flush=True)


def some(things: Iterable[object], *, most: int = 3) -> str:
    """The first few things, and an ellipsis where there are more."""
    listed = list(things)
    return ", ".join(map(str, listed[:most])) + (", …" if len(listed) > most else "")


def number(count: int, one: str, many: str | None = None) -> str:
    """`1 box`, `2 boxes`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
