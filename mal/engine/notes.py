"""Lines that a user should see once, however often their reason occurs here and in the processes that read ahead."""

import mmap
import sys
import zlib

_PLACES = 1 << 16
_known = mmap.mmap(-1, _PLACES)  # shared with the processes that are forked from this one: those that read images


def say_once(text: str, *, about: str | None = None) -> None:
    """Print a line to stderr, unless this command has said it before.

    Args:
        about: what the line is about, where lines that differ are one message; left out, the text itself.
    """
    if first_time(about or text):
        print(f"note: {text}", file=sys.stderr, flush=True)


def first_time(what: str, *, mark: bool = True) -> bool:
    """Whether something has not occurred yet in this command; with `mark`, from now on it has."""
    place = zlib.crc32(what.encode(errors="surrogatepass")) % _PLACES
    new = not _known[place]
    if mark:
        _known[place] = 1
    return new
