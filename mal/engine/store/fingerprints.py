"""What a result's source files hold, read once: digests of content, remembered by size and times.

<store>/fingerprints.json            single files: path → state and sha256
<store>/fingerprints/images-….json   the images of one folder: name → state and sha256
<store>/fingerprints/WHAT-….json     what was derived from one content: see `derived`

A digest and not the times goes into a key, so touching, copying or moving a data set gives no result another name.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal.engine.files import digest, read_json, sha256, write_json
from mal.errors import ImageError, MalError

SETTLED_NS = 2_000_000_000  # a file younger than this may change again without its times showing it
SHOWN_FROM = 500_000_000  # bytes to read from which on progress is shown
UNREADABLE = "unreadable"  # in place of a digest
THREADS, BATCH = 16, 64  # reading waits for disks and servers; images a task

State = list[int]  # size; time of modification; time of status change, which copying a file's times cannot fake (ns)


class Fingerprints:
    """Digests of source files; an unchanged file is read only the first time.

    Where the store cannot be written they are right all the same, only slower.
    """

    def __init__(self, root: str | Path) -> None:
        self.cache = Path(root) / "fingerprints.json"
        self.folder = Path(root) / "fingerprints"

    def file(self, path: str | Path) -> str:
        """sha256 of a file in hex.

        Raises:
            MalError: there is no such file, or it cannot be read.
        """
        place = str(Path(path).resolve())
        try:
            known = _load(self.cache).get(place)
            if isinstance(known, dict) and known.get("state") == _state(place) and _is_digest(known.get("sha256")):
                return known["sha256"]
            value, state = _read(place)
        except FileNotFoundError:
            raise MalError(f"there is no file {path}; check the path in the config") from None
        except OSError as error:
            raise MalError(f"cannot read {path}: {error.strerror}; give a file that can be read") from error
        if _is_settled(state):
            entry = {"state": state, "sha256": value}
            self._remember(self.cache, {**_load(self.cache), place: entry}, indent=1)
        return value

    def images(self, folder: str | Path, names: Collection[str], *, skip_unreadable: bool = False) -> str:
        """Digest of some images of a folder: of their names below it, and of every byte in them.

        Unchanged images cost one look at their size and times; others are read, in threads.

        Args:
            folder: what the names are relative to.
            names: in any order.
            skip_unreadable: an image that the system does not let us read counts as such instead of being an error.

        Raises:
            ImageError: one is not there, or cannot be read.
            MalError: one changes while it is read.
        """
        place, ordered = str(Path(folder).resolve()), sorted(set(names))
        states = _states(place, ordered, skip_unreadable=skip_unreadable)
        here = digest(place)[:16]
        memory = self.folder / f"images-{here}.json"
        # what the whole set came to is remembered apart: the memory of 118,000 images takes a second to parse
        summary = self.folder / f"images-{here}-{digest(ordered)[:16]}.json"
        found, seen = _load(summary), digest(states)
        if found.get("states") == seen and _is_digest(found.get("content")):
            return found["content"]
        known = {name: entry for name, entry in _load(memory).items() if _is_entry(entry)}
        stale = {n: state for n, state in zip(ordered, states, strict=True) if state and known.get(n, [])[:3] != state}
        size = sum(state[0] for state in stale.values())
        fresh: dict[str, list[Any]] = {}
        try:
            for name, value, state in _read_all(place, list(stale), size=size, skip_unreadable=skip_unreadable):
                fresh[name] = [*state, value]
        finally:  # an interrupted reading goes on where it was
            lasting = {name: entry for name, entry in fresh.items() if _is_settled(entry[:3])}
            if lasting:
                self._remember(memory, {**known, **lasting})
        whole = known | fresh
        content = digest([[n, whole[n][3] if s else UNREADABLE] for n, s in zip(ordered, states, strict=True)])
        if len(lasting) == len(fresh):
            now = [whole[n][:3] if s else s for n, s in zip(ordered, states, strict=True)]
            self._remember(summary, {"states": digest(now), "content": content})
        return content

    def derived(self, what: str, content: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that follows from the content of a source file alone, computed the first time.

        Args:
            what: names it, and the version of the code that computes it.
            content: the file's digest.
            compute: gives the value.
        """
        path = self.folder / f"{what}-{content[:16]}.json"
        with suppress(OSError, ValueError):
            known = read_json(path)
            if isinstance(known, dict) and known.get("content") == content and "value" in known:
                return known["value"]
        value = compute()
        self._remember(path, {"content": content, "value": value})
        return value

    def _remember(self, path: Path, value: Any, *, indent: int | None = None) -> None:
        with suppress(MalError):
            write_json(path, value, indent=indent)


