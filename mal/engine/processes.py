"""Which processes of this machine live: by id and start time, within this boot and this container."""

import contextlib
import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Names what process ids are relative to: this boot of this machine and the container we are in.

    Two containers may share a host name; neither may declare the other's processes dead.
    """
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return "/".join((platform.node(), boot, space))


def start_time(pid: int) -> str | None:
    """When a process began, in clock ticks after boot; tells a process from a later one of the same id.

    None where the system does not say (no /proc), and for a process that is gone, zombies included.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_alive(pid: int, *, started: str | None) -> bool:
    """Whether the process of this id that began at `started` (see `start_time`) still runs on this machine."""
    if started is not None:
        return start_time(pid) == started
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
