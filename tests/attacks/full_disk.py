"""Disks that fill up at any point: a sentence, and once there is room the same command goes on to the same bits.

python tests/attacks/full_disk.py      a few minutes on two cores; as root also with a real, tiny file system
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness

LIMITS = (6_000, 20_000, 300_000, 2_000_000, 8_000_000)  # bytes a file; what is printed must fit into the first
SIZES = (64, 512, 2048, 6144, 16384, 32768)  # kB of the file system


def attack_files(folder: Path, *, limits: tuple[int, ...] = LIMITS, overrides: tuple[str, ...] = ()) -> list[str]:
    """What went wrong where no file may be larger than each limit in turn (RLIMIT_FSIZE)."""
    harness.finish(harness.config(folder / "reference", *overrides), folder / "reference.log")
    wanted, problems = harness.config(folder / "store", *overrides), []
    for limit in limits:
        problems += _one(wanted, folder / f"limit-{limit}.log", limit=limit)
    return problems + _afterwards(wanted, folder)


def attack_disk(folder: Path, *, sizes: tuple[int, ...] = SIZES, overrides: tuple[str, ...] = ()) -> list[str]:
    """What went wrong where the file system grows from size to size.

    Raises:
        PermissionError: none can be mounted here.
    """
    harness.finish(harness.config(folder / "reference", *overrides), folder / "reference.log")
    with small_disk(folder / "disk", kilobytes=sizes[0]) as disk:
        wanted, problems = harness.config(disk / "store", *overrides), []
        for size in sizes:
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            problems += _one(wanted, folder / f"size-{size}.log")
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        return problems + _afterwards(wanted, folder, store=disk / "store")


@contextmanager
def small_disk(place: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system of its own at `place`.

    Raises:
        PermissionError: none can be mounted here.
    """
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a file system is for root alone")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _one(wanted: harness.Config, log: Path, *, limit: int | None = None) -> list[str]:
    with harness.attempts() as running:
        running.append(harness.Attempt(wanted, log, file_limit=limit))
        code = running[0].wait(600)
    text = log.read_text() if log.exists() else ""
    print(f"{log.stem}: exit status {code}  {text.strip().splitlines()[-1][:150] if text.strip() else ''}", flush=True)
    if code == 0:
        return []
    good = code == 1 and "Traceback" not in text and "error: cannot write " in text
    return [] if good else [f"{log}: exit status {code} without a sentence that says what cannot be written"]


def _afterwards(wanted: harness.Config, folder: Path, *, store: Path | None = None) -> list[str]:
    harness.finish(wanted, folder / "afterwards.log")
    return [
        f"{name} differs" for name in harness.differences(store or folder / "store", harness.bits(folder / "reference"))
    ]


if __name__ == "__main__":
    found = attack_files(Path(tempfile.mkdtemp(prefix="full-")))
    try:
        found += attack_disk(Path(tempfile.mkdtemp(prefix="full-")))
    except PermissionError as error:
        print(f"skipped: {error}")
    print("\n".join(found) or "full disks: a sentence each time, and the same bits in the end")
    sys.exit(bool(found))