def looks(folder: str | Path, names: Iterable[str]) -> str:
    """Digest of the sizes and times of images: whether they changed since a moment ago, without reading any.

    Raises:
        ImageError: one is not there.
    """
    return digest(_states(str(Path(folder).resolve()), sorted(set(names)), skip_unreadable=True))


def _load(path: Path) -> dict[str, Any]:
    """What is remembered; nothing where that is absent or damaged."""
    try:
        known = read_json(path)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _state(path: str) -> State:
    status = os.stat(path)  # noqa: PTH116 - a Path object for each of 118,000 names doubles the time
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(path: str) -> tuple[str, State]:
    """sha256 of a file, and its state before and after.

    Raises:
        OSError: it cannot be read.
        MalError: it changed meanwhile.
    """
    before = _state(path)
    value = sha256(path)
    if _state(path) != before:
        raise MalError(f"{path} changed while it was read; run the command again once it is complete")
    return value, before


def _states(folder: str, names: list[str], *, skip_unreadable: bool) -> list[State | None]:
    """The state of every image; None for one that is not to be read. In threads, for the sake of network disks."""

    def look(part: list[str]) -> list[State | None]:
        found: list[State | None] = []
        for name in part:
            try:
                found.append(_state(_path(folder, name)))
            except (OSError, ValueError) as error:  # a name may hold what no path can
                if not skip_unreadable or isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise _explained(error, folder, name) from error
                found.append(None)
        return found

    with ThreadPoolExecutor(THREADS) as threads:
        return [state for part in threads.map(look, _batches(names, 1000)) for state in part]


def _read_all(folder: str, names: list[str], *, size: int, skip_unreadable: bool) -> Iterator[tuple[str, str, State]]:
    """Name, digest and state of images, in order; their `size` in all decides whether progress is shown."""

    def read(part: list[str]) -> list[tuple[str, str, State]]:
        found = []
        for name in part:
            path = _path(folder, name)
            try:
                found.append((name, *_read(path)))
            except OSError as error:
                if not skip_unreadable or isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise _explained(error, folder, name) from error
                found.append((name, UNREADABLE, _state(path)))
        return found

    threads = ThreadPoolExecutor(THREADS)
    try:
        parts = threads.map(read, _batches(names, BATCH))
        if size < SHOWN_FROM:
            for part in parts:
                yield from part
            return
        from mal.engine.progress import Progress  # it brings torch, which takes seconds and is not needed for the rest

        with Progress(f"read images of {folder} for the first time", total=len(names), unit="image") as bar:
            for part in parts:
                bar.advance(len(part))
                yield from part
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


def _path(folder: str, name: str) -> str:
    return name if name.startswith("/") else f"{folder}/{name}"  # exports that stay on one machine have whole paths


def _batches(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _explained(error: OSError | ValueError, folder: str, name: str) -> ImageError:
    path = Path(folder) / name
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError(f"there is no image at {path}; check the image folder and the annotation's file_name")
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError(f"cannot open the image {path} ({reason}); check the file and its rights")


def _is_settled(state: list[int]) -> bool:
    """Whether a later change must show in the state: the system's clock has moved on since it last changed."""
    return time.time_ns() - state[2] > SETTLED_NS


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


def _is_entry(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and (_is_digest(value[3]) or value[3] == UNREADABLE)
