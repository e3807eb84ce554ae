"""Files that are either whole or absent, and what identifies their content."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mal.engine.leftovers import prefix_and_suffix
from mal.errors import DamagedFileError, MalError

_FENCES: dict[str, Callable[[], None]] = {}  # folder → raises where this process may not write in it any more


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` that takes its name only once it is complete and on disk.

    A reader, or a run after a kill, sees the old file or the new one, never half of one.

    Raises:
        MalError: the disk is full or the folder cannot be written; or it is `fenced` and was lost.
    """
    path = Path(path)
    prefix, suffix = prefix_and_suffix(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    except OSError as error:
        raise explain(error, path) from error
    try:
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, MalError):
            raise
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch.save on a full disk ends in a RuntimeError that hides the OSError
        if cause is not None and isinstance(error, Exception):
            raise explain(cause, path) from error
        raise


def _replace(temporary: str, path: Path) -> None:
    check_fence(path)
    try:
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except FileNotFoundError:
        # whoever took the folder over removes our temporary files: that closes the gap between the two
        check_fence(path)
        raise


@contextmanager
def fenced(folder: str | Path, check: Callable[[], None]) -> Iterator[None]:
    """Within this block a file in `folder`, at any depth, takes its name only where `check` raises nothing.

    So a process that was stopped for minutes, and whose work another one took over, cannot write into the other's.
    """
    place = str(Path(folder).absolute())
    before = _FENCES.get(place)
    _FENCES[place] = check
    try:
        yield
    finally:
        _FENCES.pop(place)
        if before is not None:
            _FENCES[place] = before


def check_fence(path: str | Path) -> None:
    """Ask before changing anything at `path` other than by `atomic_write`.

    Raises:
        MalError: what the check of a `fenced` folder around it raises.
    """
    if not _FENCES:
        return
    place = str(Path(path).absolute())
    for folder, check in list(_FENCES.items()):
        if place == folder or place.startswith(folder + os.sep):
            check()


def write_json(path: str | Path, value: Any, *, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically. NaN is refused: JSON has none.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent, allow_nan=False)


def write_csv(path: str | Path, frame: Any) -> None:
    """Write a pandas frame without its index, atomically.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as file:
        frame.to_csv(file, index=False, lineterminator="\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in a file of ours.

    Raises:
        DamagedFileError: it is no JSON, or nested beyond reason; it is a ValueError too.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} is damaged ({_json_fault(error)}); if it is a result in the run store, delete its folder "
            f"{Path(path).parent}, and the same command computes it again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Wait until every file in a folder, and the folder's list of them, is on disk.

    Raises:
        MalError: the disk fails or is full.
    """
    for place in (*sorted(folder.rglob("*")), folder):
        try:
            descriptor = os.open(place, os.O_RDONLY)
        except OSError:  # gone again, such as another process's temporary file
            continue
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
                raise explain(error, place) from error
        finally:
            os.close(descriptor)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex digest of a JSON-like value; equal values have equal digests, whatever their key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested thousands of levels deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    return f"it is not JSON: {error}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once: changing it later, even for a moment, would race with other threads

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "permission is denied; name another place, or change its rights",
    errno.EPERM: "permission is denied; name another place, or change its rights",
    errno.ENOTDIR: "part of the path is a file; name another place",
}


def explain(error: OSError, path: Path) -> MalError:
    """The sentence for a write that failed."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return MalError(f"cannot write {path}: {reason}. Nothing that was finished is lost.")
