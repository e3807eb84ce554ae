"""Files that are either whole or absent, and what identifies their content."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mal.errors import MalError


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` that takes its name only once it is complete and on disk.

    A reader, or a run after a kill, sees the old file or the new one, never half of one.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise explain(error, path) from error
    try:
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch.save on a full disk ends in a RuntimeError that hides the OSError
        if cause is not None and isinstance(error, Exception):
            raise explain(cause, path) from error
        raise


def write_json(path: str | Path, value: Any, *, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically. NaN is refused: JSON has none.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """The JSON value in a file of ours."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex digest of a JSON-like value; equal values have equal digests, whatever their key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
